// SPDX-License-Identifier: GPL-2.0

//! The requester ids that a function's DMA can carry.

use super::Function;
use crate::{
    bindings,
    source_id::{
        AliasSet,
        Bridge,
        BridgeKind,
        DevfnMask,
        SourceId, //
    },
};
use kernel::prelude::*;

impl<'a> Function<'a> {
    /// All requester ids under which DMA of this function can arrive at the IOMMU.
    ///
    /// Errors: `E2BIG`, with a message, if there are more than the set has room for.
    ///
    /// Context: any.
    pub fn aliases(self) -> Result<AliasSet> {
        let device = self.dma_function();
        let above = device.bridges().map(|(_, bridge)| bridge);
        AliasSet::walk(device.source_id(), &device.alias_mask(), above).map_err(|e| {
            pr_err!("{e}\n");
            E2BIG
        })
    }

    /// The bridges above the function, the nearest first, and what they do to requester ids.
    pub(super) fn bridges(self) -> impl Iterator<Item = (Function<'a>, Bridge)> {
        Bridges {
            below: self,
            segment: self.segment(),
        }
    }

    /// Other functions of the same bus that this one's DMA may seem to come from (quirks).
    pub(super) fn alias_mask(self) -> DevfnMask {
        let mut mask = DevfnMask::default();
        // SAFETY: Valid by the type invariant; only the place is formed.
        let place = unsafe { &raw const (*self.as_raw()).dma_alias_mask };
        // SAFETY: Aligned and valid. Once set it stays until the function is freed.
        let words = unsafe { place.read_volatile() };
        if words.is_null() {
            return mask;
        }
        for (i, word) in mask.iter_mut().enumerate() {
            // SAFETY: The bitmap has 256 bits, which are four words.
            let place = unsafe { words.add(i) };
            // SAFETY: As above; bits are only ever added, atomically.
            *word = unsafe { place.read_volatile() } as u64;
        }
        mask
    }
}

/// The bridges above a function, the nearest first.
struct Bridges<'a> {
    below: Function<'a>,
    segment: u16,
}

impl<'a> Iterator for Bridges<'a> {
    type Item = (Function<'a>, Bridge);

    fn next(&mut self) -> Option<(Function<'a>, Bridge)> {
        let (bridge, secondary) = self.below.upstream_bus()?;
        self.below = bridge;
        let id = bridge.source_id();
        let facts = Bridge {
            id: SourceId::from_requester_id(self.segment, id.requester_id()),
            secondary,
            kind: BridgeKind::from_port_type(bridge.port_type()),
            no_alias: bridge.has_quirk(bindings::pci_dev_flags_PCI_DEV_FLAGS_PCI_BRIDGE_NO_ALIAS),
            express_alias: bridge.has_quirk(bindings::pci_dev_flags_PCI_DEV_FLAG_PCIE_BRIDGE_ALIAS),
            translation_root: bridge
                .has_quirk(bindings::pci_dev_flags_PCI_DEV_FLAGS_BRIDGE_XLATE_ROOT),
        };
        Some((bridge, facts))
    }
}
