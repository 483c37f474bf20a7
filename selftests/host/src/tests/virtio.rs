// SPDX-License-Identifier: GPL-2.0

//! What goes to a virtio-iommu, and what comes back: bytes as the specification has them.

use iommu::mappings::run::{Rights, Run};
use proptest::prelude::*;

use crate::virtio::{
    config::{self, feature, Config},
    event::{self, Fault, Reason},
    probe::{self, for_each_not_free, for_each_reserved, Reserved},
    request::{self, judge, Status, Verdict},
};

#[test]
fn requests_as_specified() {
    assert_eq!(
        request::attach(0x0102_0304, 0x0506_0708, true).bytes(),
        [1, 0, 0, 0, 4, 3, 2, 1, 8, 7, 6, 5, 1, 0, 0, 0, 0, 0, 0, 0]
    );
    assert_eq!(
        request::attach(1, 2, false).bytes(),
        [1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    );
    assert_eq!(
        request::detach(0x0102_0304, 0x0506_0708).bytes(),
        [2, 0, 0, 0, 4, 3, 2, 1, 8, 7, 6, 5, 0, 0, 0, 0, 0, 0, 0, 0]
    );
    let rights = Rights {
        read: true,
        write: false,
        mmio: true,
    };
    let run = Run::new(0x1000, 0x8877_6655_4433_2000, 0x2000, rights).unwrap();
    assert_eq!(
        request::map(9, &run).bytes(),
        [
            3, 0, 0, 0, 9, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0xff, 0x2f, 0, 0, 0, 0, 0, 0, 0,
            0x20, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 5, 0, 0, 0
        ]
    );
    assert_eq!(
        request::unmap(9, 0x1000, u64::MAX).bytes(),
        [
            4, 0, 0, 0, 9, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255,
            255, 0, 0, 0, 0
        ]
    );
    let probe = request::probe(0x0102_0304);
    assert_eq!(probe[..8], [5, 0, 0, 0, 4, 3, 2, 1]);
    assert!(probe[8..].iter().all(|byte| *byte == 0));
}

#[test]
fn answers_are_judged() {
    let requests = [
        request::attach(1, 2, false),
        request::map(1, &Run::new(0, 0, 4096, rw()).unwrap()),
        request::unmap(1, 0, 4095),
    ];
    for request in requests {
        let request = request.bytes();
        for status in 0..=255u8 {
            let verdict = judge(request, Status::read([status, 0, 0, 0], 4, 4), 0);
            let expected = match (request[0], status) {
                (_, 0) | (4, 6) => Verdict::Done,
                (_, 8) => Verdict::NoMemory,
                _ => Verdict::Failed,
            };
            assert_eq!(verdict, expected, "{} {status}", request::name(request));
        }
        // Short, or none: what is in the buffer means nothing.
        for written in 0..4 {
            let status = Status::read([0; 4], written, 4);
            assert_eq!(status, Status::Missing);
            assert_eq!(judge(request, status, 0), Verdict::Failed);
        }
    }
}

#[test]
fn who_is_not_there_is_blocked() {
    let blocked = 0x0102_0304;
    let attach = |domain| {
        judge(
            request::attach(domain, 7, false).bytes(),
            Status::NoEntry,
            blocked,
        )
    };
    assert_eq!(attach(blocked), Verdict::Done);
    assert_eq!(attach(blocked + 1), Verdict::Failed);
    let map = request::map(blocked, &Run::new(0, 0, 4096, rw()).unwrap());
    assert_eq!(
        judge(map.bytes(), Status::NoEntry, blocked),
        Verdict::Failed
    );
    let wrong = request::attach(blocked, 7, false);
    assert_eq!(
        judge(wrong.bytes(), Status::Range, blocked),
        Verdict::Failed
    );
    assert_eq!(request::attached(wrong.bytes()), Some(7));
    assert_eq!(request::attached(map.bytes()), None);
    assert_eq!(request::attached(&[1, 0, 0]), None);
}

fn free(reserved: &[(u64, u64)], start: u64, last: u64, page: u64) -> Vec<(u64, u64)> {
    let regions: Vec<Reserved> = reserved
        .iter()
        .map(|(start, last)| Reserved {
            start: *start,
            last: *last,
            msi: false,
        })
        .collect();
    let mut all = Vec::new();
    probe::for_each_free(&regions, start, last, page, |start, bytes| {
        all.push((start, bytes))
    });
    all
}

#[test]
fn what_is_free() {
    assert_eq!(free(&[], 0, 0xffff, 4096), [(0, 0x1_0000)]);
    // A page of which a byte is reserved is not free.
    assert_eq!(
        free(&[(0x1fff, 0x2000)], 0, 0xffff, 4096),
        [(0, 0x1000), (0x3000, 0xd000)]
    );
    assert_eq!(
        free(&[(0, 0), (0xffff, 0xffff)], 0, 0xffff, 4096),
        [(0x1000, 0xe000)]
    );
    assert_eq!(free(&[(0, u64::MAX)], 0, 0xffff, 4096), []);
    // All there is has a byte too many.
    assert_eq!(free(&[], 0, u64::MAX, 4096), [(0, !0xfff)]);
    assert_eq!(
        free(&[(u64::MAX, u64::MAX)], 0, u64::MAX, 4096),
        [(0, !0xfff)]
    );
}

fn rw() -> Rights {
    Rights {
        read: true,
        write: true,
        mmio: false,
    }
}

fn region(subtype: u8, start: u64, last: u64) -> Vec<u8> {
    let mut property = vec![1, 0, 20, 0, subtype, 0, 0, 0];
    property.extend(start.to_le_bytes());
    property.extend(last.to_le_bytes());
    property
}

fn regions(list: &[u8]) -> (Vec<Reserved>, Result<(), probe::Error>) {
    let mut all = Vec::new();
    let result = for_each_reserved(list, |region| all.push(region));
    (all, result)
}

#[test]
fn properties() {
    let mut list = region(1, 0xfee0_0000, 0xfeef_ffff);
    // One of an unknown type, with its upper bits set; a region of an unknown kind; the end.
    list.extend([2, 0xf0, 4, 0, 9, 9, 9, 9]);
    list.extend(region(77, 0, 0));
    list.extend([0; 40]);
    let expected = [
        Reserved {
            start: 0xfee0_0000,
            last: 0xfeef_ffff,
            msi: true,
        },
        Reserved {
            start: 0,
            last: 0,
            msi: false,
        },
    ];
    assert_eq!(regions(&list), (expected.to_vec(), Ok(())));
    assert_eq!(regions(&[]), (vec![], Ok(())));
    assert_eq!(regions(&[0; 512]), (vec![], Ok(())));
    assert_eq!(
        regions(&region(0, 5, 4)),
        (vec![], Err(probe::Error::Order(0)))
    );
}

fn not_free(reported: &[Reserved]) -> Vec<Reserved> {
    let mut all = Vec::new();
    for_each_not_free(reported, |region| all.push(*region));
    all
}

#[test]
fn a_reported_msi_window_replaces_the_usual_one() {
    let usual = Reserved::MSI;
    assert_eq!((usual.start, usual.bytes()), (0xfee0_0000, 0x10_0000));
    let memory = Reserved {
        start: 0x1000,
        last: 0x1fff,
        msi: false,
    };
    let window = Reserved {
        start: 0x800_0000,
        last: 0x800_ffff,
        msi: true,
    };
    assert_eq!(not_free(&[]), [usual]);
    assert_eq!(not_free(&[memory]), [memory, usual]);
    assert_eq!(not_free(&[window]), [window]);
    assert_eq!(not_free(&[window, memory]), [window, memory]);
    // What is there but takes no interrupt messages replaces nothing.
    let same = Reserved {
        msi: false,
        ..usual
    };
    assert_eq!(not_free(&[same]), [same, usual]);
    let all = Reserved {
        start: 0,
        last: u64::MAX,
        msi: false,
    };
    assert_eq!(all.bytes(), u64::MAX);
}

#[test]
fn every_truncation_of_properties_is_an_error() {
    let mut list = region(1, 0, 5);
    list.extend(region(0, 7, 9));
    for length in 0..list.len() {
        let (found, result) = regions(&list[..length]);
        assert_eq!(found.len(), length / 24);
        assert_eq!(result.is_err(), length % 24 != 0, "{length}");
    }
    // A length that ends before the fields do, or behind the list.
    for length in 0..=255 {
        let mut list = region(1, 0, 5);
        list[2] = length;
        assert_eq!(regions(&list).1.is_ok(), length == 20, "{length}");
    }
}

#[test]
fn reports() {
    let mut bytes = [0; event::SIZE];
    bytes[0] = 2;
    bytes[4..8].copy_from_slice(&0x102u32.to_le_bytes());
    bytes[8..12].copy_from_slice(&0x18u32.to_le_bytes());
    bytes[16..].copy_from_slice(&0x1234_5000u64.to_le_bytes());
    let fault = Fault::decode(&bytes, event::SIZE).unwrap();
    assert_eq!((fault.endpoint, fault.reason), (0x18, Reason::Mapping));
    assert_eq!(
        fault.to_string(),
        "write at 0x12345000 (not mapped, or not for this)"
    );
    for (reason, text) in [
        (0, "no reason given"),
        (1, "not in a domain"),
        (200, "no reason given"),
    ] {
        bytes[0] = reason;
        bytes[4..8].copy_from_slice(&0u32.to_le_bytes());
        let fault = Fault::decode(&bytes, event::SIZE).unwrap();
        assert_eq!(
            fault.to_string(),
            format!("access at an unknown address ({text})")
        );
    }
    for written in 0..event::SIZE {
        assert_eq!(Fault::decode(&bytes, written), None);
    }
}

/// QEMU's: all features, pages of every size, 39 bits.
fn qemu() -> [u8; config::SIZE] {
    let mut bytes = [0; config::SIZE];
    bytes[..8].copy_from_slice(&(!0xfffu64).to_le_bytes());
    bytes[16..24].copy_from_slice(&((1u64 << 39) - 1).to_le_bytes());
    bytes[28..32].copy_from_slice(&u32::MAX.to_le_bytes());
    bytes[32..36].copy_from_slice(&512u32.to_le_bytes());
    bytes[36] = 1;
    bytes
}

fn with(change: impl Fn(&mut [u8; config::SIZE])) -> Result<Config, config::Error> {
    let mut bytes = qemu();
    change(&mut bytes);
    Config::decode(&bytes, |_| true)
}

#[test]
fn configurations() {
    let config = with(|_| ()).unwrap();
    assert_eq!((config.start, config.last), (0, (1 << 39) - 1));
    assert_eq!(
        (config.blocked, config.bypass, config.first_domain),
        (0, 1, 2)
    );
    assert!(config.has_bypass && config.bypass_before && config.has_mmio);
    assert_eq!(config.probe_size, 512);
    // Fields of features that were not agreed on mean nothing.
    let only = Config::decode(&[0xff; config::SIZE], |bit| bit == feature::MAP_UNMAP).unwrap();
    assert_eq!((only.start, only.last), (0, u64::MAX));
    assert_eq!((only.first_domain, only.last_domain), (2, u32::MAX));
    assert!(!only.has_bypass && !only.bypass_before && only.probe_size == 0);

    assert_eq!(
        Config::decode(&qemu(), |_| false),
        Err(config::Error::NoMap)
    );
    let bits =
        |mask: u64| move |b: &mut [u8; config::SIZE]| b[..8].copy_from_slice(&mask.to_le_bytes());
    assert_eq!(with(bits(0)), Err(config::Error::PageSize(0)));
    assert_eq!(with(bits(1 << 16)), Err(config::Error::PageSize(1 << 16)));
    assert!(with(bits(1 << 12)).is_ok());
    // None is smaller than the CPU's.
    assert_eq!(
        with(bits(1 << 9 | 1 << 21)).unwrap().page_sizes,
        1 << 12 | 1 << 21
    );
    assert_eq!(with(bits(u64::MAX)).unwrap().page_sizes, !0xfff);
    assert!(with(|b| b[16..24].fill(0)).is_err());
    assert!(with(|b| b[8..16].fill(0xff)).is_err());
    // Whole pages: those of the CPU.
    let range = |first: u64, last: u64| {
        move |b: &mut [u8; config::SIZE]| {
            b[8..16].copy_from_slice(&first.to_le_bytes());
            b[16..24].copy_from_slice(&last.to_le_bytes());
        }
    };
    let width = |first, last| with(range(first, last)).unwrap().address_bits();
    assert_eq!(width(0, (1 << 48) - 1), Some(48));
    assert_eq!(width(0, u64::MAX), Some(64));
    assert_eq!(width(0x1000, u64::MAX), None);
    assert_eq!(width(0, (1 << 48) - 0x1001), None);
    let pages = |first, last| with(range(first, last)).map(|config| (config.start, config.last));
    assert_eq!(pages(1, 0x5000), Ok((0x1000, 0x4fff)));
    assert_eq!(pages(0x1000, 0x1fff), Ok((0x1000, 0x1fff)));
    assert_eq!(pages(0, u64::MAX), Ok((0, u64::MAX)));
    assert!(pages(0x1001, 0x2ffe).is_err());
    let small = with(|b| {
        bits(1 << 9)(b);
        range(0x200, 0x33ff)(b);
    });
    assert_eq!(
        small.map(|config| (config.start, config.last)),
        Ok((0x1000, 0x2fff))
    );
    assert!(pages(u64::MAX - 5, u64::MAX).is_err());

    let domains = |first: u32, last: u32| {
        move |b: &mut [u8; config::SIZE]| {
            b[24..28].copy_from_slice(&first.to_le_bytes());
            b[28..32].copy_from_slice(&last.to_le_bytes());
        }
    };
    assert!(with(domains(5, 6)).is_err());
    assert!(with(domains(u32::MAX, u32::MAX)).is_err());
    assert_eq!(with(domains(5, 7)).unwrap().first_domain, 7);
    assert!(with(|b| b[32] = 1).is_err());
    assert!(with(|b| b[35] = 1).is_err());
}

#[test]
fn fields_are_there_with_their_features() {
    let size = |bits: &[u32]| config::size(|bit| bits.contains(&bit));
    assert_eq!(size(&[feature::MAP_UNMAP, feature::MMIO]), 8);
    assert_eq!(size(&[feature::INPUT_RANGE]), 24);
    assert_eq!(size(&[feature::DOMAIN_RANGE]), 32);
    assert_eq!(size(&[feature::PROBE, feature::INPUT_RANGE]), 36);
    assert_eq!(size(&[feature::BYPASS_CONFIG]), 37);
}

proptest! {
    #[test]
    fn what_is_free_and_what_is_not(
        reserved in prop::collection::vec((0..0x2_0000u64, 0..0x4000u64), 0..5),
        first in 0..4u64,
        pages in 1..28u64,
    ) {
        let reserved: Vec<_> = reserved.iter().map(|(start, more)| (*start, start + more)).collect();
        let (start, last) = (first * 4096, (first + pages) * 4096 - 1);
        let found = free(&reserved, start, last, 4096);
        for page in 0..40u64 {
            let (low, high) = (page * 4096, page * 4096 + 4095);
            let wanted = start <= low && high <= last
                && !reserved.iter().any(|(start, last)| *start <= high && low <= *last);
            let times = found.iter().filter(|(start, bytes)| *start <= low && low - start < *bytes).count();
            prop_assert_eq!(times, usize::from(wanted), "{:#x}", low);
        }
        prop_assert!(found.iter().all(|(start, bytes)| start % 4096 == 0 && bytes % 4096 == 0));
    }

    #[test]
    fn no_bytes_make_it_panic(list in prop::collection::vec(any::<u8>(), 0..100), bits in any::<u8>()) {
        let _ = regions(&list);
        let mut bytes = [0; config::SIZE];
        for (place, byte) in bytes.iter_mut().zip(&list) {
            *place = *byte;
        }
        if let Ok(config) = Config::decode(&bytes, |bit| bits & 1 << bit != 0) {
            prop_assert!(config.first_domain <= config.last_domain && config.start < config.last);
        }
    }
}
