// SPDX-License-Identifier: GPL-2.0

//! Mappings that end together: unmapped one after the other, forgotten by the units in one flush, and
//! their addresses free only after it.
//!
//! Pure: compiled into the kernel and into the host tests alike.

use super::kept::Mapping;
use core::{
    mem::take,
    ops::DerefMut, //
};

/// What ends mappings.
pub trait Ends {
    /// Why units have not forgotten what was unmapped.
    type Error;

    /// Takes a mapping out of its domain. Units may know it until the next flush that begins after this is over.
    /// `false`: a part of it is still there.
    fn unmap(&self, mapping: &Mapping) -> bool;

    /// Has all units forget what was unmapped.
    fn flush(&self) -> Result<(), Self::Error>;

    /// Gives the mapping's addresses back.
    fn free(&self, mapping: &Mapping);
}

/// Mappings, in an array of places.
pub struct Ending<S> {
    places: S,
    count: usize,
}

impl<S: DerefMut<Target = [Mapping]>> Ending<S> {
    /// None, with these places.
    pub fn new(places: S) -> Self {
        Self { places, count: 0 }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds one. Gives it back if all places are taken.
    pub fn add(&mut self, mapping: Mapping) -> Result<(), Mapping> {
        let place = self.places.get_mut(self.count).ok_or(mapping)?;
        *place = mapping;
        self.count += 1;
        Ok(())
    }

    /// Takes all out, and gives them to `each`.
    pub fn drain(&mut self, each: impl FnMut(Mapping)) {
        let count = take(&mut self.count);
        self.places.iter().copied().take(count).for_each(each);
    }

    /// Ends all, with one flush, which is made even if there are none. Returns how many there were.
    ///
    /// What units did not forget they may still have, and what was not unmapped they do have: nobody gets
    /// these addresses again.
    pub fn end<E: Ends>(&mut self, ends: &E) -> Result<usize, E::Error> {
        let count = take(&mut self.count);
        let mut unmapped = 0;
        for place in 0..count {
            let Some(mapping) = self.places.get(place).copied() else {
                break;
            };
            if !ends.unmap(&mapping) {
                continue;
            }
            if let Some(free) = self.places.get_mut(unmapped) {
                *free = mapping;
                unmapped += 1;
            }
        }
        ends.flush()?;
        self.places
            .iter()
            .take(unmapped)
            .for_each(|mapping| ends.free(mapping));
        Ok(count)
    }
}
