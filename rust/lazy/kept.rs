// SPDX-License-Identifier: GPL-2.0

//! Mappings that a driver has unmapped, and that units still have: to be used again.
//!
//! For units that are told of each mapping by a request. A driver that maps the same memory again, as
//! disks do with the buffers of a program that reads in a loop, gets the mapping that was there: nobody
//! has to be told anything.
//!
//! Time goes in steps. What is kept over two of them goes, so that nothing stays longer than that.
//!
//! Pure: compiled into the kernel and into the host tests alike.

use super::recent::places;
use core::ops::DerefMut;

/// A mapping of whole pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    /// Number of its first page of memory.
    pub frame: u64,
    /// Its first DMA address.
    pub iova: u64,
    /// How many pages.
    pub pages: u32,
    /// What the device may do, as a number.
    pub access: i32,
}

/// It is kept already: somebody has unmapped it twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubled;

/// A place for a mapping, and when it came there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Slot {
    mapping: Option<Mapping>,
    since: u32,
}

/// Mappings that are kept, in an array of places.
pub struct Kept<S> {
    slots: S,
    now: u32,
    held: usize,
    pages: u64,
    most: u64,
}

impl<S: DerefMut<Target = [Slot]>> Kept<S> {
    /// None, with these places, which are empty, and for so many pages at most.
    pub fn new(slots: S, most: u64) -> Self {
        Self {
            slots,
            now: 0,
            held: 0,
            pages: 0,
            most,
        }
    }

    /// How many are kept.
    pub fn held(&self) -> usize {
        self.held
    }

    fn ways(&mut self, frame: u64) -> &mut [Slot] {
        let places = places(self.slots.len(), frame);
        self.slots.get_mut(places).unwrap_or_default()
    }

    /// Takes out a mapping of just these pages, and returns its first DMA address.
    pub fn take(&mut self, frame: u64, pages: u32, access: i32) -> Option<u64> {
        let same = |mapping: &Mapping| {
            (mapping.frame, mapping.pages, mapping.access) == (frame, pages, access)
        };
        let slot = self
            .ways(frame)
            .iter_mut()
            .find(|slot| slot.mapping.as_ref().is_some_and(same))?;
        let mapping = slot.mapping.take()?;
        self.has_lost(&mapping);
        Some(mapping.iova)
    }

    fn has_lost(&mut self, mapping: &Mapping) {
        self.held -= 1;
        self.pages -= u64::from(mapping.pages);
    }

    /// Keeps a mapping. Returns one that has to go, which has been there longest; or this one if there are
    /// no places, or if it has too many pages.
    pub fn put(&mut self, mapping: Mapping) -> Result<Option<Mapping>, Doubled> {
        let (now, room) = (self.now, self.most - self.pages);
        let ways = self.ways(mapping.frame);
        // It is the same memory, so it would be here.
        let same = |kept: &Mapping| kept.iova == mapping.iova;
        if ways
            .iter()
            .any(|slot| slot.mapping.as_ref().is_some_and(same))
        {
            return Err(Doubled);
        }
        let age = |slot: &&mut Slot| match slot.mapping {
            None => u32::MAX,
            Some(_) => now.wrapping_sub(slot.since),
        };
        let Some(slot) = ways.iter_mut().max_by_key(age) else {
            return Ok(Some(mapping));
        };
        let goes = slot.mapping.map_or(0, |gone| u64::from(gone.pages));
        if u64::from(mapping.pages) > room + goes {
            return Ok(Some(mapping));
        }
        slot.since = now;
        let gone = slot.mapping.replace(mapping);
        self.held += 1;
        self.pages += u64::from(mapping.pages);
        if let Some(gone) = &gone {
            self.has_lost(gone);
        }
        Ok(gone)
    }

    /// A step of time.
    pub fn step(&mut self) {
        self.now = self.now.wrapping_add(1);
    }

    /// Takes out a mapping whose place is `at` or later: any, or one that came before the last two steps.
    /// `at` becomes where to go on.
    pub fn next(&mut self, at: &mut usize, any: bool) -> Option<Mapping> {
        let now = self.now;
        while let Some(slot) = self.slots.get_mut(*at) {
            *at += 1;
            if any || now.wrapping_sub(slot.since) >= 2 {
                if let Some(mapping) = slot.mapping.take() {
                    self.has_lost(&mapping);
                    return Some(mapping);
                }
            }
        }
        None
    }
}
