// SPDX-License-Identifier: GPL-2.0

//! Which requests a device has, and what it says when it gives one back.
//!
//! Nothing that the device says is trusted: a request that it does not have is nothing that it can answer. How much it
//! says that it wrote is kept as it was said; who reads an answer compares.
//!
//! This file is pure. It is also built and tested on the host.

/// The device gave back what it was not given, or has given back before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Foreign;

/// Requests by slot, of which there are `N`.
pub struct Answers<const N: usize> {
    /// For each slot, how many bytes the device says that it wrote; `None` while it has the request.
    written: [Option<u32>; N],
    waiting: usize,
}

impl<const N: usize> Answers<N> {
    /// The device has no request.
    pub const fn new() -> Self {
        Self {
            written: [Some(0); N],
            waiting: 0,
        }
    }

    /// The device is given the request of `slot`. What it is to give back for it, which is never 0; `None` if it has
    /// that already, or there is no such slot.
    pub fn ask(&mut self, slot: usize) -> Option<usize> {
        let place = self.written.get_mut(slot).filter(|place| place.is_some())?;
        *place = None;
        self.waiting += 1;
        Some(slot + 1)
    }

    /// The device gave `token` back, and says that it wrote so many bytes.
    ///
    /// # Errors
    ///
    /// It does not have such a request. Nothing has changed then.
    pub fn take(&mut self, token: usize, bytes: u32) -> Result<(), Foreign> {
        match self.written.get_mut(token.wrapping_sub(1)) {
            Some(place @ None) => {
                *place = Some(bytes);
                self.waiting -= 1;
                Ok(())
            }
            _ => Err(Foreign),
        }
    }

    /// How many requests the device has.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many bytes it says that it wrote for the last request of a slot; 0 while it has that.
    pub fn written(&self, slot: usize) -> usize {
        let bytes = self.written.get(slot).copied().flatten();
        // CAST: u32 to usize, lossless.
        bytes.unwrap_or(0) as usize
    }
}

impl<const N: usize> Default for Answers<N> {
    fn default() -> Self {
        Self::new()
    }
}
