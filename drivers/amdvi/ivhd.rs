// SPDX-License-Identifier: GPL-2.0

//! Device entries of an IVHD block: which requester ids an IOMMU translates, and how.
//!
//! Specification: AMD I/O Virtualization Technology (IOMMU) Specification (48882), section 5.2.2.
//!
//! This file is pure: bytes in, values out. It is also built and tested on the host.

use core::fmt;

const ALL: u8 = 0x01;
const SELECT: u8 = 0x02;
const RANGE_START: u8 = 0x03;
const RANGE_END: u8 = 0x04;
const ALIAS_SELECT: u8 = 0x42;
const ALIAS_RANGE_START: u8 = 0x43;
const EXTENDED_SELECT: u8 = 0x46;
const EXTENDED_RANGE_START: u8 = 0x47;
const SPECIAL: u8 = 0x48;
const ACPI_HID: u8 = 0xf0;

/// From this type on an entry says by itself how long it is.
const VARIABLE: u8 = 0x80;
/// Fixed part of a variable entry: up to the length of the UID.
const HID_LEN: usize = 22;

/// What is wrong with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Fewer bytes are left than an entry of this type needs.
    Short(u8),
    /// An entry of a type whose length is not known.
    Unknown(u8),
    /// A range was begun before the last one had ended, or not ended at all.
    RangeOpen,
    /// A range ends that was not begun.
    RangeClosed,
    /// A range of ids from the first to the second, which is smaller.
    RangeOrder(u16, u16),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Short(kind) => write!(f, "no room for a device entry of type {kind:#x}"),
            Self::Unknown(kind) => write!(f, "device entry of unknown type {kind:#x}"),
            Self::RangeOpen => write!(f, "a range of devices does not end"),
            Self::RangeClosed => write!(f, "a range of devices ends that was not begun"),
            Self::RangeOrder(first, last) => {
                write!(f, "range of devices from {first:#06x} to {last:#06x}")
            }
        }
    }
}

/// Settings of a device that firmware wants in its device table entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings(pub(crate) u8);

/// What a special entry stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Special {
    /// An I/O APIC, by its APIC id.
    IoApic(u8),
    /// An HPET, by its number.
    Hpet(u8),
    /// Something else: variety and handle.
    Other(u8, u8),
}

/// What one entry, or the two that make a range, says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Every requester id of the segment.
    All {
        /// Its settings.
        settings: Settings,
    },
    /// Requester ids from `first` to `last`.
    Ids {
        /// The first one.
        first: u16,
        /// The last one.
        last: u16,
        /// Requests of these arrive with this id.
        alias: Option<u16>,
        /// Their settings.
        settings: Settings,
    },
    /// A device that is no PCI function, with the id that its requests carry.
    Special {
        /// Which one.
        device: Special,
        /// Its requester id.
        id: u16,
        /// Its settings.
        settings: Settings,
    },
    /// A device of the ACPI namespace, with the id that its requests carry.
    Namespace {
        /// Its requester id.
        id: u16,
        /// Its settings.
        settings: Settings,
    },
}

impl Entry {
    /// Whether the entry is for this id; "all" names none.
    pub(crate) fn contains(&self, id: u16) -> bool {
        match *self {
            Self::All { .. } => false,
            // What an alias leads to arrives here too.
            Self::Ids {
                first, last, alias, ..
            } => (first..=last).contains(&id) || alias == Some(id),
            Self::Special { id: own, .. } | Self::Namespace { id: own, .. } => own == id,
        }
    }

    /// The id that requests of this one carry instead of their own.
    pub(crate) fn alias_of(&self, id: u16) -> Option<u16> {
        match *self {
            Self::Ids {
                first, last, alias, ..
            } if (first..=last).contains(&id) => alias.filter(|alias| *alias != id),
            _ => None,
        }
    }

    /// The settings, if the entry is for this id.
    pub(crate) fn settings_of(&self, id: u16) -> Option<Settings> {
        match *self {
            Self::All { settings } => Some(settings),
            Self::Ids { settings, .. }
            | Self::Special { settings, .. }
            | Self::Namespace { settings, .. } => self.contains(id).then_some(settings),
        }
    }

    /// The largest id that the entry is for.
    pub(crate) fn last_id(&self) -> u16 {
        match *self {
            Self::All { .. } => u16::MAX,
            Self::Ids { last, alias, .. } => last.max(alias.unwrap_or(0)),
            Self::Special { id, .. } | Self::Namespace { id, .. } => id,
        }
    }
}

