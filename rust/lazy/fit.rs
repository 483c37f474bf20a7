// SPDX-License-Identifier: GPL-2.0

//! Where in a window a run of pages may lie.
//!
//! Pure: compiled into the kernel and into the host tests alike.
//!
//! An *index* counts a window's pages from 0. A *page number* counts all pages of the address space:
//! alignment, boundaries and DMA masks are about page numbers.

/// Place and shape of a window.
///
/// # Invariants
///
/// `1 <= pages < 2^32`, `base + pages` does not overflow, `chunk` is a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    base: u64,
    pages: usize,
    chunk: usize,
}

/// Pages of a chunk, what one CPU takes at a time, unless a test wants less: one page of a table.
pub const CHUNK: usize = 512;

impl Geometry {
    /// Makes the geometry of `pages` pages from page number `base` on, given out by `chunk` pages.
    ///
    /// `None` if there are no pages, 2^32 or more, if they do not fit the address space, or if
    /// `chunk` is not a power of two up to 2^31.
    pub fn new(base: u64, pages: usize, chunk: usize) -> Option<Self> {
        let len = u32::try_from(pages).ok().filter(|len| *len > 0)?;
        u32::try_from(chunk)
            .ok()
            .filter(|chunk| chunk.is_power_of_two())?;
        base.checked_add(u64::from(len))?;
        Some(Self { base, pages, chunk })
    }

    /// Returns the number of the first page.
    pub const fn base(&self) -> u64 {
        self.base
    }

    /// Returns the number of pages.
    pub const fn pages(&self) -> usize {
        self.pages
    }

    /// Returns the number of pages of a chunk. The last chunk may have fewer.
    pub const fn chunk(&self) -> usize {
        self.chunk
    }

    /// Returns the number of chunks.
    pub const fn chunks(&self) -> usize {
        self.pages.div_ceil(self.chunk)
    }

    /// Returns the indices of the chunks `first..after`: first page, and page after the last one.
    /// `None` if the window has not that many chunks.
    pub fn chunk_range(&self, first: usize, after: usize) -> Option<(usize, usize)> {
        if first > after || after > self.chunks() {
            return None;
        }
        Some((
            first.checked_mul(self.chunk)?,
            after.checked_mul(self.chunk)?.min(self.pages),
        ))
    }

    /// Returns how many pages, from index 0 on, a request may use.
    pub fn usable(&self, request: &Request) -> usize {
        match request.last.checked_sub(self.base) {
            // CAST: a window has less than 2^32 pages.
            Some(last) => last.saturating_add(1).min(self.pages as u64) as usize,
            None => 0,
        }
    }

    /// Returns whether a run of the window that begins at index `first` suits `request`.
    #[inline]
    pub fn suits(&self, request: &Request, first: usize) -> bool {
        let number = self.base + first as u64;
        let last = number + request.pages as u64 - 1;
        number.trailing_zeros() >= request.align
            && (number ^ last) & !request.boundary == 0
            && last <= request.last
    }

    /// Returns the first index, not below `from`, of a run that suits `request` and ends by `end`.
    pub fn place(&self, request: &Request, from: usize, end: usize) -> Option<usize> {
        let len = request.pages as u64;
        let mut number = align_up(self.base.checked_add(from as u64)?, request.align)?;
        let last = number.checked_add(len.checked_sub(1)?)?;
        if (number ^ last) & !request.boundary != 0 {
            // A boundary is crossed: the run starts at the next one. What is aligned to both is
            // aligned to the larger.
            let after = (number | request.boundary).checked_add(1)?;
            number = align_up(after, request.align)?;
            let last = number.checked_add(len - 1)?;
            if (number ^ last) & !request.boundary != 0 {
                return None;
            }
        }
        // CAST: checked to be in the window, which has less than 2^32 pages.
        let first = (number - self.base).min(u64::from(u32::MAX)) as usize;
        (first.checked_add(request.pages)? <= end.min(self.pages)).then_some(first)
    }
}

fn align_up(number: u64, order: u32) -> Option<u64> {
    let mask = 1u64.checked_shl(order)?.wrapping_sub(1);
    Some(number.checked_add(mask)? & !mask)
}

/// What is to be mapped, in pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Number of pages; not 0.
    pub pages: usize,
    /// log2 of what the first page's number is a multiple of.
    pub align: u32,
    /// A run must not cross a multiple of this plus 1, which is a power of two; in page numbers
    /// (`dma_get_seg_boundary() >> PAGE_SHIFT`). `u64::MAX` if there is no boundary.
    pub boundary: u64,
    /// Highest page number that may be used (the DMA mask, `>> PAGE_SHIFT`).
    pub last: u64,
}

impl Request {
    /// A request for `pages` pages, anywhere.
    pub const fn new(pages: usize) -> Self {
        Self {
            pages,
            align: 0,
            boundary: u64::MAX,
            last: u64::MAX,
        }
    }

    /// Returns whether it makes sense, for any window.
    pub fn is_valid(&self) -> bool {
        self.pages > 0
            && self.align < u64::BITS
            && self.boundary & self.boundary.wrapping_add(1) == 0
            && self.pages as u64 - 1 <= self.boundary
    }
}
