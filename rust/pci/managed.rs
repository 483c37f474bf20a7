// SPDX-License-Identifier: GPL-2.0

//! PCI drivers that manage DMA themselves.

use crate::bindings;
use core::marker::PhantomData;
use kernel::{
    driver::{
        DriverLayout,
        RegistrationOps, //
    },
    pci::{
        Adapter,
        Driver, //
    },
    prelude::*,
    types::Opaque,
    ThisModule, //
};

/// Registers a PCI driver as one that manages DMA itself (`driver_managed_dma`), as
/// vfio-pci is: `Registration<ManagedDma<T>>` instead of `Registration<pci::Adapter<T>>`.
///
/// The bus does not make such a driver a user of the group's default domain when it is
/// bound. So the group can still be claimed, and the driver must not do DMA, nor use the
/// DMA API, except through what it attaches with a [`DmaOwner`](crate::owner::DmaOwner).
pub struct ManagedDma<T: Driver>(PhantomData<T>);

// SAFETY: The layout is that of the adapter, which vouches for the same.
unsafe impl<T: Driver> DriverLayout for ManagedDma<T> {
    type DriverType = <Adapter<T> as DriverLayout>::DriverType;
    type DriverData<'bound> = <Adapter<T> as DriverLayout>::DriverData<'bound>;
    const DEVICE_DRIVER_OFFSET: usize = Adapter::<T>::DEVICE_DRIVER_OFFSET;
}

// SAFETY: Both functions are the adapter's; only a flag is set before.
unsafe impl<T: Driver> RegistrationOps for ManagedDma<T> {
    unsafe fn register(
        reg: &Opaque<Self::DriverType>,
        name: &'static CStr,
        module: &'static ThisModule,
    ) -> Result {
        let driver: *mut bindings::pci_driver = reg.get();
        // SAFETY: By the contract the driver stays where it is; it is not registered yet,
        // so that nobody else uses it. The adapter leaves this field as it is.
        unsafe { (*driver).driver_managed_dma = true };
        // SAFETY: The caller's contract is the same.
        unsafe { Adapter::<T>::register(reg, name, module) }
    }

    unsafe fn unregister(reg: &Opaque<Self::DriverType>) {
        // SAFETY: The caller's contract is the same.
        unsafe { Adapter::<T>::unregister(reg) };
    }
}
