// SPDX-License-Identifier: GPL-2.0

//! Taking PCI Express ports away from their driver while an IOMMU is registered.
//!
//! The driver of root and switch ports, `pcieport`, is built into the kernel and bound at boot. The
//! IOMMU core warns about devices that are bound before it probes them; but ports have to be
//! probed, because `pci_device_group()` finds groups by way of the ports above a function. So ports
//! are unbound before the registration and bound again after it.

use super::{
    for_each_function,
    hold::Held,
    Function,
    OwnedFunction, //
};
use crate::{
    bindings,
    raw, //
};
use kernel::{
    dev_warn,
    error::to_result,
    ffi::{
        c_int,
        c_void, //
    },
    prelude::*, //
};

/// The name of the ports' driver.
pub(crate) const DRIVER: &str = "pcieport";
const NAME: &CStr = c"pcieport";

/// Ports that have been unbound from `pcieport`, until this is dropped.
///
/// Functions behind a port go on working meanwhile: the port is kept enabled, or `pcieport` would
/// turn its bus mastering off as it lets go of it, and with that the DMA of everything behind it.
/// Native hotplug, AER and PME are out of service; `pciehp` looks at its slot when it comes back.
///
/// Unbinding and binding take the lock of each port's device, and sleep. So neither may be done in
/// a callback of the driver core or with a lock held that is taken in one: `iommu_ops`, bus
/// notifiers, `probe` and `remove` of PCI drivers.
pub struct ReleasedPorts {
    ports: KVec<OwnedFunction>,
}

impl ReleasedPorts {
    /// Unbinds every port that is bound to `pcieport` and for which `filter` holds.
    ///
    /// Errors: `ENOMEM`, or why a port could not be kept enabled. What was unbound is bound again
    /// then.
    ///
    /// Context: may sleep; see the type for locks.
    pub fn release(filter: impl Fn(&Function<'_>) -> bool) -> Result<Self> {
        let Some(driver) = PortDriver::find() else {
            return Ok(Self { ports: KVec::new() });
        };
        let found = driver.bound_ports(filter)?;
        let mut this = Self {
            ports: KVec::with_capacity(found.len(), GFP_KERNEL)?,
        };
        for port in found {
            if driver.is_bound_to(port.get()) {
                this.release_one(port)?;
            }
        }
        Ok(this)
    }

    /// Whether all are still released: somebody may have bound one by hand, or have it found
    /// anew, before `held` was taken.
    ///
    /// Errors: `EBUSY`, with a line that names the port.
    pub fn check(&self, _held: &Held) -> Result {
        for_each_function(|function| {
            if is_port(function) {
                pr_err!("{function}: bound to pcieport again, try again\n");
                return Err(EBUSY);
            }
            Ok(())
        })
    }

    fn release_one(&mut self, port: OwnedFunction) -> Result {
        let pdev = port.get().as_raw();
        let dev = raw::as_raw(port.get().as_device());
        self.ports.reserve(1, GFP_KERNEL)?;
        // SAFETY: Valid, from the reference. Undone in `drop`.
        to_result(unsafe { bindings::pci_enable_device(pdev) })?;
        self.ports.push(port, GFP_KERNEL)?;
        // SAFETY: Valid: `self` has the reference now. The caller may sleep and holds no device
        // lock, by the contract of `release`.
        unsafe { bindings::device_release_driver(dev) };
        Ok(())
    }
}

impl Drop for ReleasedPorts {
    /// Binds the ports again, in the order in which they were first bound.
    fn drop(&mut self) {
        for port in &self.ports {
            let port = port.get();
            // SAFETY: Valid, from the reference. The caller may sleep and holds no device lock, by
            // the type's contract.
            let bound = unsafe { bindings::device_attach(raw::as_raw(port.as_device())) };
            if bound == 1 {
                // SAFETY: Valid, and enabled by `release_one`. The driver has enabled it too, by
                // now.
                unsafe { bindings::pci_disable_device(port.as_raw()) };
            } else {
                // It stays enabled, for what is behind it.
                dev_warn!(
                    port.as_device(),
                    "the port's driver did not come back ({bound})\n"
                );
            }
        }
    }
}

/// Whether the function is bound to `pcieport` now.
pub(crate) fn is_port(function: Function<'_>) -> bool {
    PortDriver::find().is_some_and(|driver| driver.is_bound_to(function))
}

/// The driver `pcieport`.
///
/// # Invariants
///
/// It is registered, and stays: it is part of the kernel image.
struct PortDriver(*mut bindings::device_driver);

impl PortDriver {
    /// `None` if the kernel was told not to use it (`pcie_ports=compat`).
    fn find() -> Option<Self> {
        // SAFETY: A string, and a static bus.
        let driver =
            unsafe { bindings::driver_find(NAME.as_char_ptr(), &raw const bindings::pci_bus_type) };
        // INVARIANT: CONFIG_PCIEPORTBUS cannot be a module, and nothing unregisters the driver.
        (!driver.is_null()).then_some(Self(driver))
    }

    /// Whether the port is bound to this driver now.
    fn is_bound_to(&self, port: Function<'_>) -> bool {
        core::ptr::eq(raw::driver(port.as_device()), self.0)
    }

    /// The functions bound to this driver for which `filter` holds, in the order of binding.
    fn bound_ports<F: Fn(&Function<'_>) -> bool>(&self, filter: F) -> Result<KVec<OwnedFunction>> {
        let mut search = Search {
            filter,
            found: KVec::new(),
        };
        // SAFETY: The driver is registered, by the type invariant; `search` is what
        // `search_callback` of the same type expects, and outlives the call.
        to_result(unsafe {
            bindings::driver_for_each_device(
                self.0,
                core::ptr::null_mut(),
                (&raw mut search).cast(),
                Some(search_callback::<F>),
            )
        })?;
        Ok(search.found)
    }
}

struct Search<F> {
    filter: F,
    found: KVec<OwnedFunction>,
}

/// # Safety
///
/// `dev` is a device with a reference held over the call; `data` is a `Search<F>` that nobody else
/// uses.
unsafe extern "C" fn search_callback<F: Fn(&Function<'_>) -> bool>(
    dev: *mut bindings::device,
    data: *mut c_void,
) -> c_int {
    // SAFETY: By the contract.
    let search = unsafe { &mut *data.cast::<Search<F>>() };
    // SAFETY: By the contract.
    let dev = unsafe { raw::device(dev) };
    let Some(port) = Function::from_device(dev) else {
        return 0;
    };
    if !(search.filter)(&port) {
        return 0;
    }
    match search.found.push(port.to_owned(), GFP_KERNEL) {
        Ok(()) => 0,
        Err(_) => ENOMEM.to_errno(),
    }
}
