// SPDX-License-Identifier: GPL-2.0

//! The way from a function up to its root bus.

use super::Function;

/// One function on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The bus that it is on, as it is numbered now.
    pub bus: u8,
    /// Device in bits 7:3, function in bits 2:0.
    pub devfn: u8,
}

/// Iterator of [`Function::path_to_root`].
#[derive(Clone)]
pub struct PathToRoot<'a>(Option<Function<'a>>);

impl<'a> Function<'a> {
    /// The function itself first, then the bridges above it; the last step is on the root bus, and
    /// its `bus` is the root bus' number.
    ///
    /// This is the order opposite to that of the paths in firmware tables. Those name
    /// [physical](Self::physical_function) [DMA functions](Self::dma_function) only: start there
    /// to compare.
    pub fn path_to_root(self) -> PathToRoot<'a> {
        PathToRoot(Some(self))
    }
}

impl Iterator for PathToRoot<'_> {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        let function = self.0?;
        self.0 = function.upstream();
        let id = function.source_id();
        Some(Step {
            bus: id.bus(),
            devfn: id.devfn(),
        })
    }
}
