// SPDX-License-Identifier: GPL-2.0

//! Segments against the addresses that they are made of, byte ranges all of them.

use iommu::policy::segments::{pages, Segment, Segments};
use proptest::prelude::*;

const PAGE: u64 = 4096;

/// Where the bytes of each entry have to be found.
fn runs(iova: u64, entries: &[(u64, u32)]) -> Vec<(u64, u64)> {
    let mut next = iova;
    let mut runs = Vec::new();
    for &(offset, length) in entries {
        runs.push((next + offset, u64::from(length)));
        next += pages(offset, length.into()) as u64 * PAGE;
    }
    runs
}

fn segments(iova: u64, boundary: u64, longest: u32, entries: &[(u64, u32)]) -> Vec<Segment> {
    let mut segments = Segments::new(iova, boundary, longest);
    let mut all: Vec<_> = entries
        .iter()
        .filter_map(|&(offset, length)| segments.add(offset, length))
        .collect();
    all.extend(segments.last());
    all
}

fn entry() -> impl Strategy<Value = (u64, u32)> {
    prop_oneof![
        // Whole pages, which meet their neighbours; and any others.
        3 => (1u32..20).prop_map(|count| (0, count * 4096)),
        1 => (0u64..4096, 1u32..20_000),
        1 => (0u64..4096).prop_map(|offset| (offset, (4096 - offset) as u32)),
    ]
}

proptest! {
    #[test]
    fn y1_segments_are_what_the_entries_are(
        page in 0u64..1 << 40,
        order in 12u32..40,
        longest in 4096u32..1 << 20,
        entries in prop::collection::vec(entry(), 1..40),
    ) {
        let iova = page * PAGE;
        let boundary = (1 << order) - 1;
        let runs = runs(iova, &entries);
        let mut left = runs.iter().copied();
        let mut after = None;
        for segment in segments(iova, boundary, longest, &entries) {
            // Each is some entries, in order, without a gap.
            let mut at = segment.start;
            let end = segment.start + u64::from(segment.length);
            let mut parts = 0;
            while at < end {
                let (start, length) = left.next().unwrap();
                prop_assert_eq!(start, at);
                at += length;
                parts += 1;
            }
            prop_assert_eq!(at, end);
            // What was put together obeys the limits; what is one entry is the driver's.
            let crosses = (segment.start ^ (end - 1)) & !boundary != 0;
            prop_assert!(parts == 1 || (segment.length <= longest && !crosses));
            // And nothing is left apart that could be together.
            if let Some((start, length)) = after {
                let first = runs.iter().find(|run| run.0 == segment.start).unwrap().1;
                let meets = start + length == segment.start;
                let crosses = (start ^ (segment.start + first - 1)) & !boundary != 0;
                prop_assert!(!meets || crosses || length + first > longest.into());
            }
            after = Some((segment.start, u64::from(segment.length)));
        }
        prop_assert_eq!(left.next(), None);
    }
}

#[test]
fn y1_an_entry_of_4_gb_does_not_overflow() {
    let entries = [(0, u32::MAX & !0xfff), (0, 4096), (4095, 1)];
    assert_eq!(segments(0, u64::MAX, u32::MAX, &entries).len(), 2 + 1);
}

#[test]
fn y1_pages_are_those_that_are_touched() {
    assert_eq!(pages(0, 1), 1);
    assert_eq!(pages(4095, 1), 1);
    assert_eq!(pages(4095, 2), 2);
    assert_eq!(pages(0x1000, 0x1000), 1);
    assert_eq!(pages(0x1001, 0x1000), 2);
}
