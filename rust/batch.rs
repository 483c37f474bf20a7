// SPDX-License-Identifier: GPL-2.0

//! Commands collected for one wait.

use crate::{
    driver::Driver,
    invalidation::Invalidation,
    queue::{
        CommandQueue,
        Synced, //
    },
};
use core::{
    mem::MaybeUninit,
    slice, //
};
use kernel::prelude::*;

/// A command of a driver's queue.
type Command<D> = <<D as Driver>::Queue as CommandQueue>::Command;

/// Room for commands of a driver's queue.
type RoomOf<D> = <<D as Driver>::Queue as CommandQueue>::Room;

/// An array of places for commands.
pub trait Room<C>: AsRef<[MaybeUninit<C>]> + AsMut<[MaybeUninit<C>]> {
    /// None yet: nothing is written, however many places there are.
    fn new() -> Self;
}

impl<C: Copy, const N: usize> Room<C> for [MaybeUninit<C>; N] {
    #[inline]
    fn new() -> Self {
        [const { MaybeUninit::uninit() }; N]
    }
}

/// The one way from commands to a proof: through the unit's own queue.
fn submit<D: Driver>(unit: &D::Unit, commands: &[Command<D>]) -> Result<Synced> {
    D::flush_stores(unit)?;
    D::queue(unit).submit(commands)
}

/// Commands for one unit, submitted and waited for together.
///
/// It is used up by [`sync`](Self::sync), so that commands can be neither sent
/// twice nor forgotten without the compiler saying so.
#[must_use = "commands reach the hardware only by sync()"]
pub struct Batch<'u, D: Driver> {
    unit: &'u D::Unit,
    commands: RoomOf<D>,
    /// So many of them are there, the first ones.
    used: usize,
    /// So many went out early, as there was no room.
    sent: usize,
    early: Result,
}

impl<'u, D: Driver> Batch<'u, D> {
    #[inline]
    pub(crate) fn new(unit: &'u D::Unit) -> Self {
        Self {
            unit,
            commands: Room::new(),
            used: 0,
            sent: 0,
            early: Ok(()),
        }
    }

    /// Adds a command. A full batch is submitted first; if that fails, the error
    /// comes out of [`sync`](Self::sync).
    ///
    /// Context: atomic.
    #[inline]
    pub fn push(&mut self, command: Command<D>) {
        self.make_room();
        if let Some(place) = self.commands.as_mut().get_mut(self.used) {
            place.write(command);
            self.used += 1;
        }
    }

    /// Adds what makes the unit forget translations of a tag, and returns how many commands that takes.
    ///
    /// Context: atomic.
    #[inline]
    pub(crate) fn invalidate(&mut self, tag: &D::Tag, what: &Invalidation) -> u64 {
        let before = self.sent + self.used;
        D::invalidate(self.unit, tag, what, self);
        // CAST: usize to u64, lossless.
        (self.sent + self.used - before) as u64
    }

    /// Whether another command would have what there is submitted.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.used == self.commands.as_ref().len()
    }

    /// Submits a full batch, as the next [`push`](Self::push) would. Context: atomic.
    #[inline]
    pub(crate) fn make_room(&mut self) {
        if self.is_full() {
            self.send_early();
        }
    }

    /// The commands that are there. None is from here on: who pushes writes over them.
    #[inline]
    fn take(&mut self) -> &[Command<D>] {
        let used = core::mem::take(&mut self.used);
        let commands = self.commands.as_ref().get(..used).unwrap_or_default();
        // SAFETY: `used` counts the places that `push` wrote, from the first one on; nothing else changes
        // it but to 0. The result borrows the batch, so that nobody writes there meanwhile.
        unsafe { slice::from_raw_parts(commands.as_ptr().cast(), commands.len()) }
    }

    #[cold]
    fn send_early(&mut self) {
        self.sent += self.used;
        let sent = submit::<D>(self.unit, self.take()).map(|_| ());
        self.early = self.early.and(sent);
    }

    /// Submits what was collected and waits for the hardware to acknowledge it.
    ///
    /// Context: atomic.
    pub(crate) fn sync(mut self) -> Result<Synced> {
        self.sync_in_place()
    }

    /// [`Self::sync`] where a copy of the batch would be much of what it costs; nothing is left in it.
    pub(crate) fn sync_in_place(&mut self) -> Result<Synced> {
        let synced = submit::<D>(self.unit, self.take());
        let early = core::mem::replace(&mut self.early, Ok(()));
        early.and(synced)
    }
}
