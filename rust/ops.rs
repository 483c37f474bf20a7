// SPDX-License-Identifier: GPL-2.0

//! `iommu_ops`: from the core's C callbacks to safe code, and nothing else.
//!
//! Which locks the core holds at each callback is in `Documentation/contexts.rst`.

use crate::{
    attach, bindings,
    domain::Domain,
    domain_ops,
    driver::{
        Capability,
        Driver, //
    },
    endpoint::{
        Device,
        Endpoint, //
    },
    group::Merged,
    inject,
    late::LateLock,
    pci::{
        merged::How,
        Function, //
    },
    policy::{
        change,
        dma_ops, //
    },
    pt::PageTable,
    raw,
    registry::{
        Registry,
        RegistryLock, //
    },
    resv::{
        self,
        ResvList, //
    },
    sysfs::Attributes,
    unit::{
        Probing,
        UnitRef, //
    },
};
use core::cell::UnsafeCell;
use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    prelude::*,
    sync::{
        atomic::Atomic,
        Arc,
        ArcBorrow,
        GlobalLock, //
    },
    types::ForeignOwnable,
    ModuleMetadata, //
};

/// The C operations of a driver, and what the core needs to find through them.
///
/// One static a driver, made by [`ops!`](crate::ops): the core takes domains to be
/// compatible when their operations have the same address.
pub struct Ops<D: Driver> {
    iommu: UnsafeCell<bindings::iommu_ops>,
    paging: UnsafeCell<bindings::iommu_domain_ops>,
    paging_announcing: UnsafeCell<bindings::iommu_domain_ops>,
    _identity_ops: UnsafeCell<bindings::iommu_domain_ops>,
    _blocked_ops: UnsafeCell<bindings::iommu_domain_ops>,
    identity: UnsafeCell<bindings::iommu_domain>,
    blocked: UnsafeCell<bindings::iommu_domain>,
    dma: UnsafeCell<bindings::dma_map_ops>,
    attributes: Attributes,
    registry: LateLock<RegistryLock<D>>,
    /// Paging domains that there are; those that were leaked count too.
    domains: Atomic<usize>,
    /// Up to which size the core allocates IOVAs fast, in bytes.
    optimal_size: Atomic<usize>,
}

// SAFETY: The operations are constant after `new`. What the core writes to the two
// domains, it locks itself. The registry is a lock.
unsafe impl<D: Driver> Sync for Ops<D> {}

impl<D: Driver> Ops<D> {
    /// Fills the operations in.
    ///
    /// # Safety
    ///
    /// The result is stored in the only static of this type, and `this` is that
    /// static's address. [`ops!`](crate::ops) sees to both.
    #[doc(hidden)]
    pub const unsafe fn new(this: *const Self) -> Self {
        // SAFETY: `this` is a static's address by the contract; only places are
        // formed here, nothing is read.
        let identity_ops = unsafe { &raw const (*this)._identity_ops }.cast();
        // SAFETY: As above.
        let blocked_ops = unsafe { &raw const (*this)._blocked_ops }.cast();
        // SAFETY: As above.
        let paging = unsafe { &raw const (*this).paging }.cast();
        // SAFETY: As above.
        let identity = unsafe { &raw const (*this).identity }.cast_mut().cast();
        // SAFETY: As above.
        let blocked = unsafe { &raw const (*this).blocked }.cast_mut().cast();

        Self {
            iommu: UnsafeCell::new(bindings::iommu_ops {
                capable: Some(capable::<D>),
                domain_alloc_paging_flags: Some(domain_alloc_paging_flags::<D>),
                probe_device: Some(probe_device::<D>),
                release_device: Some(release_device::<D>),
                device_group: Some(device_group::<D>),
                def_domain_type: Some(def_domain_type::<D>),
                get_resv_regions: Some(get_resv_regions::<D>),
                default_domain_ops: paging,
                owner: <D::OwnerModule as ModuleMetadata>::THIS_MODULE.as_ptr(),
                identity_domain: identity,
                blocked_domain: blocked,
                release_domain: blocked,
                ..pin_init::zeroed()
            }),
            paging: UnsafeCell::new(domain_ops::paging::<D>(false)),
            paging_announcing: UnsafeCell::new(domain_ops::paging::<D>(true)),
            _identity_ops: UnsafeCell::new(domain_ops::identity::<D>()),
            _blocked_ops: UnsafeCell::new(domain_ops::blocked::<D>()),
            identity: UnsafeCell::new(domain_ops::fixed_domain(
                bindings::IOMMU_DOMAIN_IDENTITY,
                identity_ops,
            )),
            blocked: UnsafeCell::new(domain_ops::fixed_domain(
                bindings::IOMMU_DOMAIN_BLOCKED,
                blocked_ops,
            )),
            dma: UnsafeCell::new(dma_ops::table::<D>()),
            attributes: Attributes::new(),
            // SAFETY: The lock's type belongs to this type, of which there is one static,
            // by the function's contract.
            registry: unsafe { LateLock::new(Registry::new()) },
            domains: Atomic::new(0),
            optimal_size: Atomic::new(usize::MAX),
        }
    }

