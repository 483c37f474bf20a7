// SPDX-License-Identifier: GPL-2.0

//! Entries that map nothing, in each format.

use iommu::lazy::format::{Format, HostTable, Permissions, LEAVING, MAX_STAMP, RESERVED};
use proptest::prelude::*;

fn stamps() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..8u64,
        0..=MAX_STAMP,
        Just(RESERVED),
        Just(LEAVING),
        Just(MAX_STAMP)
    ]
}

fn check<F: Format>(entry: u64, stamp: u64, limit: u64) {
    let vacant = F::vacant(stamp);
    assert!(!F::is_present(vacant));
    assert_eq!(F::stamp(vacant), stamp);
    assert_eq!(F::is_below(vacant, limit), stamp < limit);
    // Any word, as hardware or a mistake may leave it.
    let free = !F::is_present(entry) && F::stamp(entry) < limit;
    assert_eq!(F::is_below(entry, limit), free);
}

proptest! {
    #[test]
    fn y2_an_entry_is_free_if_it_maps_nothing_and_is_old(
        entry in prop_oneof![any::<u64>(), 0..64u64],
        stamp in stamps(),
        limit in stamps(),
    ) {
        check::<Permissions>(entry, stamp, limit);
        check::<HostTable>(entry, stamp, limit);
    }
}
