// SPDX-License-Identifier: GPL-2.0

use super::{capabilities, QEMU_CAP};
use crate::{
    context::Did,
    descriptor::{Descriptor, Drain, FunctionMask, Misaligned, StatusAddress, SIZE},
};
use iommu::{invalidation::Block, source_id::SourceId};

const NONE: Drain = Drain {
    reads: false,
    writes: false,
};
const BOTH: Drain = Drain {
    reads: true,
    writes: true,
};

fn did() -> Did {
    Did::new(0xabcd)
}

#[test]
fn context_cache_words() {
    assert_eq!(Descriptor::context_cache_global().words(), [0x11, 0]);
    assert_eq!(
        Descriptor::context_cache_domain(did()).words(),
        [0xabcd_0021, 0]
    );
    let source = SourceId::new(3, 0x12, 0x34);
    for (functions, mask) in [
        (FunctionMask::One, 0),
        (FunctionMask::Two, 1),
        (FunctionMask::Four, 2),
        (FunctionMask::Eight, 3),
    ] {
        assert_eq!(
            Descriptor::context_cache_device(did(), source, functions).words(),
            [0x1234_abcd_0031 | (mask << 48), 0]
        );
    }
}

#[test]
fn iotlb_words() {
    assert_eq!(Descriptor::iotlb_global(NONE).words(), [0x12, 0]);
    assert_eq!(Descriptor::iotlb_global(BOTH).words(), [0xd2, 0]);
    let reads = Drain {
        reads: true,
        writes: false,
    };
    let writes = Drain {
        reads: false,
        writes: true,
    };
    assert_eq!(
        Descriptor::iotlb_domain(did(), reads).words(),
        [0xabcd_00a2, 0]
    );
    assert_eq!(
        Descriptor::iotlb_domain(did(), writes).words(),
        [0xabcd_0062, 0]
    );
    let block = Block {
        address: 0x1_2340_0000,
        order: 10,
    };
    assert_eq!(
        Descriptor::iotlb_pages(did(), block, false, NONE).words(),
        [0xabcd_0032, 0x1_2340_000a]
    );
    assert_eq!(
        Descriptor::iotlb_pages(did(), block, true, BOTH).words(),
        [0xabcd_00f2, 0x1_2340_004a]
    );
}

#[test]
fn drain_asks_only_for_what_the_unit_can_do() {
    assert_eq!(Drain::all(&capabilities(QEMU_CAP)), BOTH);
    let without = |bit: u32| Drain::all(&capabilities(QEMU_CAP & !(1 << bit)));
    assert_eq!(
        without(54),
        Drain {
            reads: true,
            writes: false
        }
    );
    assert_eq!(
        without(55),
        Drain {
            reads: false,
            writes: true
        }
    );
}

#[test]
fn wait_words() {
    let status = StatusAddress::new(0x12_3456_7894).unwrap();
    assert_eq!(
        Descriptor::wait(status, 0x8765_4321).words(),
        [0x8765_4321_0000_0065, 0x12_3456_7894]
    );
    for low in 1..4 {
        assert_eq!(
            StatusAddress::new(0x1000 + low),
            Err(Misaligned(0x1000 + low))
        );
    }
    assert_eq!(
        Misaligned(6).to_string(),
        "status address 0x6 is not a multiple of 4"
    );
    assert_eq!(size_of::<Descriptor>(), SIZE);
}