    /// The registry. Errors: see [`LateLock::get`].
    pub(crate) fn registry(&'static self) -> Result<&'static GlobalLock<RegistryLock<D>>> {
        self.registry.get()
    }

    /// The operations of the DMA API for devices that map in a window.
    pub(crate) fn dma_ops() -> *const bindings::dma_map_ops {
        D::ops().dma.get()
    }

    /// The identity domain of all its devices.
    pub(crate) fn identity(&self) -> *mut bindings::iommu_domain {
        self.identity.get()
    }

    /// The blocked domain of all its devices.
    pub(crate) fn blocked(&self) -> *mut bindings::iommu_domain {
        self.blocked.get()
    }

    /// What the driver's devices have in sysfs.
    pub(crate) fn attributes() -> &'static Attributes {
        &D::ops().attributes
    }

    /// How many paging domains there are.
    pub(crate) fn domains(&self) -> &Atomic<usize> {
        &self.domains
    }

    /// Up to which size the core allocates IOVAs fast, in bytes: the same for all devices, once known.
    pub(crate) fn optimal_size(&self) -> &Atomic<usize> {
        &self.optimal_size
    }

    pub(crate) fn iommu_ops(&self) -> *const bindings::iommu_ops {
        self.iommu.get()
    }

    /// Operations of a paging domain; those that announce new mappings cost a call
    /// for every map.
    fn paging_ops(&self, announce: bool) -> *const bindings::iommu_domain_ops {
        if announce {
            self.paging_announcing.get()
        } else {
            self.paging.get()
        }
    }
}

/// Where a driver's operations are. Implemented by [`ops!`](crate::ops) only.
///
/// # Safety
///
/// `ops` returns the one static of its type.
pub unsafe trait HasOps: Sized {
    /// The static.
    fn ops() -> &'static Ops<Self>
    where
        Self: Driver;
}

/// Declares the static with a driver's operations.
///
/// ```ignore
/// iommu::ops!(static OPS: MyDriver);
/// ```
#[macro_export]
macro_rules! ops {
    (static $name:ident: $driver:ty) => {
        static $name: $crate::ops::Ops<$driver> =
            // SAFETY: It is this static's own address, and the only static of its type:
            // a second one would come with a second implementation of the trait.
            unsafe { $crate::ops::Ops::new(&raw const $name) };

        // SAFETY: As above.
        unsafe impl $crate::ops::HasOps for $driver {
            fn ops() -> &'static $crate::ops::Ops<Self> {
                &$name
            }
        }
    };
}

/// What `probe_device` stored.
///
/// # Safety
///
/// `dev` was probed by `D` and is not released during `'a`.
pub(crate) unsafe fn device<'a, D: Driver>(dev: *mut bindings::device) -> ArcBorrow<'a, Device<D>> {
    // SAFETY: A probed device has `dev->iommu` until it is released.
    let iommu = unsafe { (*dev).iommu };
    // SAFETY: As above; `priv` is written by `probe_device` only.
    let private = unsafe { (*iommu).priv_ };
    // SAFETY: `probe` stored the result of `into_foreign` of this type there, and only
    // `release_device` takes it back.
    unsafe { <Arc<Device<D>> as ForeignOwnable>::borrow(private) }
}

fn probe<D: Driver>(dev: &kernel::device::Device) -> Result<UnitRef<D>> {
    let mut registry = D::ops().registry()?.lock();
    if registry.decline(dev) {
        return Err(ENODEV);
    }
    inject::reach("probe", Some(dev))?;
    let (unit, facts, slot) = D::probe(&Probing::new(dev, &registry.units))
        // One device that cannot be driven must not keep the core from all others, and
        // anything but ENODEV would. The driver has said what is wrong with it.
        .map_err(|e| if e == ENOMEM { e } else { ENODEV })?;
    // The core uses what a registered unit has only.
    if !registry.units.iter().any(|known| known.same(&unit)) {
        return Err(ENODEV);
    }
    let endpoint = Endpoint::new(unit.clone(), facts, slot)?;
    let device = Device::new(dev, endpoint)?;
    inject::reach("probe.done", Some(dev))?;
    // SAFETY: The core calls probe_device() with iommu_probe_device_lock held, which is
    // what dev_iommu_priv_set() asks for; `dev->iommu` exists then.
    unsafe { bindings::dev_iommu_priv_set(raw::as_raw(dev), device.into_foreign()) };
    Ok(unit)
}

