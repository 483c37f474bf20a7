// SPDX-License-Identifier: GPL-2.0

//! Words of AMD-Vi: device table entries, commands, events, registers.

use crate::{
    amd_regs::{self as regs, control, Capability, Features},
    command::{Command, MAX_BLOCK_ORDER},
    dte::{upper, BadRoot, DeviceEntry, DomainId, TableRoot, MAX_LEVELS},
    event::{Access, Event, Reason},
    ivhd::Settings,
    ivrs::Flags,
};
use iommu::{
    invalidation::Block,
    lazy::format::{self, Format as _, MAX_STAMP},
    pt::{
        host::{leaf, HostTable},
        walk::{Entry, Format as _},
    },
    source_id::SourceId,
};
use proptest::prelude::*;

const ROOT: u64 = 0x0000_0012_3456_7000;

fn root(levels: u8) -> TableRoot {
    TableRoot::new(ROOT, levels).unwrap()
}

fn id(number: u16) -> DomainId {
    DomainId::new(number)
}

#[test]
fn device_entry_words() {
    let paging = DeviceEntry::paging(root(4), id(0xabcd));
    assert_eq!(paging.words(), [0x6000_0012_3456_7803, 0xabcd]);
    let pass = DeviceEntry::pass_through(id(1));
    assert_eq!(pass.words(), [0x6000_0000_0000_0003, 1]);
    let blocked = DeviceEntry::blocked(root(4), id(1));
    assert_eq!(blocked.words(), [0x0000_0012_3456_7803, 1]);
    assert!(paging.lets_through() && pass.lets_through() && !blocked.lets_through());
    // An entry of zeroes is not valid, and passes everything.
    assert!(DeviceEntry::from_words([0, 0]).lets_through());
}

/// Of a table that grows, from 512 GB on.
#[test]
fn entries_of_each_level() {
    for (levels, low) in [
        (3, 0x6000_0012_3456_7603),
        (4, 0x6000_0012_3456_7803),
        (5, 0x6000_0012_3456_7a03),
    ] {
        let entry = DeviceEntry::paging(root(levels), id(7));
        assert_eq!(entry.words(), [low, 7]);
    }
}

#[test]
fn impossible_roots_are_refused() {
    for (address, levels) in [
        (ROOT | 8, 4),
        (1 << 52, 4),
        (ROOT, 0),
        (ROOT, MAX_LEVELS + 1),
    ] {
        assert_eq!(
            TableRoot::new(address, levels),
            Err(BadRoot(address, levels))
        );
    }
    let text = "no table of 7 levels can be at 0x1000";
    assert_eq!(TableRoot::new(0x1000, 7).unwrap_err().to_string(), text);
}

#[test]
fn settings_of_firmware_stand_in_both_halves() {
    assert_eq!(upper(Settings(0)), [0, 0]);
    assert_eq!(upper(Settings(0b0000_0001)), [1 << 56, 0]);
    assert_eq!(upper(Settings(0b0000_0110)), [3 << 57, 0]);
    assert_eq!(upper(Settings(0b1100_0000)), [3 << 62, 0]);
    assert_eq!(upper(Settings(0b0011_1000)), [0, 0]);
    let entry = DeviceEntry::pass_through(id(1)).with_settings(Settings(0b0010_0000));
    assert_eq!(entry.words()[1], 1 | 2 << 40);
    let next = DeviceEntry::paging(root(3), id(7)).with_settings_of(entry);
    assert_eq!(next.words()[1], 7 | 2 << 40);
    assert_eq!(next.id(), id(7));
    assert_eq!(next.with_settings(Settings(0)).words()[1], 7);
}

