// SPDX-License-Identifier: GPL-2.0

use super::{capabilities, QEMU_CAP, QEMU_CAP_39, QEMU_CAP_CACHING, QEMU_ECAP};
use crate::caps::{Capabilities, Error, Width};

#[test]
fn qemu_unit_is_read_as_it_is() {
    let caps = capabilities(QEMU_CAP);
    assert_eq!((caps.cap(), caps.ecap()), (QEMU_CAP, QEMU_ECAP));
    assert_eq!(caps.domain_count(), 65536);
    assert!(!caps.advanced_fault_log());
    assert!(!caps.write_buffer_flush());
    assert!(!caps.protected_low());
    assert!(!caps.protected_high());
    assert!(!caps.caching_mode());
    assert_eq!(caps.sagaw(), 0b110);
    assert_eq!(caps.mgaw(), 48);
    assert!(!caps.zero_length_read());
    assert_eq!(caps.fault_record_offset(), 0x220);
    assert_eq!(caps.fault_record_count(), 1);
    assert!(caps.pages_2m());
    assert!(caps.pages_1g());
    assert_eq!(caps.page_sizes(), 0x4020_1000);
    assert!(caps.page_selective());
    assert_eq!(caps.max_block_order(), Some(18));
    assert!(caps.drain_writes());
    assert!(caps.drain_reads());
    assert!(caps.set_root_invalidates());

    assert!(!caps.coherent());
    assert!(caps.queued_invalidation());
    assert!(!caps.device_tlb());
    assert!(caps.interrupt_remapping());
    assert!(!caps.extended_interrupt_mode());
    assert!(caps.pass_through());
    assert!(!caps.snoop_control());
    assert_eq!(caps.iotlb_offset(), 0xf0);
    assert!(!caps.scalable_mode());
    assert_eq!(caps.register_span(), 0x230);
}

#[test]
fn qemu_ecap_bits_are_not_shared() {
    // 0x00f00f4a: bits 1, 3, 6; IRO 0xf; MHMV 0xf.
    let ecap = |bit: u32| Capabilities::new(0, 1 << bit).unwrap();
    assert!(ecap(0).coherent() && !ecap(0).queued_invalidation());
    assert!(ecap(2).device_tlb() && !ecap(2).interrupt_remapping());
    assert!(ecap(4).extended_interrupt_mode() && !ecap(4).pass_through());
    assert!(ecap(7).snoop_control() && !ecap(7).pass_through());
    assert!(ecap(43).scalable_mode());
    assert_eq!(ecap(17).iotlb_offset(), 0x2000);
    assert_eq!(ecap(18).iotlb_offset(), 0);
}

#[test]
fn each_cap_field_stands_where_the_specification_says() {
    let cap = |bit: u32| Capabilities::new(1 << bit, 0).unwrap();
    assert!(cap(3).advanced_fault_log());
    assert!(cap(4).write_buffer_flush());
    assert!(cap(5).protected_low());
    assert!(cap(6).protected_high());
    assert!(cap(7).caching_mode());
    assert!(capabilities(QEMU_CAP_CACHING).caching_mode());
    assert!(cap(22).zero_length_read());
    assert_eq!(cap(33).fault_record_offset(), 0x2000);
    assert!(cap(34).pages_2m() && !cap(34).pages_1g());
    assert_eq!(cap(35).page_sizes(), 0x4000_1000);
    assert_eq!(cap(47).fault_record_count(), 129);
    assert_eq!(cap(48).max_block_order(), None, "MAMV counts only with PSI");
    assert_eq!(
        Capabilities::new(0x8f << 39, 0).unwrap().max_block_order(),
        Some(0)
    );
    assert_eq!(
        Capabilities::new((0x3f << 48) | (1 << 39), 0)
            .unwrap()
            .max_block_order(),
        Some(63)
    );
    for (nd, count) in [16, 64, 256, 1024, 4096, 16384, 65536, 65536]
        .into_iter()
        .enumerate()
    {
        let caps = Capabilities::new(u64::try_from(nd).unwrap(), 0).unwrap();
        assert_eq!(caps.domain_count(), count, "ND {nd}");
    }
}

#[test]
fn register_span_holds_the_last_register_whichever_it_is() {
    let span = |cap: u64, ecap: u64| Capabilities::new(cap, ecap).unwrap().register_span();
    assert_eq!(span(0, 0), 0xc0);
    // 256 fault records from 0x3ff0.
    assert_eq!(span((0x3ff << 24) | (0xff << 40), 0), 0x3ff0 + 0x1000);
    assert_eq!(span(0, 0x3ff << 8), 0x3ff0 + 16);
}

