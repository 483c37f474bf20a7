// SPDX-License-Identifier: GPL-2.0

//! Registering a driver's units with the IOMMU core.

use crate::{
    binding::Bindings,
    bindings,
    driver::Driver,
    freeze::Frozen,
    group::Member,
    holders::Reported,
    inject,
    ops::{
        self,
        Ops, //
    },
    pci::{
        for_each_function,
        hold::Held,
        notifier::PciNotifier,
        Function, //
    },
    policy::change,
    raw,
    registry::Registry,
    sysfs,
    unit::UnitRef, //
};
use kernel::{
    error::to_result,
    prelude::*, //
};

/// Whether the IOMMU core has the function, so that a domain decides on its DMA.
///
/// The answer holds for as long as nobody registers units or removes the device.
pub fn is_attached(function: Function<'_>) -> bool {
    // SAFETY: The reference keeps the device; the pointer is only compared.
    !unsafe { (*raw::as_raw(function.as_device())).iommu_group }.is_null()
}

/// What a driver's users may choose.
#[derive(Clone, Copy, Default)]
pub struct Choices {
    /// DMA through a group's default domain is blocked while none of its devices has a
    /// driver that uses the DMA API; not for devices that firmware uses too.
    pub park: bool,
}

/// A driver's units, registered.
///
/// [`end`](Self::end) releases every endpoint and unregisters the units. Dropping it does
/// the same; where that is not possible, since endpoints are in use, the units are leaked
/// and stay registered. A module is not unloaded then: the core refers to it for every
/// endpoint.
///
/// There is one registration of a driver at a time; a second one is refused with
/// `EBUSY`.
pub struct Registration<D: Driver> {
    units: KVec<UnitRef<D>>,
    named: usize,
    registered: usize,
    /// From before the first endpoint until after the last one.
    _notifier: Pin<KBox<PciNotifier<Bindings<D>>>>,
    _reported: Reported,
}

impl<D: Driver> Registration<D> {
    /// Registers all units; sysfs names them `prefix0`, `prefix1`, ...
    ///
    /// Translation may already be on. Endpoints are probed and attached before this
    /// returns, so whatever the driver's callbacks need must be there. Devices that
    /// have a driver are declined, and named in one message. Who has one is settled: `held`
    /// are [all](Held::all) functions that there are.
    ///
    /// Errors: `EBUSY`, `ENOMEM`, and what the core returns; everything is undone then.
    ///
    /// Context: may sleep; no other lock may be held that a callback takes. The result must
    /// not be dropped while `held` lives.
    pub fn new(
        held: &Held,
        prefix: &'static CStr,
        units: KVec<UnitRef<D>>,
        choices: Choices,
    ) -> Result<Self> {
        let registry = D::ops().registry()?;
        {
            let mut registry = registry.lock();
            if !registry.units.is_empty() {
                return Err(EBUSY);
            }
            registry.units.reserve(units.len(), GFP_KERNEL)?;
            registry.groups.park = choices.park;
            // SAFETY: Under the registry's lock; without units there are no devices, and the units below
            // are given none before this.
            unsafe { Ops::<D>::attributes().init::<D>() };
        }
        for (i, unit) in units.iter().enumerate() {
            if units.iter().take(i).any(|other| other.same(unit)) {
                return Err(EINVAL);
            }
        }
        let mut this = Self {
            units,
            named: 0,
            registered: 0,
            _notifier: PciNotifier::register(Bindings::new()?)?,
            _reported: Reported::new::<D>()?,
        };
        // Names before the registration: the core links every endpoint to its unit's.
        for (i, unit) in this.units.iter().enumerate() {
            let name = unit.set_name(prefix, i)?;
            // SAFETY: The unit is not registered yet, and stays in memory for as long
            // as `this` holds it; the attributes are static, and filled in above; the format takes a
            // string.
            to_result(unsafe {
                bindings::iommu_device_sysfs_add(
                    unit.as_raw(),
                    core::ptr::null_mut(),
                    Ops::<D>::attributes().of_unit(),
                    c"%s".as_char_ptr(),
                    name.as_char_ptr(),
                )
            })?;
            this.named += 1;
        }
        if let Err(e) = this.register() {
            // Nobody can have begun to use them; nor does anything find them from here on, which
            // could still be added by code that takes no lock.
            let hidden = core::mem::take(&mut registry.lock().units);
            this.unregister(held);
            drop(hidden);
            return Err(e);
        }

        this.for_each_endpoint(held, |member, function| {
            change::apply_default(member, function);
            sysfs::add(member, function);
        });
        let declined = registry.lock().declined.take();
        if !declined.is_empty() {
            pr_info!(
                "left alone, because a driver is bound: {declined}; remove and rescan to translate\n"
            );
        }
        Ok(this)
    }
}

