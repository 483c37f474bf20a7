// SPDX-License-Identifier: GPL-2.0

//! Streaming DMA of scatter-gather lists, for consumers of an IOMMU.

use crate::{
    bindings,
    dma::Buffer,
    raw::as_raw, //
};
use kernel::{
    device::{
        Bound,
        Device, //
    },
    dma::{
        DataDirection,
        DmaAddress, //
    },
    error::to_result,
    prelude::*,
    sync::Arc, //
};

/// A list of pieces of a [`Buffer`], which a device may reach while it is mapped.
///
/// Dropping it unmaps it.
///
/// # Invariants
///
/// `table` has `table.orig_nents` entries, all within `buffer`. It is mapped for `dev` in `direction`
/// if and only if `mapped`.
pub struct ScatterList<'dev> {
    dev: &'dev Device<Bound>,
    table: bindings::sg_table,
    _buffer: Arc<Buffer>,
    direction: DataDirection,
    mapped: bool,
}

impl<'dev> ScatterList<'dev> {
    /// Makes a list of `entries` pieces of `bytes` each, which begin `stride` bytes apart. May sleep.
    ///
    /// Fails with `EINVAL` where that is more than the buffer, or nothing, or in no direction; and
    /// with `ENOMEM`.
    pub fn new(
        dev: &'dev Device<Bound>,
        buffer: Arc<Buffer>,
        entries: u32,
        bytes: u32,
        stride: usize,
        direction: DataDirection,
    ) -> Result<Self> {
        let last = (entries as usize).checked_sub(1).ok_or(EINVAL)?;
        let end = last
            .checked_mul(stride)
            .and_then(|start| start.checked_add(bytes as usize));
        if bytes == 0 || end.ok_or(EINVAL)? > buffer.size() || direction == DataDirection::None {
            return Err(EINVAL);
        }
        let mut table = bindings::sg_table::default();
        // SAFETY: A table to be filled; there is one entry at least.
        to_result(unsafe { bindings::sg_alloc_table(&mut table, entries, bindings::GFP_KERNEL) })?;
        let (mut entry, mut phys) = (table.sgl, buffer.phys());
        for _ in 0..entries {
            // SAFETY: An entry of the table, and a piece of the buffer, as was checked.
            unsafe { bindings::rust_iommu_sg_set(entry, phys, bytes) };
            phys += stride as u64;
            // SAFETY: As above; the last one has none, and is not asked for one.
            entry = unsafe { bindings::sg_next(entry) };
        }
        // INVARIANT: Filled just now, not mapped.
        Ok(Self {
            dev,
            table,
            _buffer: buffer,
            direction,
            mapped: false,
        })
    }

    /// Maps the list, if it is not mapped. Does not sleep.
    ///
    /// Fails with `ENOMEM` where there is no address left or no memory for tables.
    pub fn map(&mut self) -> Result {
        if self.mapped {
            return Ok(());
        }
        // SAFETY: The device is bound; the list is whole, not mapped, and its memory is there.
        let segments = unsafe {
            bindings::dma_map_sg_attrs(
                as_raw(self.dev),
                self.table.sgl,
                self.table.orig_nents as i32,
                self.direction.into(),
                0,
            )
        };
        if segments == 0 {
            return Err(ENOMEM);
        }
        // INVARIANT: Mapped just now.
        self.mapped = true;
        Ok(())
    }

    /// Where the device finds the first byte, if the list is mapped.
    pub fn dma_addr(&self) -> Option<DmaAddress> {
        // SAFETY: By the type invariant there is a first entry.
        let addr = unsafe { bindings::sg_dma_address(self.table.sgl) };
        self.mapped.then_some(addr)
    }

    /// Unmaps the list, if it is mapped. Does not sleep.
    pub fn unmap(&mut self) {
        if !self.mapped {
            return;
        }
        // SAFETY: By the type invariant it is mapped for this device, in this direction.
        unsafe {
            bindings::dma_unmap_sg_attrs(
                as_raw(self.dev),
                self.table.sgl,
                self.table.orig_nents as i32,
                self.direction.into(),
                0,
            )
        };
        // INVARIANT: Unmapped just now.
        self.mapped = false;
    }
}

impl Drop for ScatterList<'_> {
    fn drop(&mut self) {
        self.unmap();
        // SAFETY: Made by `new`, and not mapped.
        unsafe { bindings::sg_free_table(&mut self.table) };
    }
}
