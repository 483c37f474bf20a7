// SPDX-License-Identifier: GPL-2.0

//! Data of a bound device for callers that do not know how long it is bound,
//! such as files.

use crate::named;
use kernel::{
    device::Bound,
    devres,
    pci,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
    types::ForLt, //
};

#[pin_data]
struct Slot<F: ForLt + 'static> {
    #[pin]
    data: Mutex<Option<KBox<F::Of<'static>>>>,
}

impl<F: ForLt> Slot<F> {
    /// Drops the data, once nobody uses it any more.
    fn end(&self) {
        let mut data = self.data.lock();
        // Under the lock: when this returns the data is gone, whoever dropped it.
        drop(data.take());
    }
}

/// Drops the data when the device is unbound.
struct End<F: ForLt + 'static>(Arc<Slot<F>>);

impl<F: ForLt> Drop for End<F> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Data that borrows from a bound device, and ends with the binding.
///
/// Unlike [`kernel::devres::DevresLt`] it may be used for operations that sleep:
/// users exclude each other and the end of the binding by a mutex. That lock is
/// taken below the device's lock.
pub struct Lease<F: ForLt + 'static>(Arc<Slot<F>>);

impl<F: ForLt + 'static> Lease<F>
where
    F::Of<'static>: Send,
{
    /// Makes the data of `dev`. May sleep.
    ///
    /// `make` gets a borrow that is as long as the device is bound. Fails with
    /// what `make` says, and with `ENOMEM`.
    pub fn new(
        dev: &pci::Device<Bound>,
        make: impl for<'dev> FnOnce(&'dev pci::Device<Bound>) -> Result<F::Of<'dev>>,
    ) -> Result<Self> {
        let data = KBox::new(make(dev)?, GFP_KERNEL)?;
        let data = KBox::into_raw(data).cast::<F::Of<'static>>();
        // SAFETY: The pointer was just taken from a box of a type which differs
        // in a lifetime only. `make` works for every lifetime, so that the data
        // can borrow from nothing but the device, which stays where it is; it is
        // dropped before the binding ends, by `End`.
        let data = unsafe { KBox::from_raw(data) };
        let slot = Arc::pin_init(
            pin_init!(Slot::<F> {
                data <- named::mutex!(Some(data), "iommu lease"),
            }),
            GFP_KERNEL,
        )?;
        // Where this fails, it has dropped the data.
        devres::register(dev.as_ref(), End(slot.clone()), GFP_KERNEL)?;
        Ok(Self(slot))
    }

    /// Runs `f` on the data, or returns `None` where the device is unbound. May
    /// sleep.
    pub fn with<R>(&self, f: impl for<'dev> FnOnce(&mut F::Of<'dev>) -> R) -> Option<R> {
        let mut slot = self.0.data.lock();
        Option::as_mut(&mut slot).map(|data| f(data))
    }

    /// Drops the data, for those who want that before the binding ends. May sleep.
    pub fn end(&self) {
        self.0.end();
    }
}

impl<F: ForLt> Drop for Lease<F> {
    fn drop(&mut self) {
        self.0.end();
    }
}
