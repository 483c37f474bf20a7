// SPDX-License-Identifier: GPL-2.0

//! What made the IOMMU core put a function into a group that was there.
//!
//! The core (`pci_device_group()`) takes the first group that it meets: at a bridge that replaces the
//! function's id, at a port that does not isolate, at functions that share ids by a quirk, or at those of
//! one device without ACS. Here the same way is gone once it has decided, and who is on it and in the
//! group is the reason. So nothing is said of what isolates, which the core alone knows for all chipsets.

use super::{
    for_each_function,
    Function, //
};
use crate::source_id::mask_has;
use kernel::prelude::*;

/// How a function merges others with itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// A bridge that may put its own id in the place of theirs.
    Bridge,
    /// A port above them that does not isolate what is behind it.
    Port,
    /// A function of the same device, which does not isolate its functions.
    Function,
    /// Its requests have their id, or the other way round.
    Alias,
}

impl How {
    pub(crate) const ALL: [How; 4] = [How::Bridge, How::Port, How::Function, How::Alias];

    pub(crate) fn name(self) -> &'static str {
        match self {
            How::Bridge => "bridge",
            How::Port => "port",
            How::Function => "function",
            How::Alias => "alias",
        }
    }
}

impl Function<'_> {
    /// Visits those for which `in_group` holds and that may be why this one has come into their group.
    ///
    /// Context: may sleep; for the core's `device_group`. Errors: those of `visit`.
    pub(crate) fn merged_by(
        self,
        in_group: impl Fn(Function<'_>) -> bool,
        mut visit: impl FnMut(Function<'_>, How) -> Result,
    ) -> Result {
        let mut found = false;
        let mut check = |other: Function<'_>, how| -> Result {
            if in_group(other) {
                found = true;
                visit(other, how)?;
            }
            Ok(())
        };
        let dma = self.dma_function();
        if !dma.is(self) {
            check(dma, How::Alias)?;
        }
        let mut translated_here = false;
        for (function, bridge) in dma.bridges() {
            translated_here |= bridge.translation_root;
            let replaces = !translated_here && bridge.alias().is_some();
            check(function, if replaces { How::Bridge } else { How::Port })?;
        }
        if found {
            return Ok(());
        }
        // The core looks at the neighbours of the highest one that it came to.
        let mut step = Some(dma);
        while let Some(at) = step {
            for_each_function(|other| match at.neighbour(other) {
                Some(how) if in_group(other) => visit(other, how),
                _ => Ok(()),
            })?;
            step = at.upstream();
        }
        Ok(())
    }

    fn is(self, other: Function<'_>) -> bool {
        core::ptr::eq(self.as_raw(), other.as_raw())
    }

    /// How a function of the same bus could be merged with this one.
    fn neighbour(self, other: Function<'_>) -> Option<How> {
        if self.is(other) || !core::ptr::eq(self.bus(), other.bus()) {
            return None;
        }
        let (at, other_at) = (self.source_id(), other.source_id());
        if mask_has(&self.alias_mask(), other_at.devfn())
            || mask_has(&other.alias_mask(), at.devfn())
        {
            return Some(How::Alias);
        }
        (at.device() == other_at.device()).then_some(How::Function)
    }
}
