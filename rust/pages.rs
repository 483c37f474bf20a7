// SPDX-License-Identifier: GPL-2.0

//! Memory that the hardware reads: root and context tables, command rings.
//!
//! The hardware may read any word at any time, and other CPUs may write others, so
//! there is never a Rust reference to this memory: words are read and written one
//! at a time. The order between two words, where it matters, is made here.
//!
//! C: `drivers/iommu/iommu-pages.h`

use core::{
    ptr::NonNull, //
};

use kernel::{
    alloc::{
        flags::*,
        Flags, //
    },
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        atomic::{
            AtomicFlag,
            Relaxed, //
        },
        barrier::{
            dma_mb,
            Write, //
        }, //
    }, //
};

use crate::bindings;

/// Largest order that the page allocator serves (`MAX_PAGE_ORDER` of x86).
const MAX_ORDER: u32 = 10;

/// Bit of the low word that makes a 128-bit entry valid, in every entry format
/// that [`TablePage::write_pair`] is for (VT-d root and context entries, AMD
/// device table entries).
const VALID: u64 = 1;

/// What the hardware sees of the CPU's caches when it reads a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coherency {
    /// Reads snoop the caches: a store is enough.
    Snooped,
    /// Reads go to memory: every store is followed by a write-back of its line.
    Flush,
}

/// Zeroed, naturally aligned memory that the hardware reads.
///
/// Counted in `nr_iommu_pages` of `/proc/vmstat`. Dropping it gives the memory back
/// at once, so whoever owns one drops it only when the hardware no longer knows its
/// address; otherwise it forgets it, or keeps the memory ([`keep`](Self::keep)).
///
/// Words are read and written through a shared reference. Single words are never
/// torn. Callers serialise writers of the same entry with a lock of their own; two
/// writers without one leave an entry that is neither's, nothing worse.
///
/// An index that is out of range is a bug of the driver: it is reported once with a
/// kernel warning, a read then gives 0 (an entry that is not valid) and a write is
/// dropped.
///
/// # Invariants
///
/// `base` is the kernel address of `words` consecutive 64-bit words, aligned to
/// their total size, which we own until drop and which lie at `phys`.
pub(crate) struct TablePage {
    base: NonNull<u64>,
    phys: u64,
    words: usize,
    coherency: Coherency,
    /// The memory is not given back.
    kept: AtomicFlag,
}

// SAFETY: the memory is in the kernel's linear map; any thread may free it.
unsafe impl Send for TablePage {}

// SAFETY: `&TablePage` allows only volatile accesses to single aligned words and
// atomic ones to pairs; no reference to the memory exists.
unsafe impl Sync for TablePage {}

impl TablePage {
    /// Allocates `2^order` pages on NUMA node `nid` (-1: any).
    ///
    /// May sleep if `gfp` says so. The zeroes are visible to the hardware.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if there is no memory, `EINVAL` for an order that cannot exist.
    pub(crate) fn new(order: u32, nid: i32, gfp: Flags, coherency: Coherency) -> Result<Self> {
        if order > MAX_ORDER {
            return Err(EINVAL);
        }
        let size = PAGE_SIZE << order;
        // SAFETY: `nid` is checked by the allocator for -1 and otherwise is a node
        // that the kernel gave out; `gfp` has no highmem bit (see `raw()`).
        let base = unsafe { bindings::iommu_alloc_pages_node_sz(nid, raw(gfp), size) };
        let base = NonNull::new(base.cast::<u64>()).ok_or(ENOMEM)?;
        // SAFETY: `base` is an address in the linear map.
        let phys = unsafe { bindings::rust_iommu_virt_to_phys(base.as_ptr().cast()) };
        // INVARIANT: the allocator aligns to the size, and hands over ownership.
        let table = Self {
            base,
            phys,
            words: size / size_of::<u64>(),
            coherency,
            kept: AtomicFlag::new(false),
        };
        table.flush(0, table.words);
        Ok(table)
    }

    /// Returns the physical address, which is aligned to the size.
    #[inline]
    pub(crate) fn phys(&self) -> u64 {
        self.phys
    }

    /// Has the memory stay when this is dropped: the hardware may still read it. Context: any.
    pub(crate) fn keep(&self) {
        self.kept.store(true, Relaxed);
    }

    /// Returns the number of 64-bit words.
    #[inline]
    pub(crate) fn words(&self) -> usize {
        self.words
    }

    /// Reads word `i`.
    #[inline]
    pub(crate) fn read(&self, i: usize) -> u64 {
        match self.word(i, 1) {
            // SAFETY: `word()` checked the index; the hardware and other CPUs only
            // make aligned accesses, which a volatile one does not tear.
            Some(at) => unsafe { at.read_volatile() },
            None => 0,
        }
    }