#[test]
fn command_words() {
    assert_eq!(
        Command::wait(0x1234_5678, 7).words(),
        [0x1000_0000_1234_5679, 7]
    );
    assert_eq!(Command::entry(0x0a18).words(), [0x2000_0000_0000_0a18, 0]);
    assert_eq!(
        Command::domain(id(0xabcd)).words(),
        [0x3000_abcd_0000_0000, 0x7fff_ffff_ffff_f003]
    );
    assert_eq!(Command::all().words(), [0x8000_0000_0000_0000, 0]);
    let pages = |address, order, leaf| {
        let block = Block { address, order };
        Command::pages(id(2), block, leaf).words()[1]
    };
    assert_eq!(pages(0x4567_8000, 0, true), 0x4567_8000);
    assert_eq!(pages(0x4567_8000, 0, false), 0x4567_8002);
    // The lowest address bit that is 0 tells the size: 8 KB, 16 KB, 2 MB.
    assert_eq!(pages(0x4567_8000, 1, true), 0x4567_8001);
    assert_eq!(pages(0x4567_8000, 2, true), 0x4567_9001);
    assert_eq!(pages(0x4560_0000, 9, false), 0x456f_f003);
    let all = Command::domain(id(2)).words()[1];
    assert_eq!(pages(0, MAX_BLOCK_ORDER + 1, true), all);
    assert_ne!(pages(0, MAX_BLOCK_ORDER, true), all);
}

/// What the hardware makes of an invalidation's address: first byte and size.
fn meant(word: u64) -> (u64, u64) {
    if word & 1 == 0 {
        return (word & !0xfff, 0x1000);
    }
    let ones = ((word | 0xfff) >> 12).trailing_ones();
    let size = 1u64 << (12 + ones + 1);
    (word & !0xfff & !(size - 1), size)
}

proptest! {
    #[test]
    fn blocks_are_what_the_hardware_reads(page in 0u64..1 << 45, order in 0u32..=MAX_BLOCK_ORDER, leaf: bool) {
        let address = (page >> order << order) << 12;
        let [low, high] = Command::pages(id(9), Block { address, order }, leaf).words();
        prop_assert_eq!(low, 0x3000_0009_0000_0000);
        prop_assert_eq!(meant(high), (address, 0x1000u64 << order));
        prop_assert_eq!(high & 2 == 0, leaf);
        prop_assert_eq!(high & 0xffc, 0);
    }

    #[test]
    fn entries_say_what_they_were_made_of(page in 1u64..1 << 40, levels in 1u8..=MAX_LEVELS, number: u16, settings: u8) {
        let root = TableRoot::new(page << 12, levels).unwrap();
        let entry = DeviceEntry::paging(root, id(number)).with_settings(Settings(settings));
        prop_assert_eq!((entry.root(), entry.levels(), entry.id()), (page << 12, levels, id(number)));
        let [low, high] = entry.words();
        prop_assert_eq!(DeviceEntry::from_words([low, high]), entry);
        // Bits that are reserved, or that would switch on what is not used.
        prop_assert_eq!(low & 0x9ff0_0000_0000_01fc, 0);
        prop_assert_eq!(high & !0x0000_0300_0000_ffff, 0);
        prop_assert_eq!(low & 3, 3);
    }

    #[test]
    fn another_top_changes_root_and_levels_only(
        pages in [1u64..1 << 40, 1u64..1 << 40],
        levels in [1u8..=MAX_LEVELS, 1u8..=MAX_LEVELS],
        number: u16,
        settings: u8,
    ) {
        let [old, new] = [0, 1].map(|at| {
            let root = TableRoot::new(pages[at] << 12, levels[at]).unwrap();
            DeviceEntry::paging(root, id(number))
        });
        let old = old.with_settings(Settings(settings));
        let new = new.with_settings_of(old);
        // Both are in the low word, below the permissions and above the valid bits.
        let changed = old.words()[0] ^ new.words()[0];
        prop_assert_eq!(changed & !0x000f_ffff_ffff_fe00, 0);
        prop_assert_eq!(old.words()[1], new.words()[1]);
        prop_assert_eq!((new.root(), new.levels()), (pages[1] << 12, levels[1]));
    }

    #[test]
    fn any_event_is_read(low: u64, high: u64) {
        let event = Event::decode(3, [low, high]);
        prop_assert_eq!(event.is_none(), low >> 60 == 0);
        if let Some(event) = event {
            prop_assert!(!event.to_string().is_empty() && !event.to_string().contains('\n'));
            prop_assert_eq!(event.stops_commands(), matches!(low >> 60, 5 | 6));
        }
    }
}

