// SPDX-License-Identifier: GPL-2.0

//! Events that a virtio device reports, taken at its interrupt.

use crate::{
    bindings,
    pages::{
        Coherency,
        TablePage, //
    },
};
use kernel::{
    new_spinlock_irq,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        Arc,
        SetOnce,
        SpinLockIrq, //
    },
};

/// Most bytes of an event.
pub const EVENT_MAX: usize = 32;

/// Bytes of memory for one event.
const SLOT: usize = 64;

/// Events at a time.
const SLOTS: usize = PAGE_SIZE / SLOT;

/// Who takes events.
pub trait EventHandler: Send + Sync {
    /// An event. `written` is how many of the bytes the device says that it has written.
    ///
    /// Context: hard interrupt.
    fn event(&self, bytes: &[u8; EVENT_MAX], written: usize);
}

struct State {
    /// NULL before the start and after the end.
    queue: *mut bindings::virtqueue,
    slots: usize,
}

// SAFETY: The queue is used with the lock held.
unsafe impl Send for State {}

/// The queue, and the memory that it shares with the device.
///
/// It is dropped after the device was reset, so that nothing writes to the memory any more.
#[pin_data]
pub(super) struct Events {
    memory: TablePage,
    bytes: usize,
    handler: SetOnce<Arc<dyn EventHandler>>,
    #[pin]
    state: SpinLockIrq<State>,
}

impl Events {
    pub(super) fn new(bytes: usize) -> Result<impl PinInit<Self>> {
        let memory = TablePage::new(0, bindings::NUMA_NO_NODE, GFP_KERNEL, Coherency::Snooped)?;
        let bytes = bytes.min(EVENT_MAX);
        Ok(pin_init!(Self {
            memory,
            bytes,
            handler: SetOnce::new(),
            state <- new_spinlock_irq!(
                State {
                    queue: core::ptr::null_mut(),
                    slots: 0,
                },
                "iommu virtio events"
            ),
        }))
    }

    /// # Safety
    ///
    /// `queue` is a queue that nobody else uses, until [`stop`](Self::stop).
    pub(super) unsafe fn start(&self, queue: *mut bindings::virtqueue) {
        let mut state = self.state.lock();
        // SAFETY: By the contract.
        let entries = unsafe { bindings::virtqueue_get_vring_size(queue) };
        // CAST: u32 to usize, lossless.
        state.slots = SLOTS.min(entries as usize);
        state.queue = queue;
    }

    pub(super) fn stop(&self) {
        self.state.lock().queue = core::ptr::null_mut();
    }

    pub(super) fn set_handler(&self, handler: Arc<dyn EventHandler>) {
        self.handler.populate(handler);
    }

    /// Gives the device memory for events. Errors: `EIO`.
    pub(super) fn fill(&self) -> Result {
        let slots = self.state.lock().slots;
        self.give(|slot| slot < slots)
    }

    /// Gives the device the slots that `which` picks, and tells it so once. Errors: `EIO`.
    fn give(&self, which: impl Fn(usize) -> bool) -> Result {
        let mut state = self.state.lock();
        if state.queue.is_null() {
            return Ok(());
        }
        for slot in (0..SLOTS).filter(|slot| which(*slot)) {
            self.add(&mut state, slot)?;
        }
        // SAFETY: The queue is there, and the lock is held.
        unsafe { bindings::virtqueue_kick(state.queue) };
        Ok(())
    }

    fn add(&self, state: &mut State, slot: usize) -> Result {
        let at = self.memory.phys() + (slot * SLOT) as u64;
        let token = core::ptr::without_provenance_mut(slot + 1);
        // SAFETY: The queue is there, and the lock is held. The memory stays until after the
        // device was reset.
        let added = unsafe {
            // CAST: 32 at most.
            bindings::rust_iommu_virtqueue_add(state.queue, 0, 0, at, self.bytes as u32, token)
        };
        if added == 0 {
            Ok(())
        } else {
            Err(EIO)
        }
    }

    /// Takes an event: the slot that it was in, its bytes, and how many the device has written.
    fn take(&self) -> Option<(usize, [u8; EVENT_MAX], usize)> {
        let state = self.state.lock();
        if state.queue.is_null() {
            return None;
        }
        let mut written = 0;
        // SAFETY: The queue is there, and the lock is held.
        let token = unsafe { bindings::virtqueue_get_buf(state.queue, &mut written) };
        if token.is_null() {
            return None;
        }
        let slot = token.addr().wrapping_sub(1);
        if slot >= state.slots {
            return None;
        }
        let mut bytes = [0; EVENT_MAX];
        for (i, place) in bytes.chunks_mut(size_of::<u64>()).enumerate() {
            let word = self.memory.read(slot * SLOT / size_of::<u64>() + i);
            place.copy_from_slice(&word.to_le_bytes());
        }
        // CAST: u32 to usize, lossless.
        Some((slot, bytes, written as usize))
    }

    /// Takes what there is. Context: the queue's interrupt.
    ///
    /// Nothing is given back before all was taken: so there is an end to it, whatever devices do, and the
    /// next event comes with an interrupt.
    pub(super) fn handle(&self) {
        let mut taken = [false; SLOTS];
        for _ in 0..SLOTS {
            let Some((slot, bytes, written)) = self.take() else {
                break;
            };
            if let Some(handler) = self.handler.as_ref() {
                handler.event(&bytes, written);
            }
            if let Some(taken) = taken.get_mut(slot) {
                *taken = true;
            }
        }
        if taken.contains(&true) {
            // A queue that takes nothing any more is broken, and reports nothing either.
            let _ = self.give(|slot| taken.get(slot) == Some(&true));
        }
    }
}
