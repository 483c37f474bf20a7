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

    /// Returns whether an entry maps something.
    fn is_present(entry: u64) -> bool;

    /// Makes an entry that maps nothing and carries `stamp`.
    fn vacant(stamp: u64) -> u64;

    /// Returns the stamp of an entry that maps nothing.
    fn stamp(entry: u64) -> u64;

    /// Returns whether an entry maps nothing and its stamp is below `stamp`, which is [`MAX_STAMP`] at
    /// most. Asked twice for each page that is mapped.
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

    #[inline]
    fn is_present(entry: u64) -> bool {
        entry & 3 != 0
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

    #[inline]
    fn is_present(entry: u64) -> bool {
        PresentBit::is_present(entry)
    }

    #[inline]
    fn vacant(stamp: u64) -> u64 {
        PresentBit::vacant(stamp)
    }

    #[inline]
    fn stamp(entry: u64) -> u64 {
        PresentBit::stamp(entry)
    }

    #[inline]
    fn is_below(entry: u64, stamp: u64) -> bool {
        PresentBit::is_below(entry, stamp)
    }
}

/// Entries with a present bit, bit 0: VT-d's first stage, and the entries of a window that no
/// hardware walks (virtio-iommu).
#[derive(Clone, Copy, Debug)]
pub struct PresentBit;

impl Format for PresentBit {
    // No table of the kernel's code is used with this format.
    const FILLER: u64 = 0;

    #[inline]
    fn is_present(entry: u64) -> bool {
        entry & 1 != 0
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
