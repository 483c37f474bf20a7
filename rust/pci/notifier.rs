// SPDX-License-Identifier: GPL-2.0

//! Being told of PCI functions that come, go, are bound and unbound.

use super::Function;
use crate::{
    bindings,
    raw, //
};
use core::{
    marker::PhantomPinned,
    ptr::NonNull, //
};
use kernel::{
    container_of,
    device::Device,
    error::to_result,
    ffi::{
        c_int,
        c_ulong,
        c_void, //
    },
    prelude::*,
    sync::Arc,
    types::{
        ForeignOwnable,
        Opaque, //
    },
};

/// Lower numbers are told later. The IOMMU core's own notifier has 0, so it has a function before
/// [`PciObserver::added`] and has released it before [`PciObserver::removed`]. For binding and unbinding the core has no notifier, so order
/// does not matter there.
const PRIORITY: c_int = -1;

/// A driver that is about to probe a function.
pub struct NewDriver<'a> {
    /// Its name.
    pub name: &'a CStr,
    /// Whether it claims the function's DMA by itself, instead of using the DMA API.
    pub manages_dma: bool,
    dev: &'a Device,
}

impl<'a> NewDriver<'a> {
    /// # Safety
    ///
    /// The device's lock is held during `'a`, and a driver is being bound to it.
    unsafe fn of(function: Function<'a>) -> Option<Self> {
        let driver = NonNull::new(raw::driver(function.as_device()).cast_mut())?;
        // SAFETY: The driver stays while it is bound, which the device's lock keeps as it is;
        // drivers on this bus are all embedded in a `pci_driver`.
        let driver = unsafe { container_of!(driver.as_ptr(), bindings::pci_driver, driver) };
        // SAFETY: As above; fixed when the driver is registered.
        let manages_dma = unsafe { (*driver).driver_managed_dma };
        // SAFETY: As above.
        let name = unsafe { (*driver).driver.name };
        Some(Self {
            // SAFETY: As above: a string that is as long-lived as the driver.
            name: unsafe { CStr::from_char_ptr(name) },
            manages_dma,
            dev: function.as_device(),
        })
    }

    /// Has `end` dropped when the driver is gone, after everything that the driver core frees
    /// on its behalf; also when its probe fails.
    ///
    /// Errors: `ENOMEM`, and `end` is dropped at once.
    ///
    /// Context: may sleep. The drop happens with the device's lock held, and may sleep.
    pub(crate) fn at_end<T: Send + 'static>(&self, end: KBox<T>) -> Result {
        let data = end.into_foreign();
        // SAFETY: The device is registered and its lock is held, by the contract of `of`. What
        // is added now is run after whatever the driver adds. `data` is what `drop_end` of the
        // same type takes.
        let added = unsafe {
            bindings::__devm_add_action(
                raw::as_raw(self.dev),
                Some(drop_end::<T>),
                data.cast(),
                c"iommu dma_cleanup".as_char_ptr(),
            )
        };
        to_result(added).inspect_err(|_| {
            // SAFETY: It was not added, so it is still ours.
            drop(unsafe { KBox::<T>::from_foreign(data) });
        })
    }
}

/// # Safety
///
/// `data` came from `KBox::<T>::into_foreign`, and is given up.
unsafe extern "C" fn drop_end<T>(data: *mut c_void) {
    // SAFETY: By the contract.
    drop(unsafe { KBox::<T>::from_foreign(data.cast()) });
}

