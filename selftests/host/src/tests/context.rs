// SPDX-License-Identifier: GPL-2.0

use super::{capabilities, QEMU_CAP, QEMU_CAP_CACHING};
use crate::{
    caps::Width,
    context::{
        Change, ContextEntry, Did, Misaligned, RootEntry, TableAddress, TranslationType,
        TABLE_ENTRIES,
    },
};
use proptest::prelude::*;

const ROOT: u64 = 0x0000_0012_3456_7000;
const RWBF: u64 = 1 << 4;

fn table(physical: u64) -> TableAddress {
    TableAddress::new(physical).unwrap()
}

fn paging(root: u64, did: u16) -> ContextEntry {
    ContextEntry::paging(table(root), Width::Bits48, Did::new(did))
}

#[test]
fn root_entry_words() {
    assert_eq!(RootEntry::not_present().words(), [0, 0]);
    assert_eq!(RootEntry::not_present().context_table(), None);
    let entry = RootEntry::new(table(ROOT));
    assert_eq!(entry.words(), [0x0000_0012_3456_7001, 0]);
    assert_eq!(entry.context_table(), Some(table(ROOT)));
    assert_eq!(RootEntry::from_words([ROOT, 0]).context_table(), None);
    assert_eq!(TABLE_ENTRIES * size_of::<RootEntry>(), 4096);
    assert_eq!(TABLE_ENTRIES * size_of::<ContextEntry>(), 4096);
}

#[test]
fn context_entry_words() {
    for (width, aw) in [(Width::Bits39, 1), (Width::Bits48, 2), (Width::Bits57, 3)] {
        let entry = ContextEntry::paging(table(ROOT), width, Did::new(0xabcd));
        assert_eq!(entry.words(), [0x0000_0012_3456_7001, 0x00ab_cd00 | aw]);
        assert_eq!(entry.translation_type(), TranslationType::Paging);
        assert_eq!(entry.width(), Some(width));
        assert_eq!(entry.did(), Did::new(0xabcd));
        assert_eq!(entry.root().get(), ROOT);
        assert!(entry.present());

        let entry = ContextEntry::pass_through(width, Did::new(1));
        assert_eq!(entry.words(), [0b1001, 0x100 | aw]);
        assert_eq!(entry.translation_type(), TranslationType::PassThrough);
        assert_eq!(entry.width(), Some(width));
        assert_eq!(entry.did(), Did::new(1));
        assert!(entry.present());
    }
    assert_eq!(ContextEntry::blocked().words(), [0, 0]);
    assert!(!ContextEntry::blocked().present());
    assert!(!ContextEntry::from_words([ROOT, 0x102]).present());
}

#[test]
fn entries_from_elsewhere_are_understood() {
    let of = |low| ContextEntry::from_words([low, 0]).translation_type();
    assert_eq!(of(0b0101), TranslationType::PagingWithDeviceTlb);
    assert_eq!(of(0b1101), TranslationType::Reserved);
    assert_eq!(ContextEntry::from_words([1, 0]).width(), None);
    // Bits 6:3 of the high word are for software.
    let entry = ContextEntry::from_words([1, 0xffff_ffff_ff12_34f9 & !0x7 | 2]);
    assert_eq!(entry.width(), Some(Width::Bits48));
    assert_eq!(entry.did(), Did::new(0x1234));
}

#[test]
fn misaligned_tables_are_refused() {
    for bit in 0..12 {
        let physical = ROOT | (1 << bit);
        assert_eq!(TableAddress::new(physical), Err(Misaligned(physical)));
    }
    assert_eq!(
        Misaligned(0x1001).to_string(),
        "table address 0x1001 is not a multiple of 4 KiB"
    );
}

proptest! {
    /// Fault processing disable (bit 1) hides faults; no entry may have it.
    #[test]
    fn fault_processing_is_never_disabled(page in 0u64..1 << 40, did: u16, width in 1u8..=3) {
        let width = Width::from_aw(width).unwrap();
        let did = Did::new(did);
        for entry in [
            ContextEntry::paging(table(page << 12), width, did),
            ContextEntry::pass_through(width, did),
            ContextEntry::blocked(),
        ] {
            let [low, high] = entry.words();
            prop_assert_eq!(low & 0b10, 0);
            prop_assert_eq!(high & !0x00ff_ff07, 0, "reserved and software bits");
            prop_assert_eq!(ContextEntry::from_words([low, high]), entry);
        }
    }
}

