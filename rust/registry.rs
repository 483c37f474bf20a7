// SPDX-License-Identifier: GPL-2.0

//! A driver's registered units, and devices that it left alone.

use crate::{
    driver::Driver,
    group::Groups,
    pci::Function,
    source_id::SourceId,
    unit::UnitRef, //
};
use core::marker::PhantomData;
use kernel::{
    device::Device,
    fmt,
    prelude::*,
    sync::{
        lock::mutex::MutexBackend,
        static_lock_class,
        GlobalLockBackend,
        LockClassKey, //
    },
};

/// What `probe_device` looks things up in. Locked inside the core's probe mutex.
pub(crate) struct Registry<D: Driver> {
    pub(crate) units: KVec<UnitRef<D>>,
    pub(crate) groups: Groups<D>,
    pub(crate) declined: Declined,
}

impl<D: Driver> Registry<D> {
    pub(crate) const fn new() -> Self {
        Self {
            units: KVec::new(),
            groups: Groups::new(),
            declined: Declined(KVec::new()),
        }
    }

    /// Whether the device has to be left alone, because a driver is bound to it: its
    /// DMA goes on with the addresses that it was set up with, so no domain may be
    /// attached under it; and the core warns about late probes.
    pub(crate) fn decline(&mut self, dev: &Device) -> bool {
        let Some(function) = Function::from_device(dev) else {
            return false;
        };
        if !function.has_driver() {
            return false;
        }
        // For want of memory the report is short by one line; nothing else.
        let id = function.source_id();
        if !self.declined.0.contains(&id) {
            let _ = self.declined.0.push(id, GFP_KERNEL);
        }
        true
    }
}

/// Devices that were bound before the driver was loaded.
pub(crate) struct Declined(KVec<SourceId>);

impl Declined {
    pub(crate) fn take(&mut self) -> Self {
        Self(core::mem::take(&mut self.0))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Declined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, id) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { ", " };
            write!(f, "{separator}{id}")?;
        }
        Ok(())
    }
}

/// The lock of a driver's [`Registry`].
pub(crate) struct RegistryLock<D: Driver>(PhantomData<D>);

impl<D: Driver> GlobalLockBackend for RegistryLock<D> {
    const NAME: &'static CStr = c"iommu registry";
    type Item = Registry<D>;
    type Backend = MutexBackend;

    fn get_lock_class() -> Pin<&'static LockClassKey> {
        static_lock_class!()
    }
}