#[test]
fn nothing_answering_is_an_error() {
    assert_eq!(Capabilities::new(u64::MAX, u64::MAX), Err(Error::NoDevice));
    assert!(Capabilities::new(u64::MAX, 0).is_ok());
    assert_eq!(
        Error::NoDevice.to_string(),
        "capability registers read as all ones"
    );
}

#[test]
fn width_numbers_agree() {
    for (width, bits, levels, aw, top) in [
        (Width::Bits39, 39, 3, 1, 2),
        (Width::Bits48, 48, 4, 2, 3),
        (Width::Bits57, 57, 5, 3, 4),
    ] {
        assert_eq!(
            (width.bits(), width.levels(), width.aw(), width.top_level()),
            (bits, levels, aw, top)
        );
        assert_eq!(Width::from_aw(aw), Some(width));
    }
    for aw in [0, 4, 5, 6, 7] {
        assert_eq!(Width::from_aw(aw), None);
    }
}

/// A unit with this SAGAW field and this many bits of guest address.
fn unit(sagaw: u64, mgaw: u64) -> Capabilities {
    Capabilities::new((sagaw << 8) | ((mgaw - 1) << 16), 0).unwrap()
}

#[test]
fn table_width_is_the_smallest_that_reaches_everything() {
    use Width::{Bits39, Bits48, Bits57};
    for (sagaw, mgaw, limit, width, bits) in [
        (0b0110, 48, 64, Bits48, 48), // QEMU, aw-bits=48
        (0b0010, 39, 64, Bits39, 39), // QEMU, aw-bits=39
        (0b1110, 57, 64, Bits57, 57),
        (0b1110, 48, 64, Bits48, 48), // no fifth level for nothing
        (0b1110, 49, 64, Bits57, 49),
        (0b1110, 39, 64, Bits39, 39),
        (0b1110, 40, 64, Bits48, 40),
        (0b0110, 57, 64, Bits48, 48), // the largest there is
        (0b0010, 48, 64, Bits39, 39),
        (0b0100, 39, 64, Bits48, 39), // only a larger one exists
        (0b1000, 36, 64, Bits57, 36),
        (0b1010, 48, 64, Bits57, 48),
        (0b1110, 57, 48, Bits48, 48), // limited by the caller
        (0b1110, 57, 56, Bits48, 48),
        (0b0110, 48, 39, Bits39, 39),
        (0b0110, 64, 40, Bits39, 39),
    ] {
        let caps = unit(sagaw, mgaw);
        let what = format!("SAGAW {sagaw:#b}, MGAW {mgaw}, limit {limit}");
        assert_eq!(caps.address_width(limit), Ok(width), "{what}");
        assert_eq!(caps.iova_bits(width), bits, "{what}");
        assert_eq!(caps.iova_last(width), (1 << bits) - 1, "{what}");
    }
    assert_eq!(capabilities(QEMU_CAP).address_width(57), Ok(Bits48));
    assert_eq!(capabilities(QEMU_CAP_39).address_width(57), Ok(Bits39));
    assert_eq!(capabilities(QEMU_CAP_39).iova_last(Bits39), 0x7f_ffff_ffff);
}

#[test]
fn no_fitting_table_is_an_error() {
    for (sagaw, limit) in [
        (0b0_0000, 64),
        (0b1_0001, 64),
        (0b0100, 39),
        (0b0110, 38),
        (0b0110, 0),
    ] {
        let result = unit(sagaw, 48).address_width(limit);
        let sagaw = u8::try_from(sagaw).unwrap();
        assert_eq!(result, Err(Error::NoAddressWidth { limit, sagaw }));
    }
    assert_eq!(
        unit(0b0100, 48).address_width(39).unwrap_err().to_string(),
        "no second-stage table of at most 39 bits (SAGAW 0x4)"
    );
}

#[test]
fn pass_through_names_the_largest_width() {
    assert_eq!(unit(0b0110, 39).pass_through_width(), Ok(Width::Bits48));
    assert_eq!(unit(0b1110, 39).pass_through_width(), Ok(Width::Bits57));
    assert_eq!(unit(0b0010, 48).pass_through_width(), Ok(Width::Bits39));
    assert!(unit(0b0001, 48).pass_through_width().is_err());
}
