// SPDX-License-Identifier: GPL-2.0

//! What the bits of a leaf entry say while nothing is mapped.
//!
//! Pure: compiled into the kernel and into the host tests alike.
//!
//! Hardware ignores all other bits of an entry that is not present. The window keeps a *stamp* in
//! them, and so needs no memory but the page table.

/// How a table says "not present", and where such an entry has room for a stamp.
///
/// # Implementations
///
/// `is_present(vacant(s))` is false and `stamp(vacant(s))` is `s` for every `s` up to
/// [`MAX_STAMP`]; 0 is `vacant(0)`, so that zeroed memory is a window of free pages. Hardware lets
/// nothing through where [`FILLER`](Self::FILLER) is.
pub trait Format {
    /// An entry that the kernel's code for page tables takes for that of a page, so that it goes on
    /// from there and clears it.
    const FILLER: u64;

    /// A bit of a present entry that hardware ignores: nobody has the page, but the entry is kept (see
    /// [`super::recent`]).
    const KEPT: u64;

    /// Returns whether the hardware lets something through.
    fn is_present(entry: u64) -> bool;

    /// Returns whether an entry is present, and the page somebody's.
    #[inline]
    fn is_mapped(entry: u64) -> bool {
        Self::is_present(entry) && entry & Self::KEPT == 0
    }

    /// Returns what a present entry lets through: a number below 4, never 0, that is another one for
    /// each combination.
    fn access(entry: u64) -> u64;

    /// Makes an entry that maps nothing and carries `stamp`.
    fn vacant(stamp: u64) -> u64;

    /// Returns the stamp of an entry that maps nothing.
    fn stamp(entry: u64) -> u64;

    /// Returns whether an entry maps nothing and its stamp is below `stamp`, which is [`MAX_STAMP`] at
    /// most. Asked for each page that is mapped.
    #[inline]
    fn is_below(entry: u64, stamp: u64) -> bool {
        !Self::is_present(entry) && Self::stamp(entry) < stamp
    }
}

/// Largest stamp. 60 bits are there in all formats; at a flush a nanosecond they last 36 years.
pub const MAX_STAMP: u64 = (1 << 60) - 1;

/// Stamp of an entry that was cleared and whose stamp is still to come. Never free.
pub const LEAVING: u64 = MAX_STAMP;

/// Stamp of a page that is never handed out.
pub const RESERVED: u64 = MAX_STAMP - 1;

/// Entries with two permission bits, 0 and 1, that are not present if both are clear: VT-d's second
/// stage.
#[derive(Clone, Copy, Debug)]
pub struct Permissions;

impl Format for Permissions {
    // All that is not zero is a page for it.
    const FILLER: u64 = 1 << 12;
    // Of those that specification 9.8 has for software.
    const KEPT: u64 = 1 << 52;

    #[inline]
    fn is_present(entry: u64) -> bool {
        entry & 3 != 0
    }

    #[inline]
    fn access(entry: u64) -> u64 {
        entry & 3
    }

    #[inline]
    fn vacant(stamp: u64) -> u64 {
        stamp << 2
    }

    #[inline]
    fn stamp(entry: u64) -> u64 {
        entry >> 2
    }

    #[inline]
    fn is_below(entry: u64, stamp: u64) -> bool {
        // A permission is a bit above all stamps then.
        entry.rotate_right(2) < stamp
    }
}

/// Entries of AMD-Vi's host tables: a present bit, bit 0, and permissions beside it.
#[derive(Clone, Copy, Debug)]
pub struct HostTable;

impl Format for HostTable {
    // Present, but neither readable nor writable.
    const FILLER: u64 = 1 << 12 | 1;
    // Bits 4:1 are ignored (specification 48882, 2.2.3).
    const KEPT: u64 = 1 << 1;

    #[inline]
    fn is_present(entry: u64) -> bool {
        entry & 1 != 0
    }

    #[inline]
    fn access(entry: u64) -> u64 {
        entry >> 61 & 3
    }

    #[inline]
    fn vacant(stamp: u64) -> u64 {
        stamp << 1
    }

    #[inline]
    fn stamp(entry: u64) -> u64 {
        entry >> 1
    }

    #[inline]
    fn is_below(entry: u64, stamp: u64) -> bool {
        entry.rotate_right(1) < stamp
    }
}
