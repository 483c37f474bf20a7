// SPDX-License-Identifier: GPL-2.0

//! Where a function is, in the way that firmware tables name places.

use crate::{
    pci::Function,
    source_id::SourceId, //
};
use core::ops::Deref;
use kernel::prelude::*;

/// Ids of the bridges above a function from the root bus down, and last its own.
///
/// Firmware knows neither virtual functions, which are where their physical function
/// is, nor devices behind a device that does their DMA, which are where that one is.
pub struct Path(KVec<SourceId>);

impl Path {
    /// The place of a function. Context: may sleep. Errors: `ENOMEM`.
    pub fn of(function: Function<'_>) -> Result<Self> {
        let function = function.dma_function().physical_function();
        let mut ids = KVec::new();
        let segment = function.segment();
        for step in function.path_to_root() {
            ids.push(SourceId::new(segment, step.bus, step.devfn), GFP_KERNEL)?;
        }
        ids.as_mut_slice().reverse();
        Ok(Self(ids))
    }
}

impl Deref for Path {
    type Target = [SourceId];

    fn deref(&self) -> &[SourceId] {
        &self.0
    }
}
