// SPDX-License-Identifier: GPL-2.0

//! Device table entries, and what a change of one needs.
//!
//! An entry has 256 bits. Only the lower half decides on DMA; the upper half is about interrupts and
//! stays as it was made. So one store of 128 bits changes an entry, and the IOMMU never sees a mixture.
//!
//! Specification: AMD I/O Virtualization Technology (IOMMU) Specification (48882), section 2.2.2.
//!
//! This file is pure: integers in, values out. It is also built and tested on the host.

use core::fmt;

use crate::ivhd::Settings;

/// V: the entry is valid. Requests of an id whose entry is not valid pass untranslated.
const VALID: u64 = 1 << 0;
/// TV: the fields about translation are valid.
const TRANSLATION_VALID: u64 = 1 << 1;
const MODE_SHIFT: u32 = 9;
const MODE_MASK: u64 = 0x7;
const ROOT_MASK: u64 = 0x000f_ffff_ffff_f000;
/// IR, IW: the permissions of the table's root.
const READ: u64 = 1 << 61;
const WRITE: u64 = 1 << 62;

const DOMAIN_MASK: u64 = 0xffff;
/// SysMgt, bits 105:104 of the entry.
const SYSTEM_MANAGEMENT_SHIFT: u32 = 40;
const SYSTEM_MANAGEMENT: u64 = 3 << SYSTEM_MANAGEMENT_SHIFT;

/// InitPass, EIntPass and NMIPass, bits 186:184.
const PASS_SHIFT: u32 = 56;
/// Lint0Pass and Lint1Pass, bits 191:190.
const LINT_SHIFT: u32 = 62;

/// Size of an entry in bytes.
pub(crate) const SIZE: usize = 32;

/// Levels of the largest table: translates 57 bits. One of six levels gains nothing that the kernel can
/// use.
pub(crate) const MAX_LEVELS: u8 = 5;

/// A domain id: the tag of a domain's entries in the IOMMU's caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct DomainId(u16);

impl DomainId {
    /// A domain id.
    pub(crate) const fn new(id: u16) -> Self {
        Self(id)
    }

    /// The number.
    pub(crate) const fn get(self) -> u16 {
        self.0
    }
}

/// A table that an entry cannot point to: address and levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadRoot(pub(crate) u64, pub(crate) u8);

impl fmt::Display for BadRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no table of {} levels can be at {:#x}", self.1, self.0)
    }
}

/// Where a page table is, and how many levels it has.
///
/// # Invariants
///
/// The address is a multiple of 4 KiB below 2^52; 1 to [`MAX_LEVELS`] levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TableRoot {
    address: u64,
    levels: u8,
}

impl TableRoot {
    /// Checks address and levels.
    ///
    /// # Errors
    ///
    /// [`BadRoot`] if no entry can name them.
    pub(crate) const fn new(address: u64, levels: u8) -> Result<Self, BadRoot> {
        if address & !ROOT_MASK != 0 || levels == 0 || levels > MAX_LEVELS {
            return Err(BadRoot(address, levels));
        }
        // INVARIANT: just checked.
        Ok(Self { address, levels })
    }
}

/// The lower half of an entry: low and high 64-bit word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeviceEntry {
    words: [u64; 2],
}

impl DeviceEntry {
    const fn new(root: u64, levels: u8, permissions: u64, id: DomainId) -> Self {
        // CAST: widening; `u64::from` is not const.
        let mode = (levels as u64) << MODE_SHIFT;
        Self {
            words: [
                root | mode | permissions | TRANSLATION_VALID | VALID,
                id.get() as u64,
            ],
        }
    }

    /// All DMA is refused and reported. `nothing` is a table that maps nothing.
    ///
    /// The permissions alone refuse everything (section 2.2.3). But QEMU lets everything pass where
    /// the entry names no table, whatever they are; and IOMMUs report more of what a table refuses.
    pub(crate) const fn blocked(nothing: TableRoot, id: DomainId) -> Self {
        Self::new(nothing.address, nothing.levels, 0, id)
    }

    /// DMA passes untranslated.
    pub(crate) const fn pass_through(id: DomainId) -> Self {
        Self::new(0, 0, READ | WRITE, id)
    }

    /// DMA goes through a table.
    pub(crate) const fn paging(root: TableRoot, id: DomainId) -> Self {
        Self::new(root.address, root.levels, READ | WRITE, id)
    }

    /// An entry as read from memory.
    pub(crate) const fn from_words(words: [u64; 2]) -> Self {
        Self { words }
    }

    /// Low and high word, in memory order.
    pub(crate) const fn words(self) -> [u64; 2] {
        self.words
    }

    /// The same entry with the settings that firmware wants for a device.
    pub(crate) const fn with_settings(self, settings: Settings) -> Self {
        // CAST: widening; `u64::from` is not const.
        let management = ((settings.0 >> 4) & 3) as u64;
        self.with_management(management << SYSTEM_MANAGEMENT_SHIFT)
    }

    /// The same entry with the settings of the one that it replaces.
    pub(crate) const fn with_settings_of(self, old: Self) -> Self {
        let [_, high] = old.words;
        self.with_management(high & SYSTEM_MANAGEMENT)
    }

    const fn with_management(self, bits: u64) -> Self {
        let [low, high] = self.words;
        Self {
            words: [low, high & !SYSTEM_MANAGEMENT | bits],
        }
    }

    /// Whether DMA gets through, translated or not.
    pub(crate) const fn lets_through(self) -> bool {
        let [low, _] = self.words;
        low & VALID == 0 || low & (READ | WRITE) != 0
    }

    /// Number of levels of the entry's table; 0 if DMA passes untranslated.
    #[allow(dead_code, reason = "the host tests look at it")]
    pub(crate) const fn levels(self) -> u8 {
        let [low, _] = self.words;
        // CAST: a field of 3 bits.
        ((low >> MODE_SHIFT) & MODE_MASK) as u8
    }

    /// The address of the entry's table.
    #[allow(dead_code, reason = "the host tests look at it")]
    pub(crate) const fn root(self) -> u64 {
        let [low, _] = self.words;
        low & ROOT_MASK
    }

    /// The domain id.
    pub(crate) const fn id(self) -> DomainId {
        let [_, high] = self.words;
        // CAST: a field of 16 bits.
        DomainId((high & DOMAIN_MASK) as u16)
    }
}

/// The upper half of an entry, which does not change: interrupts are not remapped, and a device's
/// legacy ones pass as firmware wants it.
pub(crate) const fn upper(settings: Settings) -> [u64; 2] {
    // CAST: widening; `u64::from` is not const.
    let settings = settings.0 as u64;
    [
        (settings & 7) << PASS_SHIFT | (settings >> 6) << LINT_SHIFT,
        0,
    ]
}