/// `iommu_ops::probe_device`.
///
/// # Safety
///
/// Called by the IOMMU core as this operation.
unsafe extern "C" fn probe_device<D: Driver>(
    dev: *mut bindings::device,
) -> *mut bindings::iommu_device {
    // SAFETY: The core passes a device that it holds a reference to.
    let dev = unsafe { raw::device(dev) };
    match probe::<D>(dev) {
        Ok(unit) => unit.as_raw(),
        Err(e) => e.to_ptr(),
    }
}

/// `iommu_ops::release_device`.
///
/// # Safety
///
/// Called by the IOMMU core as this operation.
unsafe extern "C" fn release_device<D: Driver>(dev: *mut bindings::device) {
    // SAFETY: The core releases only what was probed, and `dev->iommu` is there.
    let iommu = unsafe { (*dev).iommu };
    // SAFETY: As above.
    let private = unsafe { (*iommu).priv_ };
    // SAFETY: `probe` stored it; the core calls release_device() once, last, and no
    // other callback for the device runs or comes.
    let device = unsafe { <Arc<Device<D>> as ForeignOwnable>::from_foreign(private) };
    // SAFETY: The core holds a reference to it.
    attach::release(&device, unsafe { raw::device(dev) });
    if let Ok(registry) = D::ops().registry() {
        registry.lock().groups.leave(&device);
    }
}

/// Why the core has put a device into `group`, as far as there is memory to say it. Context: may sleep.
fn merged<D: Driver>(
    dev: &kernel::device::Device,
    group: *const bindings::iommu_group,
) -> KVec<Merged> {
    let mut all = KVec::new();
    if let Some(function) = Function::from_device(dev) {
        let in_group = |other: Function<'_>| {
            // SAFETY: The reference keeps the device; the pointer is only compared.
            let of_other = unsafe { (*raw::as_raw(other.as_device())).iommu_group };
            core::ptr::eq(of_other, group)
        };
        let note = |other: Function<'_>, how: How| {
            let merged = Merged {
                device: Device::<D>::identity_of(dev),
                with: Device::<D>::identity_of(other.as_device()),
                how,
            };
            Ok(all.push(merged, GFP_KERNEL)?)
        };
        // An attach does not fail for it.
        let _ = function.merged_by(in_group, note);
    }
    all
}

/// `iommu_ops::device_group`.
///
/// # Safety
///
/// Called by the IOMMU core as this operation.
unsafe extern "C" fn device_group<D: Driver>(
    dev: *mut bindings::device,
) -> *mut bindings::iommu_group {
    // SAFETY: The core passes a valid device, between probe_device() and attach.
    let group = unsafe { raw::device_group(dev) };
    if from_err_ptr(group).is_err() {
        return group;
    }
    // SAFETY: The device is probed.
    let device = unsafe { device::<D>(dev) };
    // SAFETY: The core holds a reference to it.
    let dev = unsafe { raw::device(dev) };
    let merged = merged::<D>(dev, group);
    // It says what firmware needs, by which a group with an aperture takes the device or not.
    let function = Function::from_device(dev).ok_or(ENODEV);
    // SAFETY: The device is probed, and not released before this returns.
    let regions = function.and_then(|function| unsafe { resv::regions(&function) });
    let joined = regions.and_then(|_| {
        let mut registry = D::ops().registry()?.lock();
        // Where the device's lock is not held (another IOMMU driver registers, and all devices
        // without a group are probed once more) a driver may have come since `probe` looked. The
        // notifier finds the device from here on.
        if registry.decline(dev) {
            return Err(ENODEV);
        }
        // SAFETY: device_group() gave us a reference, which the caller gets.
        unsafe { registry.groups.join(group, device.into(), merged) }
    });
    match joined {
        Ok(()) => group,
        Err(e) => {
            // SAFETY: The reference that device_group() gave; nobody else has it.
            unsafe { bindings::iommu_group_put(group) };
            e.to_ptr()
        }
    }
}

