// SPDX-License-Identifier: GPL-2.0
//
// Queues, which answer for the hardware, and page tables are the framework's.

use iommu::{
    pt::PageTable,
    queue::{
        CommandQueue,
        Synced, //
    }, //
};
use kernel::prelude::*;

struct Mine;

fn queue(queue: &impl CommandQueue) -> Result<Synced> {
    queue.submit(&[])
}

#[cfg(wrong)]
impl CommandQueue for Mine {
    //~^ E0277 `Mine: queue::private::Sealed` is not satisfied
    type Command = u64;
    type Room = [core::mem::MaybeUninit<u64>; 6];

    fn submit(&self, _commands: &[u64]) -> Result<Synced> {
        Err(EIO)
    }
}

#[cfg(wrong)]
fn table<T: PageTable>(_: T) {}

#[cfg(wrong)]
fn mine() {
    table(Mine); //~ E0277 `Mine: PageTable` is not satisfied
}
