// SPDX-License-Identifier: GPL-2.0

//! The calls that the core makes of a map and an unmap.

use super::*;

/// What the core gives to a driver in one call of what is left to map or unmap: bytes of a page, and how
/// many. Written from what `iommu_map()` and `iommu_unmap()` were seen to do.
fn one_call(sizes: u64, iova: u64, phys: u64, left: u64) -> (u64, u64) {
    let fits = |bit: &u32| {
        let bytes = 1u64 << bit;
        sizes & bytes != 0 && bytes <= left && (iova | phys) % bytes == 0
    };
    let bit = (0..64).rev().find(fits).expect("no page fits");
    let (page, mut bytes) = (1u64 << bit, left);
    if let Some(next) = (bit + 1..64)
        .map(|bit| 1u64 << bit)
        .find(|next| sizes & next != 0)
    {
        let before = next - (iova | phys) % next;
        // Small pages up to where a larger one fits.
        if (iova ^ phys) % next == 0 && before.checked_add(next).is_some_and(|end| end <= left) {
            bytes = before;
        }
    }
    (page, bytes / page)
}

/// Segments as the core maps them, each with as many calls as it takes; then they are told.
fn core_maps(mappings: &mut Mappings, sizes: u64, iova: u64, segments: &[(u64, u64)]) {
    let mut at = iova;
    for (phys, bytes) in segments {
        let mut done = 0;
        while done < *bytes {
            let (page, count) = one_call(sizes, at, phys + done, bytes - done);
            assert!(insert(mappings, run(at, phys + done, page * count)));
            done += page * count;
            at += page * count;
        }
    }
    tell(mappings, iova, at - 1);
}

/// As the core unmaps: it stops when nothing was done, and what was done counts.
fn core_unmaps(mappings: &mut Mappings, sizes: u64, iova: u64, bytes: u64) -> u64 {
    let mut done = 0;
    while done < bytes {
        let at = iova + done;
        let (page, count) = one_call(sizes, at, at, bytes - done);
        match mappings.remove(at, at + page * count - 1) {
            0 => break,
            more => done += more,
        }
    }
    done
}

/// QEMU's, and what others may offer.
const SIZES: [u64; 4] = [!0xfff, 0x1000, 0x20_1000, 0x1000 | 1 << 16 | 1 << 30];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_core_unmaps_all_that_it_maps(
        sizes in prop::sample::select(&SIZES[..]),
        lists in prop::collection::vec(
            (0..4u64, prop::collection::vec((0..70u64, 1..40u64, any::<bool>()), 1..8)),
            1..8,
        ),
        order in any::<u64>(),
    ) {
        let mut mappings = Mappings::new(0);
        let mut mapped = Vec::new();
        let mut iova = 0;
        for (gap, list) in lists {
            iova += gap * PAGE;
            let mut phys = 0;
            let segments: Vec<(u64, u64)> = list
                .iter()
                .map(|(step, pages, follows)| {
                    // Half of them follow the one before.
                    let start = if *follows { phys } else { phys + step * PAGE };
                    phys = start + pages * PAGE;
                    (start, pages * PAGE)
                })
                .collect();
            let bytes = segments.iter().map(|segment| segment.1).sum::<u64>();
            core_maps(&mut mappings, sizes, iova, &segments);
            mapped.push((iova, bytes));
            iova += bytes;
        }
        mapped.shuffle(&mut SmallRng::seed_from_u64(order));
        for (iova, bytes) in mapped {
            prop_assert_eq!(core_unmaps(&mut mappings, sizes, iova, bytes), bytes);
            prop_assert_eq!(mappings.phys(iova), None);
        }
        prop_assert_eq!(runs(&mappings), []);
    }
}

#[test]
fn three_pages_go_with_the_first_two() {
    let mut mappings = Mappings::new(0);
    core_maps(&mut mappings, SIZES[0], 0x10_0000, &[(0x80_0000, 3 * PAGE)]);
    assert_eq!(runs(&mappings).len(), 1);
    // The core asks for two pages first, as they are one of its sizes.
    assert_eq!(
        one_call(SIZES[0], 0x10_0000, 0x10_0000, 3 * PAGE),
        (2 * PAGE, 1)
    );
    assert_eq!(
        mappings.remove(0x10_0000, 0x10_0000 + 2 * PAGE - 1),
        3 * PAGE
    );
    assert_eq!(runs(&mappings).len(), 0);
}
