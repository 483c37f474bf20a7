// SPDX-License-Identifier: GPL-2.0

//! Drivers of endpoints that come and go.
//!
//! What is seen here decides nothing about ownership, which is the IOMMU core's; it starts
//! what has to be done for an endpoint when its driver has gone.

use crate::{
    driver::Driver,
    endpoint::Bound,
    group::Member,
    inject,
    pci::{
        notifier::{
            NewDriver,
            PciObserver, //
        },
        Function, //
    },
    policy::change,
    sysfs, //
};
use core::marker::PhantomData;
use kernel::{
    device::Device,
    prelude::*,
    str::CString,
    sync::{
        aref::ARef,
        Arc, //
    },
};

/// Sees drivers come and go.
pub(crate) struct Bindings<D: Driver>(PhantomData<fn() -> D>);

impl<D: Driver> Bindings<D> {
    pub(crate) fn new() -> Result<Arc<Self>> {
        Ok(Arc::new(Self(PhantomData), GFP_KERNEL)?)
    }

    fn find(function: &Function<'_>) -> Option<Member<D>> {
        let registry = D::ops().registry().ok()?.lock();
        registry.groups.find(function.as_device())
    }
}

/// Dropped by the driver core when the driver has gone.
struct End<D: Driver>(Member<D>, ARef<Device>);

impl<D: Driver> Drop for End<D> {
    fn drop(&mut self) {
        self.0.unbind(&self.1);
    }
}

impl<D: Driver> PciObserver for Bindings<D> {
    fn added(&self, function: &Function<'_>) {
        if let Some(member) = Self::find(function) {
            change::apply_default(&member, function);
            sysfs::add(&member, function);
        }
    }

    fn will_remove(&self, function: &Function<'_>) {
        if let Some(member) = Self::find(function) {
            sysfs::remove(&member, function);
        }
    }

    fn will_bind(&self, function: &Function<'_>, driver: &NewDriver<'_>) {
        let Some(member) = Self::find(function) else {
            return;
        };
        // The last one may have gone without a notice, see below.
        member.unbind(function.as_device());
        // Not yet known to be bound: should `End` be dropped here, that does nothing.
        let end = End(member.clone(), function.as_device().into());
        let end_is_told = inject::reach("bind.end", Some(function.as_device()))
            .and_then(|()| Ok(KBox::new(end, GFP_KERNEL)?))
            .and_then(|end| driver.at_end(end))
            .is_ok();
        if !end_is_told {
            // Nobody can be kept from binding here.
            pr_warn!(
                "{}: no memory: what {} leaves behind is cleaned up when it is unbound only\n",
                &*member.device.name,
                driver.name
            );
        }
        let bound = Bound {
            driver: CString::try_from(driver.name).ok(),
            manages_dma: driver.manages_dma,
            end_is_told,
        };
        member.bind(bound);
        change::start(&member, function);
    }

    fn bound(&self, function: &Function<'_>) {
        if let Some(member) = Self::find(function) {
            change::started(&member, function);
        }
    }

    fn unbound(&self, function: &Function<'_>) {
        if let Some(member) = Self::find(function) {
            member.unbind(function.as_device());
        }
    }
}