/// What happens to PCI functions.
///
/// Observers cannot stop what happens, and must not change who is bound or attached.
///
/// Context of all: may sleep. The driver core holds the function's device lock for those that say
/// so; taking it there, or binding and unbinding anything, deadlocks. Several functions' events
/// run at the same time.
pub trait PciObserver: Send + Sync + 'static {
    /// The function is on its bus, and the IOMMU core has seen it. No driver is bound yet. Device
    /// lock not held.
    fn added(&self, _function: &Function<'_>) {}

    /// The function is about to leave its bus; a driver may be bound, but none binds any more. Device
    /// lock not held.
    fn will_remove(&self, _function: &Function<'_>) {}

    /// The function is gone from its bus, and the IOMMU core has released it. It is unbound. Ids
    /// and bridges can still be asked for, its configuration space not. Device lock not held.
    fn removed(&self, _function: &Function<'_>) {}

    /// A driver is about to probe; the bus has set DMA up for it. Device lock held.
    fn will_bind(&self, _function: &Function<'_>, _driver: &NewDriver<'_>) {}

    /// A driver's probe has succeeded. Device lock held.
    fn bound(&self, _function: &Function<'_>) {}

    /// A driver was unbound, and all is freed that the driver core had to free for it. Not
    /// called for a driver whose probe failed. Device lock held.
    fn unbound(&self, _function: &Function<'_>) {}
}

/// A registered [`PciObserver`]; dropping it ends the registration.
///
/// Dropping waits for calls that are under way, so it must not be done from one of them, nor with a
/// lock held that one of them takes. As with every registration of callbacks, the module that
/// forgets it instead of dropping it must not be unloaded.
///
/// # Invariants
///
/// `block` is on the PCI bus' chain until the drop.
#[pin_data(PinnedDrop)]
pub struct PciNotifier<T: PciObserver> {
    block: Opaque<bindings::notifier_block>,
    observer: Arc<T>,
    #[pin]
    _pin: PhantomPinned,
}

// SAFETY: `block` is only touched by the chain, which locks it; any thread may unregister it.
unsafe impl<T: PciObserver> Send for PciNotifier<T> {}
// SAFETY: Shared references give access to the observer only, which is `Sync`.
unsafe impl<T: PciObserver> Sync for PciNotifier<T> {}

impl<T: PciObserver> PciNotifier<T> {
    /// Registers an observer. It is told of what happens from now on, not of what is there.
    ///
    /// Errors: `ENOMEM`, or what the bus returns.
    ///
    /// Context: may sleep.
    pub fn register(observer: Arc<T>) -> Result<Pin<KBox<Self>>> {
        // INVARIANT: If this succeeds, the block is on the chain.
        KBox::try_pin_init(
            try_pin_init!(&this in Self {
                block: Opaque::new(bindings::notifier_block {
                    notifier_call: Some(notify::<T>),
                    next: core::ptr::null_mut(),
                    priority: PRIORITY,
                }),
                observer,
                _pin: PhantomPinned,
                _: {
                    // SAFETY: `this` is being initialised; only the place is formed.
                    let block = unsafe { &raw mut (*this.as_ptr()).block };
                    // SAFETY: The bus is static. The block and what its callback uses are
                    // initialised, as this comes last, and stay in place until `drop` has taken
                    // the block off the chain.
                    to_result(unsafe {
                        bindings::bus_register_notifier(
                            &raw const bindings::pci_bus_type,
                            Opaque::cast_into(block),
                        )
                    })?;
                },
            }? Error),
            GFP_KERNEL,
        )
    }
}

#[pinned_drop]
impl<T: PciObserver> PinnedDrop for PciNotifier<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: On the chain, by the type invariant; waits for callbacks, so that none uses
        // `self` afterwards. It fails only for a block that is not on the chain.
        unsafe {
            bindings::bus_unregister_notifier(&raw const bindings::pci_bus_type, self.block.get())
        };
    }
}

/// # Safety
///
/// `block` is that of a [`PciNotifier<T>`], on the chain of the PCI bus; `data` is one of the bus'
/// devices, to which a reference is held over the call.
unsafe extern "C" fn notify<T: PciObserver>(
    block: *mut bindings::notifier_block,
    action: c_ulong,
    data: *mut c_void,
) -> c_int {
    let block = Opaque::cast_from(block);
    // SAFETY: By the contract.
    let this = unsafe { container_of!(block, PciNotifier<T>, block) };
    // SAFETY: It is on the chain, so its drop has not gone past unregistering.
    let this = unsafe { &*this };
    // SAFETY: By the contract.
    let dev = unsafe { raw::device(data.cast()) };
    if let (Some(function), Ok(action)) = (Function::from_device(dev), u32::try_from(action)) {
        let observer = &*this.observer;
        match action {
            bindings::bus_notifier_event_BUS_NOTIFY_ADD_DEVICE => observer.added(&function),
            bindings::bus_notifier_event_BUS_NOTIFY_DEL_DEVICE => observer.will_remove(&function),
            bindings::bus_notifier_event_BUS_NOTIFY_REMOVED_DEVICE => observer.removed(&function),
            bindings::bus_notifier_event_BUS_NOTIFY_BIND_DRIVER => {
                // SAFETY: The driver core holds the device's lock over this event, see
                // really_probe().
                if let Some(driver) = unsafe { NewDriver::of(function) } {
                    observer.will_bind(&function, &driver);
                }
            }
            bindings::bus_notifier_event_BUS_NOTIFY_BOUND_DRIVER => observer.bound(&function),
            bindings::bus_notifier_event_BUS_NOTIFY_UNBOUND_DRIVER => observer.unbound(&function),
            _ => {}
        }
    }
    bindings::NOTIFY_DONE as c_int
}