impl<D: Driver> Registration<D> {
    fn register(&mut self) -> Result {
        let registry = D::ops().registry()?;
        for unit in &self.units {
            // Not found before it is registered: until then the core's part of it is not
            // filled in, and registering another unit probes the devices of all.
            registry.lock().units.push(unit.clone(), GFP_KERNEL)?;
            if let Some(reports) = D::reports(unit) {
                reports.start();
            }
            // SAFETY: `self` keeps the unit until its drop, which unregisters it.
            unsafe { ops::register(unit) }?;
            self.registered += 1;
        }
        Ok(())
    }

    /// Releases every endpoint and unregisters the units. No driver can bind to what was an
    /// endpoint until the result is dropped: what its DMA depends on can be changed.
    ///
    /// Errors: `EBUSY` or `ENOMEM` as for [`Frozen::new`], and nothing has changed.
    ///
    /// Context: may sleep; no device lock and no rescan lock may be held.
    pub fn end(mut self) -> Result<Frozen, (Self, Error)> {
        if let Err(error) = inject::reach("shutdown.lock", None) {
            return Err((self, error));
        }
        match Frozen::new::<D>() {
            Ok(frozen) => {
                self.unregister(frozen.held());
                let _ = inject::reach("shutdown.locked", None);
                Ok(frozen)
            }
            Err(error) => Err((self, error)),
        }
    }

    fn for_each_endpoint(&self, _held: &Held, f: impl Fn(&Member<D>, &Function<'_>)) {
        let visited = for_each_function(|function| {
            let registry = D::ops().registry()?;
            let member = registry.lock().groups.find(function.as_device());
            if let Some(member) = member {
                f(&member, &function);
            }
            Ok(())
        });
        // Only the visitor fails, and the registry was locked before.
        let _ = visited;
    }

    /// Nobody uses the endpoints, nor begins to: all are held and have no driver.
    fn unregister(&mut self, held: &Held) {
        self.for_each_endpoint(held, sysfs::remove);
        for unit in self.units.iter().take(self.registered) {
            // SAFETY: The first `registered` units are registered.
            unsafe { ops::unregister(unit) };
        }
        self.registered = 0;
        // Nothing that a report could be of is there any more.
        self.stop_reports();
    }

    /// One that is under way runs the module's code.
    fn stop_reports(&self) {
        for reports in self.units.iter().filter_map(|unit| D::reports(unit)) {
            reports.stop();
        }
    }
}

impl<D: Driver> Drop for Registration<D> {
    fn drop(&mut self) {
        // First: a report holds the domain that it is for.
        self.stop_reports();
        if self.registered > 0 {
            match Frozen::new::<D>() {
                Ok(frozen) => self.unregister(frozen.held()),
                Err(_) => {
                    pr_err!("units are in use: they stay registered\n");
                    core::mem::forget(core::mem::take(&mut self.units));
                    return;
                }
            }
        }
        for unit in self.units.iter().take(self.named) {
            // SAFETY: The first `named` units have a sysfs device, and are unregistered.
            unsafe { bindings::iommu_device_sysfs_remove(unit.as_raw()) };
        }
        let rest = D::ops()
            .registry()
            .map(|registry| core::mem::replace(&mut *registry.lock(), Registry::new()));
        drop(rest);
    }
}
