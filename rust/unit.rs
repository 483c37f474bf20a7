// SPDX-License-Identifier: GPL-2.0

//! Remapping units, how they are found, and what a driver sees of a new device.

use crate::{
    bindings,
    driver::Driver,
    named,
    pci::Function,
    pt::PageTable,
    raw, //
};
use core::ops::Deref;
use kernel::{
    device::Device,
    prelude::*,
    str::CString,
    sync::{
        atomic::Atomic,
        Arc,
        Mutex,
        MutexGuard,
        SetOnce, //
    },
    types::Opaque, //
};

/// A remapping unit: the driver's part and the core's `struct iommu_device`.
#[pin_data]
pub struct Unit<D: Driver> {
    #[pin]
    hw: Opaque<bindings::iommu_device>,
    #[pin]
    order: Mutex<()>,
    #[pin]
    inner: D::Unit,
    /// As sysfs has it.
    name: SetOnce<CString>,
    /// How often a table that it uses became larger.
    grown: Atomic<u64>,
}

// SAFETY: `hw` is the core's, which locks it; `D::Unit` is `Send` by its bound.
unsafe impl<D: Driver> Send for Unit<D> {}
// SAFETY: As above, and `D::Unit` is `Sync` by its bound.
unsafe impl<D: Driver> Sync for Unit<D> {}

impl<D: Driver> Unit<D> {
    /// Its name in messages. Units that endpoints are attached to have one.
    pub(crate) fn name(&self) -> &CStr {
        self.name.as_ref().map_or(c"?", |name| name)
    }

    /// Names it, once. Errors: `ENOMEM`.
    pub(crate) fn set_name(&self, prefix: &CStr, number: usize) -> Result<&CStr> {
        self.name
            .populate(CString::try_from_fmt(fmt!("{prefix}{number}"))?);
        Ok(self.name())
    }

    pub(crate) fn grown(&self) -> &Atomic<u64> {
        &self.grown
    }

    pub(crate) fn as_raw(&self) -> *mut bindings::iommu_device {
        self.hw.get()
    }

    /// For a unit that keeps no table: held from where it is decided what an endpoint is to be on until the unit
    /// has answered.
    ///
    /// Endpoints may share an id, and the unit has to be told in the order of the decisions. The core's attaches
    /// take turns in a group; parking and the end of a standby entry come without its lock. Entries in memory
    /// need nothing of the kind, as the store is part of the decision.
    ///
    /// Context: may sleep.
    pub(crate) fn in_order(&self) -> Option<MutexGuard<'_, ()>> {
        D::Table::IS_REMOTE.then(|| self.order.lock())
    }

    /// Whether it has this device in sysfs. For units in the registry: these have one.
    pub(crate) fn is_named_by(&self, dev: &Device) -> bool {
        // SAFETY: Ours. Written before the unit comes into the registry, and after it was taken out.
        let named = unsafe { (*self.hw.get()).dev };
        core::ptr::eq(named, raw::as_raw(dev))
    }
}

impl<D: Driver> Deref for Unit<D> {
    type Target = D::Unit;

    fn deref(&self) -> &D::Unit {
        &self.inner
    }
}

/// A counted reference to a unit.
pub struct UnitRef<D: Driver>(Arc<Unit<D>>);

impl<D: Driver> UnitRef<D> {
    /// Wraps a driver's unit. Context: may sleep. Errors: `ENOMEM`, and those of `inner`.
    pub fn new(inner: impl PinInit<D::Unit, Error>) -> Result<Self> {
        Ok(Self(Arc::pin_init(
            try_pin_init!(Unit {
                hw: Opaque::new(pin_init::zeroed()),
                order <- named::mutex!((), "iommu endpoint order"),
                inner <- inner,
                name: SetOnce::new(),
                grown: Atomic::new(0),
            }? Error),
            GFP_KERNEL,
        )?))
    }

    pub(crate) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<D: Driver> Clone for UnitRef<D> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<D: Driver> Deref for UnitRef<D> {
    type Target = Unit<D>;

    fn deref(&self) -> &Unit<D> {
        &self.0
    }
}

/// A device that the core asks about.
pub struct Probing<'a, D: Driver> {
    dev: &'a Device,
    units: &'a [UnitRef<D>],
}

impl<'a, D: Driver> Probing<'a, D> {
    pub(crate) fn new(dev: &'a Device, units: &'a [UnitRef<D>]) -> Self {
        Self { dev, units }
    }

    /// The device as a PCI function; `ENODEV` if it is none.
    pub fn pci(&self) -> Result<Function<'a>> {
        Function::from_device(self.dev).ok_or(ENODEV)
    }

    /// The first registered unit for which `responsible` holds; `ENODEV` if none is.
    pub fn find_unit(&self, responsible: impl Fn(&D::Unit) -> bool) -> Result<UnitRef<D>> {
        self.units
            .iter()
            .find(|unit| responsible(unit))
            .cloned()
            .ok_or(ENODEV)
    }
}
