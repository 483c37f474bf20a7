// SPDX-License-Identifier: GPL-2.0

//! Keeping drivers away from endpoints while units go.
//!
//! `iommu_device_unregister()` takes the domains from under whoever uses them. Who wants to
//! unregister has to make sure that nobody does, and that nobody starts to meanwhile.

use crate::{
    driver::Driver,
    endpoint::State,
    group_ref::GroupRef,
    pci::{
        self,
        hold::Held,
        ports,
        Function, //
    },
    registration::Registration,
    unit::UnitRef, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::Relaxed,
        Arc, //
    }, //
};

/// No endpoint has a driver, and none gets one while this lives; nor does any function come
/// or go.
///
/// What may not be done under it is what may not be done under [`Held`].
pub struct Frozen(Held);

/// Whether an endpoint is in nobody's hands. Errors: `EBUSY`, with a message.
fn check_idle(function: Function<'_>) -> Result {
    if function.has_driver() {
        pr_info!("{function}: has a driver, unbind it first\n");
        return Err(EBUSY);
    }
    if GroupRef::find(function.as_device()).is_some_and(|group| group.is_claimed()) {
        pr_info!("{function}: its group is claimed\n");
        return Err(EBUSY);
    }
    Ok(())
}

/// Calls `visitor` for every endpoint of `D`.
fn for_each_endpoint<D: Driver>(mut visitor: impl FnMut(Function<'_>) -> Result) -> Result {
    let registry = D::ops().registry()?;
    pci::for_each_function(|function| {
        let found = registry.lock().groups.find(function.as_device());
        match found {
            Some(_) => visitor(function),
            None => Ok(()),
        }
    })
}

/// Whether a registration could be [ended](crate::registration::Registration::end) once its
/// ports are [released](ports::ReleasedPorts); a look in advance, so that they need not be
/// if it cannot.
///
/// Errors: `EBUSY`, with one line that names the first device which is in the way.
///
/// Context: may sleep.
pub fn look<D: Driver>(_registration: &Registration<D>) -> Result {
    for_each_endpoint::<D>(|function| {
        if ports::is_port(function) {
            return Ok(());
        }
        check_idle(function)
    })
}

/// Whether somebody holds a domain that no group has for its default one: user space can,
/// without a device, and so can who has a [`UserDomain`](crate::consumer::UserDomain).
///
/// Errors: `EBUSY`, with a message; `ENOMEM`.
fn check_domains<D: Driver>() -> Result {
    let mut attached = KVec::new();
    for group in D::ops().registry()?.lock().groups.iter() {
        for device in group.members.lock().iter() {
            if let State::Paging(at) = &device.place.lock().state {
                let domain = Arc::as_ptr(&at.domain).addr();
                if !attached.contains(&domain) {
                    attached.push(domain, GFP_KERNEL)?;
                }
            }
        }
    }
    if D::ops().domains().load(Relaxed) > attached.len() {
        pr_info!("a domain is still held by user space or a driver, or was leaked\n");
        return Err(EBUSY);
    }
    Ok(())
}

/// Units that the core's probing does not find, so that nothing becomes an endpoint. They
/// come back with the drop.
struct Hidden<D: Driver>(KVec<UnitRef<D>>);

impl<D: Driver> Hidden<D> {
    fn new() -> Result<Self> {
        let mut registry = D::ops().registry()?.lock();
        Ok(Self(core::mem::take(&mut registry.units)))
    }
}

impl<D: Driver> Drop for Hidden<D> {
    fn drop(&mut self) {
        if let Ok(registry) = D::ops().registry() {
            registry.lock().units = core::mem::take(&mut self.0);
        }
    }
}

impl Frozen {
    /// Freezes the endpoints of `D`.
    ///
    /// Errors: `EBUSY`, with one line that names the first device which is in the way: a
    /// driver is bound to it or just coming or going, or its group's DMA is claimed; or
    /// with one that says that a domain is held; `ENOMEM`.
    ///
    /// Context: may sleep; no device lock and no rescan lock may be held.
    pub(crate) fn new<D: Driver>() -> Result<Self> {
        let mut held = Held::none();
        // That does not keep virtual functions from being added. On an error the units come
        // back before the rescan lock is given back.
        let mut units = Hidden::<D>::new()?;
        for_each_endpoint::<D>(|function| {
            held.add(function).inspect_err(|_| {
                pr_info!("{function}: in use by the driver core, try again\n");
            })?;
            check_idle(function)
        })?;
        check_domains::<D>()?;
        // They stay hidden.
        drop(core::mem::take(&mut units.0));
        Ok(Self(held))
    }

    pub(crate) fn held(&self) -> &Held {
        &self.0
    }
}