/// `iommu_ops::def_domain_type`.
///
/// # Safety
///
/// Called by the IOMMU core as this operation.
unsafe extern "C" fn def_domain_type<D: Driver>(dev: *mut bindings::device) -> c_int {
    // SAFETY: The device is probed.
    let device = unsafe { device::<D>(dev) };
    // SAFETY: The core holds a reference to it.
    let dev = unsafe { raw::device(dev) };
    // CAST: a few bits.
    change::default_type(&device, dev) as c_int
}

/// `iommu_ops::get_resv_regions`.
///
/// # Safety
///
/// Called by the IOMMU core as this operation.
unsafe extern "C" fn get_resv_regions<D: Driver>(
    dev: *mut bindings::device,
    list: *mut bindings::list_head,
) {
    // SAFETY: The device is probed; the core calls this before release_device() only.
    let device = unsafe { device::<D>(dev) };
    // SAFETY: The core passes an initialised list that nobody else uses.
    let mut list = unsafe { ResvList::from_raw(list) };
    let endpoint = &device.endpoint;
    D::resv_regions(&endpoint.unit, &endpoint.facts, &mut list);
    // For want of memory what is known from before holds.
    if let Ok(direct) = list.into_direct() {
        *device.firmware.lock() = direct;
    }
}

/// `iommu_ops::capable`.
///
/// # Safety
///
/// Called by the IOMMU core as this operation.
unsafe extern "C" fn capable<D: Driver>(
    dev: *mut bindings::device,
    cap: bindings::iommu_cap,
) -> bool {
    let cap = match cap {
        bindings::iommu_cap_IOMMU_CAP_CACHE_COHERENCY => Capability::CacheCoherency,
        // What the table does, its domains are asked for.
        bindings::iommu_cap_IOMMU_CAP_ENFORCE_CACHE_COHERENCY => return D::Table::FORCES_COHERENCY,
        bindings::iommu_cap_IOMMU_CAP_DIRTY_TRACKING => Capability::DirtyTracking,
        // flush_iotlb_all() of every domain here waits for the hardware.
        bindings::iommu_cap_IOMMU_CAP_DEFERRED_FLUSH => return true,
        _ => return false,
    };
    // SAFETY: The core asks for probed devices only.
    let device = unsafe { device::<D>(dev) };
    D::capable(&device.endpoint.unit, &device.endpoint.facts, cap)
}

fn alloc<D: Driver>(device: &Device<D>, node: i32) -> Result<Arc<Domain<D>>> {
    let endpoint = &device.endpoint;
    let config = D::table_config(&endpoint.unit, &endpoint.facts)?;
    let announce = D::flush_new_mappings(&endpoint.unit);
    let domain = Domain::<D>::new(device, config, announce, node)?;
    // SAFETY: Nobody else has the domain yet; the core fills in the rest.
    unsafe { (*domain.as_iommu_domain()).ops = D::ops().paging_ops(announce) };
    Ok(domain)
}

/// `iommu_ops::domain_alloc_paging_flags`.
///
/// # Safety
///
/// Called by the IOMMU core as this operation.
unsafe extern "C" fn domain_alloc_paging_flags<D: Driver>(
    dev: *mut bindings::device,
    flags: u32,
    user_data: *const bindings::iommu_user_data,
) -> *mut bindings::iommu_domain {
    if flags != 0 || !user_data.is_null() {
        return EOPNOTSUPP.to_ptr();
    }
    // SAFETY: The core allocates domains for probed devices only.
    let device = unsafe { device::<D>(dev) };
    // SAFETY: `dev` is valid, as above.
    let node = unsafe { bindings::rust_iommu_dev_to_node(dev) };
    match alloc(&device, node) {
        Ok(domain) => Domain::into_core(domain),
        Err(e) => e.to_ptr(),
    }
}

/// Registers one unit with the core, which probes every device there is.
///
/// # Safety
///
/// `unit` stays where it is until [`unregister`]; its sysfs device exists.
pub(crate) unsafe fn register<D: Driver>(unit: &UnitRef<D>) -> Result {
    let device = D::device(unit).map_or(core::ptr::null_mut(), raw::as_raw);
    // SAFETY: The unit is initialised and stays, by the contract; the operations are
    // static. Firmware-described units have no device of their own: NULL.
    to_result(unsafe {
        bindings::iommu_device_register(unit.as_raw(), D::ops().iommu_ops(), device)
    })
}

/// Undoes [`register`]; every endpoint of the unit has been released on return.
///
/// # Safety
///
/// The unit is registered.
pub(crate) unsafe fn unregister<D: Driver>(unit: &UnitRef<D>) {
    // SAFETY: By the contract.
    unsafe { bindings::iommu_device_unregister(unit.as_raw()) };
}