    /// Writes word `i`. Words are seen by the hardware in the order of the calls.
    #[inline]
    pub(crate) fn write(&self, i: usize, value: u64) {
        if self.word(i, 1).is_some() {
            self.store(i, value);
            self.flush(i, 1);
        }
    }

    /// Writes the 128-bit entry `i`, that is words `2 * i` (`lo`) and `2 * i + 1`.
    ///
    /// The hardware sees the old entry, the new one, or one whose bit 0 of `lo` is
    /// clear; never a mixture that it takes for valid. The one exception is a CPU
    /// without CMPXCHG16B (no machine with an IOMMU has one): there, changing a
    /// valid entry to another valid one makes it invalid for a moment.
    pub(crate) fn write_pair(&self, i: usize, lo: u64, hi: u64) {
        let first = i.saturating_mul(2);
        let Some(at) = self.word(first, 2) else {
            return;
        };
        let was_valid = self.read(first) & VALID != 0;
        let is_valid = lo & VALID != 0;
        let at_once = was_valid && is_valid && {
            // SAFETY: `word()` checked both words; the pair is 16-byte aligned, as
            // the table is page aligned and `first` even.
            unsafe { bindings::rust_iommu_store_pair(at, lo, hi) }
        };
        if !at_once {
            if was_valid {
                self.store(first, lo & !VALID);
                dma_mb(Write);
            }
            self.store(first + 1, hi);
            dma_mb(Write);
            self.store(first, lo);
        }
        // Both words share a cache line, so one write-back is enough; and if the
        // line goes out earlier by itself, it goes out in one of the states above.
        self.flush(first, 2);
    }

    /// Writes the 128-bit entry `i`, which the hardware does not read meanwhile.
    #[inline]
    pub(crate) fn write_entry(&self, i: usize, [lo, hi]: [u64; 2]) {
        let first = i.saturating_mul(2);
        if self.word(first, 2).is_some() {
            self.store(first, lo);
            self.store(first + 1, hi);
            self.flush(first, 2);
        }
    }

    /// Stores word `i`, which the caller has checked.
    #[inline]
    fn store(&self, i: usize, value: u64) {
        let at = self.base.as_ptr().wrapping_add(i);
        // SAFETY: `i` is in range (private function, callers checked); volatile, so
        // it is one store and keeps its place among the others.
        unsafe { at.write_volatile(value) };
    }

    /// Writes `count` words from `i` on back to memory where the hardware needs it.
    #[inline]
    fn flush(&self, i: usize, count: usize) {
        if self.coherency == Coherency::Flush {
            let at = self.base.as_ptr().wrapping_add(i);
            // SAFETY: the range is in the table (private function, callers checked).
            // CAST: at most 4 MiB.
            unsafe { bindings::clflush_cache_range(at.cast(), (count * size_of::<u64>()) as u32) };
        }
    }

    /// Returns the address of word `i` if `count` words are there.
    #[inline]
    fn word(&self, i: usize, count: usize) -> Option<*mut u64> {
        if i.checked_add(count).is_some_and(|end| end <= self.words) {
            Some(self.base.as_ptr().wrapping_add(i))
        } else {
            self.refuse(i);
            None
        }
    }

    /// Reports an index out of range, the first time.
    #[cold]
    #[inline(never)]
    fn refuse(&self, i: usize) {
        static REPORTED: AtomicFlag = AtomicFlag::new(false);

        if !REPORTED.xchg(true, Relaxed) {
            pr_err!("word {i} of a hardware table of {} words\n", self.words);
            kernel::warn_on!(true);
        }
    }
}

impl Drop for TablePage {
    fn drop(&mut self) {
        if self.kept.load(Relaxed) {
            return;
        }
        // SAFETY: allocated by `new()`, not freed since; that the hardware has let
        // go of it is the owner's promise (type documentation).
        unsafe { bindings::iommu_free_pages(self.base.as_ptr().cast()) };
    }
}

/// Translates allocation flags for C; the kernel crate keeps their number private.
///
/// Every flag that a caller can name is in the table, so nothing gets lost.
fn raw(gfp: Flags) -> bindings::gfp_t {
    [
        (GFP_KERNEL, bindings::GFP_KERNEL),
        (GFP_KERNEL_ACCOUNT, bindings::GFP_KERNEL_ACCOUNT),
        (GFP_ATOMIC, bindings::GFP_ATOMIC),
        (GFP_NOWAIT, bindings::GFP_NOWAIT),
        (__GFP_NOWARN, bindings::__GFP_NOWARN),
    ]
    .into_iter()
    .filter(|(flag, _)| gfp.contains(*flag))
    .fold(0, |all, (_, number)| all | number)
}