/// The device entries of one block; an iterator.
///
/// # Invariants
///
/// [`check`] accepts `bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entries<'a> {
    bytes: &'a [u8],
}

impl<'a> Entries<'a> {
    /// The entries in bytes that [`check`] has accepted; of others, what comes after the first mistake
    /// is missing.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }
}

impl Iterator for Entries<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        loop {
            let (raw, rest) = read(self.bytes).ok()??;
            self.bytes = rest;
            let (first, settings) = (raw.id(), raw.settings());
            return Some(match raw.kind {
                ALL => Entry::All { settings },
                SELECT | EXTENDED_SELECT => Entry::Ids {
                    first,
                    last: first,
                    alias: None,
                    settings,
                },
                ALIAS_SELECT => Entry::Ids {
                    first,
                    last: first,
                    alias: raw.other(),
                    settings,
                },
                RANGE_START | EXTENDED_RANGE_START | ALIAS_RANGE_START => {
                    let (end, rest) = read(self.bytes).ok()??;
                    self.bytes = rest;
                    Entry::Ids {
                        first,
                        last: end.id(),
                        alias: (raw.kind == ALIAS_RANGE_START)
                            .then(|| raw.other())
                            .flatten(),
                        settings,
                    }
                }
                SPECIAL => Entry::Special {
                    device: raw.special(),
                    id: raw.other().unwrap_or(0),
                    settings,
                },
                ACPI_HID => Entry::Namespace {
                    id: first,
                    settings,
                },
                // Padding, and what newer specifications have: it names nothing.
                _ => continue,
            });
        }
    }
}

/// One entry as it stands there.
struct Raw<'a> {
    kind: u8,
    bytes: &'a [u8],
}

impl Raw<'_> {
    fn at(&self, offset: usize) -> Option<u8> {
        self.bytes.get(offset).copied()
    }

    fn id_at(&self, offset: usize) -> Option<u16> {
        Some(u16::from_le_bytes([self.at(offset)?, self.at(offset + 1)?]))
    }

    fn id(&self) -> u16 {
        self.id_at(1).unwrap_or(0)
    }

    fn settings(&self) -> Settings {
        Settings(self.at(3).unwrap_or(0))
    }

    /// The second id, of an alias or of a special device.
    fn other(&self) -> Option<u16> {
        self.id_at(5)
    }

    fn special(&self) -> Special {
        let handle = self.at(4).unwrap_or(0);
        match self.at(7).unwrap_or(0) {
            1 => Special::IoApic(handle),
            2 => Special::Hpet(handle),
            variety => Special::Other(variety, handle),
        }
    }
}

/// Splits off the first entry; `None` at the end.
fn read(bytes: &[u8]) -> Result<Option<(Raw<'_>, &[u8])>, Reason> {
    let Some(kind) = bytes.first().copied() else {
        return Ok(None);
    };
    let length = if kind < VARIABLE {
        // Bits 7:6 tell the length: 4 or 8 bytes.
        4 << (kind >> 6)
    } else if kind == ACPI_HID {
        let uid = bytes.get(HID_LEN - 1).ok_or(Reason::Short(kind))?;
        HID_LEN + usize::from(*uid)
    } else {
        return Err(Reason::Unknown(kind));
    };
    let (bytes, rest) = bytes.split_at_checked(length).ok_or(Reason::Short(kind))?;
    Ok(Some((Raw { kind, bytes }, rest)))
}

/// Checks all entries of a block. An error comes with its offset from the start of `bytes`.
pub(crate) fn check(bytes: &[u8]) -> Result<(), (usize, Reason)> {
    let mut rest = bytes;
    let mut open = None;
    loop {
        let offset = bytes.len() - rest.len();
        let at = |reason| (offset, reason);
        let Some((raw, after)) = read(rest).map_err(at)? else {
            return match open {
                Some(_) => Err(at(Reason::RangeOpen)),
                None => Ok(()),
            };
        };
        open = match (raw.kind, open) {
            (RANGE_END, None) => return Err(at(Reason::RangeClosed)),
            (RANGE_END, Some(first)) if raw.id() < first => {
                return Err(at(Reason::RangeOrder(first, raw.id())));
            }
            (RANGE_END, Some(_)) => None,
            (_, Some(_)) => return Err(at(Reason::RangeOpen)),
            (RANGE_START | ALIAS_RANGE_START | EXTENDED_RANGE_START, None) => Some(raw.id()),
            (_, None) => None,
        };
        rest = after;
    }
}
