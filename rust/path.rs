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
/// A virtual function is where its physical function is.
pub struct Path(KVec<SourceId>);

impl Path {
    /// The place of a function. Context: may sleep. Errors: `ENOMEM`.
    pub fn of(function: Function<'_>) -> Result<Self> {
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
