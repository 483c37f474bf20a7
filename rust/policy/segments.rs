// SPDX-License-Identifier: GPL-2.0

//! From the entries of a scatter-gather list to what the device is told.
//!
//! Pure: compiled into the kernel and into the host tests alike.
//!
//! The pages of all entries lie one after the other in the device's addresses. So entries that meet at a
//! page's boundary are one segment, where the device's limits allow that.

/// A page, in bytes.
const PAGE: u64 = 4096;

/// Pages that `length` bytes from `at` on touch.
#[inline]
pub fn pages(at: u64, length: u64) -> usize {
    // CAST: a list's bytes fit an address.
    (at % PAGE + length).div_ceil(PAGE) as usize
}

/// What the device reads or writes at a stretch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its first address.
    pub start: u64,
    /// Bytes.
    pub length: u32,
}

/// Segments in the making.
#[derive(Clone, Copy, Debug)]
pub struct Segments {
    boundary: u64,
    longest: u32,
    next: u64,
    open: Option<Segment>,
}

impl Segments {
    /// Begins at address `iova`, the start of a page. Segments put together are not longer than
    /// `longest` bytes, and do not cross a multiple of `boundary` plus 1, a power of two.
    #[inline]
    pub const fn new(iova: u64, boundary: u64, longest: u32) -> Self {
        Self {
            boundary,
            longest,
            next: iova,
            open: None,
        }
    }

    /// Adds an entry of `length` bytes, at `offset` of its first page. Returns the segment that ends
    /// before it, if one does.
    #[inline]
    pub fn add(&mut self, offset: u64, length: u32) -> Option<Segment> {
        let start = self.next + offset;
        self.next += pages(offset, length.into()) as u64 * PAGE;
        if let Some(open) = &mut self.open {
            let meets = open.start + u64::from(open.length) == start;
            let last = start.wrapping_add(length.into()).wrapping_sub(1);
            let within = (open.start ^ last) & !self.boundary == 0;
            let sum = open.length.checked_add(length);
            if let Some(sum) = sum.filter(|sum| meets && within && *sum <= self.longest) {
                open.length = sum;
                return None;
            }
        }
        self.open.replace(Segment { start, length })
    }

    /// Returns the last segment.
    #[inline]
    pub const fn last(self) -> Option<Segment> {
        self.open
    }
}
