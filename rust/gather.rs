// SPDX-License-Identifier: GPL-2.0

//! What an unmap left to do: addresses to invalidate, table pages to free after.

use crate::{
    bindings,
    invalidation::Invalidation,
    queue::Synced, //
};
use core::marker::PhantomData;

/// The core's `iommu_iotlb_gather`.
pub(crate) struct Gather<'a> {
    raw: *mut bindings::iommu_iotlb_gather,
    _borrow: PhantomData<&'a mut bindings::iommu_iotlb_gather>,
}

impl Gather<'_> {
    /// # Safety
    ///
    /// `raw` is valid and not used by others during `'a`, and the callee may free the
    /// pages on its list.
    pub(crate) unsafe fn from_raw(raw: *mut bindings::iommu_iotlb_gather) -> Self {
        Self {
            raw,
            _borrow: PhantomData,
        }
    }

    /// What has to be invalidated; `None` if the unmap changed nothing.
    pub(crate) fn invalidation(&self) -> Option<Invalidation> {
        // SAFETY: Valid by `from_raw`.
        let (start, last) = unsafe { ((*self.raw).start, (*self.raw).end) };
        let leaf_only = self.no_tables();
        if start > last {
            // Tables without addresses do not happen, but must not be freed unflushed.
            return (!leaf_only).then_some(Invalidation::All);
        }
        Some(Invalidation::Range {
            start: start as u64,
            last: last as u64,
            leaf_only,
        })
    }

    /// Whether the core flushes later, and then all of the domain.
    pub(crate) fn is_queued(&self) -> bool {
        // SAFETY: Valid by `from_raw`.
        unsafe { (*self.raw).queued }
    }

    /// Adds addresses, first and last, that follow what is there or come before it. `false`, and
    /// nothing is added, if there is a gap.
    pub(crate) fn add(&mut self, start: u64, last: u64) -> bool {
        // SAFETY: Valid by `from_raw`.
        let gather = unsafe { &mut *self.raw };
        // CAST: 64 bits both.
        let (start, last) = (start as usize, last as usize);
        if gather.start > gather.end {
            (gather.start, gather.end) = (start, last);
        } else if gather.end.checked_add(1) == Some(start) {
            gather.end = last;
        } else if last.checked_add(1) == Some(gather.start) {
            gather.start = start;
        } else {
            return false;
        }
        true
    }

    /// Takes all addresses out.
    pub(crate) fn clear(&mut self) {
        // SAFETY: Valid by `from_raw`.
        let gather = unsafe { &mut *self.raw };
        (gather.start, gather.end) = (usize::MAX, 0);
    }

    /// Whether only leaf entries changed.
    fn no_tables(&self) -> bool {
        // SAFETY: Valid by `from_raw`; the list was initialised with the gather.
        let head = unsafe { &raw const (*self.raw).freelist.pages };
        // SAFETY: As above.
        let next = unsafe { (*head).next };
        core::ptr::eq(next, head)
    }

    /// Frees the tables that the unmap emptied.
    ///
    /// The hardware has acknowledged the invalidation: it holds no pointer to them.
    pub(crate) fn free_tables(self, _proof: Synced) {
        if self.no_tables() {
            return;
        }
        // SAFETY: The pages were taken out of the table by unmap and are on no other
        // list; the proof says that hardware does not read them any more.
        unsafe { bindings::iommu_put_pages_list(&raw mut (*self.raw).freelist) };
    }

    /// Gives the tables up without freeing them, so that the core does not either.
    pub(crate) fn leak_tables(self) {
        // SAFETY: Valid by `from_raw`.
        let head = unsafe { &raw mut (*self.raw).freelist.pages };
        // SAFETY: An empty list points to itself.
        unsafe {
            (*head).next = head;
            (*head).prev = head;
        }
    }
}
