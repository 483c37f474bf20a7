// SPDX-License-Identifier: GPL-2.0

//! What a module's callbacks share that are given no data of the module, such as probe.

use core::cell::UnsafeCell;
use kernel::{
    prelude::*,
    sync::{
        lock::mutex::MutexBackend,
        static_lock_class,
        Arc,
        GlobalLock,
        GlobalLockBackend,
        LockClassKey, //
    },
};

/// A place for data, to be a static.
///
/// Unlike what a static owns, the data is dropped when the module is unloaded, with the
/// [`Filled`] that the module keeps.
pub struct Shared<T>(UnsafeCell<Option<Arc<T>>>);

// SAFETY: The place is only accessed with `PLACES` locked; what comes out of it is an
// `Arc`, which threads may share and drop by the bound.
unsafe impl<T: Send + Sync> Sync for Shared<T> {}

impl<T: Send + Sync + 'static> Shared<T> {
    /// An empty place.
    #[allow(
        clippy::new_without_default,
        reason = "a static is not made from a default"
    )]
    pub const fn new() -> Self {
        Self(UnsafeCell::new(None))
    }

    /// Puts `data` in, for as long as the result lives. May sleep.
    ///
    /// Fails with `EBUSY` where something is in.
    pub fn fill(&'static self, data: Arc<T>) -> Result<Filled<T>> {
        let mut data = Some(data);
        self.with(|place| {
            if place.is_some() {
                return Err(EBUSY);
            }
            *place = data.take();
            Ok(Filled(self))
        })
    }

    /// The data, or `ENODEV` where nothing is in. May sleep.
    pub fn get(&self) -> Result<Arc<T>> {
        self.with(|place| place.clone()).ok_or(ENODEV)
    }

    fn with<R>(&self, f: impl FnOnce(&mut Option<Arc<T>>) -> R) -> R {
        let _guard = PLACES.lock();
        // SAFETY: The lock keeps others away from all places, and this file's functions
        // pass none but `f` that do not come here again.
        f(unsafe { &mut *self.0.get() })
    }
}

/// Keeps the data in its place; dropping it takes the data out.
pub struct Filled<T: Send + Sync + 'static>(&'static Shared<T>);

impl<T: Send + Sync + 'static> Drop for Filled<T> {
    fn drop(&mut self) {
        // Dropped without the lock.
        let data = self.0.with(Option::take);
        drop(data);
    }
}

/// The lock of all places.
enum PlacesLock {}

impl GlobalLockBackend for PlacesLock {
    const NAME: &'static CStr = c"iommu shared data";
    type Item = ();
    type Backend = MutexBackend;

    fn get_lock_class() -> Pin<&'static LockClassKey> {
        static_lock_class!()
    }
}

// SAFETY: `init` comes first, by its contract. There is no other lock of this type.
static PLACES: GlobalLock<PlacesLock> = unsafe { GlobalLock::new(()) };

/// Makes the lock ready.
///
/// # Safety
///
/// Called once, before anything else of this file.
pub(crate) unsafe fn init() {
    // SAFETY: Once, by the contract.
    unsafe { PLACES.init() };
}