fn fault(flags: u64, address: u64) -> (Access, Reason) {
    match Event::decode(0, [2 << 60 | flags << 48 | 0x20, address]).unwrap() {
        Event::Refused { access, reason, .. } => (access, reason),
        other => panic!("{other:?}"),
    }
}

#[test]
fn page_faults_are_told_apart() {
    let (pr, rw, interrupt) = (1 << 4, 1 << 5, 1 << 3);
    assert_eq!(fault(0, 0x1000), (Access::Unknown, Reason::NotPresent));
    assert_eq!(fault(rw, 0x1000), (Access::Unknown, Reason::NotPresent));
    assert_eq!(fault(pr, 0x1000), (Access::Read, Reason::Permission));
    assert_eq!(fault(pr | rw, 0x1000), (Access::Write, Reason::Permission));
    assert_eq!(fault(pr | 1 << 7, 0).1, Reason::ReservedBits);
    assert_eq!(fault(1 << 8, 0).0, Access::Translation);
    assert_eq!(fault(interrupt, 0xfee0_1000).0, Access::Interrupt);
    // QEMU 11.1 sets this bit for all.
    assert_eq!(fault(interrupt | 2, 0x1000).0, Access::Unknown);
}

#[test]
fn events_are_lines() {
    let text = |low, high| Event::decode(0, [low, high]).unwrap().to_string();
    assert_eq!(
        text(2 << 60 | 0x30 << 48 | 0x7 << 32 | 0x20, 0x1234_5000),
        "DMA fault: 0000:00:04.0: write at 0x12345000 refused: not permitted, domain 0x7"
    );
    assert_eq!(
        text(1 << 60 | 0x0108, 0x5000),
        "DMA fault: 0000:01:01.0: read at 0x5000 refused: device table entry is invalid"
    );
    assert_eq!(text(5 << 60, 0x5010), "command at 0x5010 was refused");
    assert_eq!(text(6 << 60, 0x5010), "command at 0x5010 could not be read");
    let device = SourceId::from_requester_id(0, 0x10);
    let timeout = Event::decode(0, [7 << 60 | 0x10, 0]).unwrap();
    assert_eq!(timeout, Event::DeviceTimeout(device));
    assert_eq!(
        text(0xf << 60, 1),
        "unknown event 0xf000000000000000 0x0000000000000001"
    );
}

#[test]
fn register_values() {
    assert_eq!(regs::ring_base(ROOT, 0), ROOT | 8 << 56);
    assert_eq!(regs::ring_base(ROOT, 7), ROOT | 15 << 56);
    assert_eq!(regs::table_base(ROOT, 0), ROOT);
    assert_eq!(regs::table_base(ROOT, 9), ROOT | 0x1ff);
    assert_eq!((regs::position(0), regs::position(255)), (0, 0xff0));
    assert_eq!(regs::index(0xff0, 256), 255);
    assert_eq!(
        regs::index(0x1000, 256),
        0,
        "QEMU, right after the last one"
    );
    for (last, order) in [(0, 0), (127, 0), (128, 1), (0x2ff, 3), (0xffff, 9)] {
        assert_eq!(regs::table_order(last), order, "{last:#x}");
        assert!(128usize << order > usize::from(last));
    }
    // Nothing but what is wanted: coherent, a second, and what firmware says.
    let off = regs::control_off(Flags(0b1111_0000));
    assert_eq!(off, 1 << 10 | 4 << 5);
    assert_eq!(off, control::COHERENT | control::DEVICE_TIMEOUT_1S);
    let wanted = regs::control_off(Flags(0b1111));
    assert_eq!(wanted, 0b1111_0000_0010 | 4 << 5);
    assert_eq!((off | wanted) & regs::CONTROL_ON, 0);
}

