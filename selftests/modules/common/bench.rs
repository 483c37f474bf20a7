// SPDX-License-Identifier: GPL-2.0

//! What a test has at hand for one device: its DMA, pages, mappings.

use crate::engine::Engine;
use iommu::dma::{
    Buffer,
    Mapping, //
};
use kernel::{
    device::{
        Bound,
        Device, //
    },
    dma::DataDirection,
    prelude::*,
    sync::{
        atomic::Relaxed,
        Arc, //
    },
};

/// Pages, perhaps mapped by the DMA API.
pub(crate) struct Item<'dev> {
    pub(crate) handle: u64,
    pub(crate) mapping: Option<Mapping<'dev>>,
    pub(crate) buffer: Arc<Buffer>,
}

impl Item<'_> {
    /// Fills the pages with `value`.
    pub(crate) fn fill(&self, value: u32) {
        for word in self.buffer.words() {
            word.store(value, Relaxed);
        }
        if let Some(mapping) = &self.mapping {
            mapping.to_device();
        }
    }

    /// Offset and contents of the first word that is not `value`.
    pub(crate) fn first_other(&self, value: u32) -> Option<(usize, u32)> {
        if let Some(mapping) = &self.mapping {
            mapping.to_cpu();
        }
        let words = self.buffer.words().iter().map(|w| w.load(Relaxed));
        let mut other = words.enumerate().filter(|(_, w)| *w != value);
        other.next().map(|(i, w)| (i * size_of::<u32>(), w))
    }
}

pub(crate) struct Bench<'dev> {
    pub(crate) dev: &'dev Device<Bound>,
    pub(crate) engine: Engine<'dev>,
    items: KVec<Item<'dev>>,
    next: u64,
}

impl<'dev> Bench<'dev> {
    pub(crate) fn new(dev: &'dev Device<Bound>, engine: Engine<'dev>) -> Self {
        Self {
            dev,
            engine,
            items: KVec::new(),
            next: 1,
        }
    }

    /// New pages, mapped in `direction` if one is given.
    pub(crate) fn add(
        &mut self,
        pages: usize,
        direction: Option<DataDirection>,
    ) -> Result<&Item<'dev>> {
        let buffer = Buffer::new(pages)?;
        let mapping = match direction {
            Some(direction) => Some(Mapping::new(self.dev, buffer.clone(), direction)?),
            None => None,
        };
        let item = Item {
            handle: self.next,
            mapping,
            buffer,
        };
        self.items.push(item, GFP_KERNEL)?;
        self.next += 1;
        self.items.last().ok_or(EINVAL)
    }

    pub(crate) fn item(&mut self, handle: u64) -> Result<&mut Item<'dev>> {
        let found = self.items.iter_mut().find(|i| i.handle == handle);
        found.ok_or(ENOENT)
    }

    pub(crate) fn remove(&mut self, handle: u64) -> Result {
        let found = self.items.iter().position(|i| i.handle == handle);
        let removed = self.items.remove(found.ok_or(ENOENT)?);
        removed.map(drop).map_err(|_| ENOENT)
    }
}