#[test]
fn leaving_a_domain_flushes_what_was_cached_under_it() {
    let caps = capabilities(QEMU_CAP);
    let old = paging(ROOT, 7);
    let expected = Change {
        context_cache: Some(Did::new(7)),
        old_domain: Some(Did::new(7)),
        ..Change::default()
    };
    assert_eq!(Change::new(old, ContextEntry::blocked(), &caps), expected);
    assert_eq!(
        Change::new(old, paging(ROOT + 0x1000, 8), &caps),
        Change {
            via_blocked: true,
            ..expected
        }
    );
    // Without caching mode nothing is cached that was not present.
    assert_eq!(
        Change::new(ContextEntry::blocked(), old, &caps),
        Change::default()
    );
    assert_eq!(Change::new(old, old, &caps), Change::default());
}

#[test]
fn e7_caching_mode_flushes_domain_zero_and_names_the_new_domain() {
    let caps = capabilities(QEMU_CAP_CACHING);
    let (one, other) = (paging(ROOT, 7), paging(ROOT + 0x1000, 8));
    assert_eq!(
        Change::new(ContextEntry::blocked(), one, &caps),
        Change {
            context_cache: Some(Did::RESERVED),
            new_domain: Some(Did::new(7)),
            ..Change::default()
        }
    );
    assert_eq!(
        Change::new(one, other, &caps),
        Change {
            context_cache: Some(Did::new(7)),
            old_domain: Some(Did::new(7)),
            new_domain: Some(Did::new(8)),
            write_buffer: false,
            via_blocked: true,
        }
    );
    let blocked = Change::new(one, ContextEntry::blocked(), &caps);
    assert_eq!(blocked.context_cache, Some(Did::new(7)));
    assert_eq!(blocked.new_domain, None);
    assert_eq!(Change::new(one, one, &caps), Change::default());
}

#[test]
fn e7_write_buffer_is_flushed_when_no_invalidation_does_it() {
    let caps = capabilities(QEMU_CAP | RWBF);
    let entry = paging(ROOT, 7);
    assert!(Change::new(ContextEntry::blocked(), entry, &caps).write_buffer);
    assert!(!Change::new(entry, ContextEntry::blocked(), &caps).write_buffer);
    assert!(!Change::new(entry, entry, &caps).write_buffer);
    let caching = capabilities(QEMU_CAP_CACHING | RWBF);
    assert!(!Change::new(ContextEntry::blocked(), entry, &caching).write_buffer);
}

#[test]
fn a_live_entry_is_never_half_old_and_half_new() {
    let caps = capabilities(QEMU_CAP);
    let pass = ContextEntry::pass_through(Width::Bits48, Did::new(7));
    // One word differs: one store changes it.
    assert!(!Change::new(paging(ROOT, 7), pass, &caps).via_blocked);
    assert!(!Change::new(paging(ROOT, 7), paging(ROOT, 8), &caps).via_blocked);
    // Both differ.
    assert!(Change::new(paging(ROOT, 8), pass, &caps).via_blocked);
    // Not live.
    assert!(!Change::new(ContextEntry::blocked(), pass, &caps).via_blocked);
    assert!(!Change::new(pass, ContextEntry::blocked(), &caps).via_blocked);
}

proptest! {
    /// A model of a unit that caches every entry it may: after the invalidations nothing of the old
    /// entry is left, and the same holds when the change goes through a blocked entry.
    #[test]
    fn no_stale_entry_survives_a_change(
        old in entry(), new in entry(), caching: bool, rwbf: bool,
    ) {
        let cap = if caching { QEMU_CAP_CACHING } else { QEMU_CAP };
        let caps = capabilities(cap | if rwbf { RWBF } else { 0 });
        let steps = if Change::new(old, new, &caps).via_blocked {
            vec![old, ContextEntry::blocked(), new]
        } else {
            vec![old, new]
        };
        for pair in steps.windows(2) {
            let [old, new] = pair else { unreachable!() };
            let change = Change::new(*old, *new, &caps);
            prop_assert!(!change.via_blocked || steps.len() == 2);
            let cached_under = match old.present() {
                true => Some(old.did()),
                false if caching => Some(Did::RESERVED),
                false => None,
            };
            if old != new {
                prop_assert_eq!(change.context_cache, cached_under);
                prop_assert_eq!(change.old_domain, old.present().then_some(old.did()));
                let named = [change.old_domain, change.new_domain].contains(&Some(new.did()));
                prop_assert!(!caching || !new.present() || named);
                prop_assert!(!rwbf || cached_under.is_some() || change.write_buffer);
            }
        }
    }
}

fn entry() -> impl Strategy<Value = ContextEntry> {
    // Few values, so that parts of two entries are often equal.
    let did = (1u16..4).prop_map(Did::new);
    prop_oneof![
        Just(ContextEntry::blocked()),
        (0u64..3, did.clone()).prop_map(|(root, did)| ContextEntry::paging(
            table(root << 12),
            Width::Bits39,
            did
        )),
        did.prop_map(|did| ContextEntry::pass_through(Width::Bits39, did)),
    ]
}