#[test]
fn features_of_qemu() {
    let capability = Capability::new(0x1f03_000f).unwrap();
    assert!(capability.caches_not_present() && capability.has_features());
    assert!(!Capability::new(0x0003_000f).unwrap().caches_not_present());
    assert!(!Capability::new(0x0003_000f).unwrap().has_features());
    assert_eq!(Capability::new(0x1f03_0010), None);
    assert_eq!(Capability::new(0x1f02_000f), None);
    let features = Features::new(0x29d3).unwrap();
    assert!(features.invalidate_all());
    assert_eq!(features.levels(), Ok(6));
    assert_eq!(features.table_levels(5, 64), Ok(5));
    let none = Features::new(0).unwrap();
    assert_eq!((none.levels(), none.invalidate_all()), (Ok(4), false));
    assert_eq!(
        none.table_levels(5, 64).unwrap_err().to_string(),
        "no tables of 5 levels, 4 at most"
    );
    assert!(Features::new(u64::MAX).is_err());
}

#[test]
fn tables_are_not_larger_than_firmware_allows() {
    let six = Features::new(2 << 10).unwrap();
    for (bits, most) in [
        (64, 5),
        (57, 5),
        (56, 4),
        (48, 4),
        (40, 3),
        (39, 3),
        (32, 2),
    ] {
        assert_eq!(six.table_levels(most, bits), Ok(most), "{bits} bits");
        let wanted = most + 1;
        let error = regs::Error::Levels { wanted, most };
        assert_eq!(six.table_levels(wanted, bits), Err(error), "{bits} bits");
    }
    assert!(six.table_levels(3, 0).is_err());
}

#[test]
fn an_iommu_may_have_no_host_tables() {
    let none = Features::new(3 << 10).unwrap();
    assert_eq!(none.levels(), Err(regs::Error::NoHostTables));
    let error = none.table_levels(3, 64).unwrap_err();
    assert_eq!(error.to_string(), "no host tables");
}

#[test]
fn entries_of_host_tables() {
    // Present, next level 0: a page of its level. As generic_pt makes it, with FC.
    assert_eq!(leaf(0x1234_5000, true, false), 0x3000_0000_1234_5001);
    assert_eq!(leaf(0x1234_5000, false, true), 0x5000_0000_1234_5001);
    assert_eq!(leaf(0x1234_5fff, true, true), 0x7000_0000_1234_5001);
    for level in 0..4 {
        assert_eq!(
            HostTable::decode(level, 0x6000_0000_1234_5000),
            Entry::Empty
        );
        assert_eq!(
            HostTable::decode(level, leaf(0x4000, true, true)),
            Entry::Leaf
        );
        // Next level 7: a page of a size that its address tells.
        assert_eq!(HostTable::decode(level, 0x6000_0000_1234_7e01), Entry::Leaf);
    }
    let table = 0x6000_0000_1234_5001 | 2 << 9;
    assert_eq!(HostTable::decode(3, table), Entry::Table(0x1234_5000));
    assert_eq!(HostTable::decode(0, table), Entry::Leaf);
}

proptest! {
    #[test]
    fn vacant_entries_are_not_present(stamp in 0..=MAX_STAMP, page in 0u64..1 << 40, read: bool) {
        let vacant = format::HostTable::vacant(stamp);
        prop_assert!(!format::HostTable::is_present(vacant));
        prop_assert_eq!(format::HostTable::stamp(vacant), stamp);
        prop_assert_eq!(HostTable::decode(0, vacant), Entry::Empty);
        prop_assert!(!format::HostTable::is_below(vacant, stamp));
        prop_assert!(stamp == MAX_STAMP || format::HostTable::is_below(vacant, stamp + 1));
        let mapped = leaf(page << 12, read, !read);
        prop_assert!(format::HostTable::is_present(mapped));
        prop_assert!(!format::HostTable::is_below(mapped, MAX_STAMP));
        prop_assert_eq!(HostTable::decode(0, mapped), Entry::Leaf);
    }
}

#[test]
fn a_filler_is_a_page_that_nothing_gets_through() {
    let filler = format::HostTable::FILLER;
    // A page for generic_pt, which looks at this bit alone; and for nobody who counts what is mapped.
    assert!(format::HostTable::is_present(filler));
    assert_eq!(HostTable::decode(0, filler), Entry::Empty);
    assert_eq!(
        filler & (leaf(0, true, true) ^ leaf(0, true, false)),
        0,
        "write"
    );
    assert_eq!(
        filler & (leaf(0, true, true) ^ leaf(0, false, true)),
        0,
        "read"
    );
    assert_eq!(format::HostTable::vacant(0), 0);
}
