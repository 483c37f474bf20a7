// SPDX-License-Identifier: GPL-2.0

//! Unmanaged domains: an address space that a device's driver fills itself.

use crate::{
    bindings,
    dma::Buffer,
    group_ref::GroupRef,
    owner,
    raw::{
        self,
        as_raw, //
    }, //
};
use core::{
    marker::PhantomData,
    ops::Deref,
    ptr::NonNull, //
};
use kernel::{
    device::{
        Bound,
        Device, //
    },
    dma::DmaAddress,
    error::{
        from_err_ptr,
        from_result,
        to_result, //
    },
    io::PhysAddr,
    new_mutex,
    prelude::*,
    sync::{
        aref::ARef,
        Arc,
        Mutex, //
    },
};

/// What a device may do with a mapped range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read only.
    Read,
    /// Write only; not every IOMMU can tell this from [`Access::ReadWrite`].
    Write,
    /// Read and write.
    ReadWrite,
}

impl Access {
    fn prot(self) -> i32 {
        let prot = match self {
            Access::Read => bindings::IOMMU_READ,
            Access::Write => bindings::IOMMU_WRITE,
            Access::ReadWrite => bindings::IOMMU_READ | bindings::IOMMU_WRITE,
        };
        prot as i32
    }
}

/// A mapped range. Holds the memory for as long as the device may reach it.
struct Range {
    iova: DmaAddress,
    buffer: Arc<Buffer>,
}

impl Range {
    fn overlaps(&self, first: DmaAddress, last: DmaAddress) -> bool {
        let end = self.iova + (self.buffer.size() as u64 - 1);
        first <= end && self.iova <= last
    }
}

/// An empty or filled page table, allocated for a device's IOMMU.
///
/// It needs no device to be bound: what the IOMMU's driver may touch of it stays as long.
///
/// # Invariants
///
/// `domain` is a paging domain, which this object owns. `module` is that of the domain's
/// operations; null if the driver is built in, else there is a reference to it.
struct Paging {
    domain: NonNull<bindings::iommu_domain>,
    module: *mut bindings::module,
    /// Drivers keep the pointer in the table, to maintain caches with.
    _dev: ARef<Device>,
}

// SAFETY: Domains belong to no thread, nor do modules.
unsafe impl Send for Paging {}

// SAFETY: As above; users keep apart what they do to the same addresses.
unsafe impl Sync for Paging {}

impl Paging {
    fn new(dev: &Device<Bound>) -> Result<Self> {
        // SAFETY: The device is bound, so that it is registered.
        let domain = unsafe { bindings::iommu_paging_domain_alloc_flags(as_raw(dev), 0) };
        let domain = NonNull::new(from_err_ptr(domain)?).ok_or(ENODEV)?;
        // SAFETY: Allocated just now; the core has set what it was made with.
        let ops = unsafe { (*domain.as_ptr()).owner };
        // SAFETY: These are the operations of the device's IOMMU. The core holds a reference
        // to their module until it releases the device, which is not while it is bound.
        let module = unsafe { (*ops).owner };
        // SAFETY: Null, which is ignored, or a module with a reference, as above.
        unsafe { bindings::__module_get(module) };
        // INVARIANT: The domain was allocated for us, the reference taken just now.
        Ok(Self {
            domain,
            module,
            _dev: dev.into(),
        })
    }

    /// Whether the domain may map all addresses from `first` to `last`. The core leaves it to those who map
    /// to look at that.
    fn has(&self, first: DmaAddress, last: DmaAddress) -> bool {
        // SAFETY: The domain is ours, and this is constant once it was allocated.
        let geometry = unsafe { (*self.domain.as_ptr()).geometry };
        !geometry.force_aperture
            || (geometry.aperture_start <= first && last <= geometry.aperture_end)
    }
}

impl Drop for Paging {
    fn drop(&mut self) {
        // SAFETY: The domain is ours. What attaches it to a device holds a reference to
        // the `UserDomain` that this is part of.
        unsafe { bindings::iommu_domain_free(self.domain.as_ptr()) };
        // SAFETY: Null, which is ignored, or the reference is ours by the type invariant.
        // Nothing is left that calls the driver.
        unsafe { bindings::module_put(self.module) };
    }
}

/// Is told of requests that were refused on a domain.
pub trait FaultHandler: Send + Sync + 'static {
    /// `dev` was refused a request at `iova`, as precisely as the unit says it. It was a write if the unit
    /// says so. By now it may be mapped.
    ///
    /// Errors: have no effect with the drivers of this project.
    ///
    /// Context: may sleep, map and unmap. Must not drop the last reference to a domain with a handler, nor
    /// wait for somebody who does, nor take a lock that is held over that: it waits for this call.
    fn fault(&self, domain: &UserDomain, dev: &Device, iova: DmaAddress, write: bool) -> Result;
}

/// A paging domain that its user fills, attached or not.
///
/// It holds the memory that is mapped in it. Devices come to it through
/// [`DmaOwner::attach`](crate::owner::DmaOwner::attach): the one that it was made for, or
/// others, or several at once, which then reach the same. All methods may sleep.
///
/// It may outlive the binding of every device. The IOMMU's driver can be neither shut down
/// nor unloaded before it is dropped.
///
/// # Invariants
///
/// Every mapping in `paging` is in `ranges`.
#[pin_data]
pub struct UserDomain {
    /// Freed before the memory in `ranges`.
    paging: Paging,
    #[pin]
    ranges: Mutex<KVec<Range>>,
    handler: Option<Arc<dyn FaultHandler>>,
}

impl UserDomain {
    /// Allocates a domain that fits `dev`, and those devices that its IOMMU's driver says.
    ///
    /// Fails with `ENODEV` where no IOMMU translates for the device, with `ENOMEM`, and
    /// with what the IOMMU's driver says.
    pub fn new(dev: &Device<Bound>) -> Result<Arc<Self>> {
        Self::make(dev, None)
    }

    /// The same, with a handler for faults. It may be called until the domain is dropped, also after a
    /// detach, and not after that.
    ///
    /// Fails with `EOPNOTSUPP` too, where the IOMMU's driver is built in: of those some call a handler
    /// after the domain was freed.
    pub fn with_handler(dev: &Device<Bound>, handler: Arc<dyn FaultHandler>) -> Result<Arc<Self>> {
        let this = Self::make(dev, Some(handler))?;
        if this.paging.module.is_null() {
            return Err(EOPNOTSUPP);
        }
        let token = Arc::as_ptr(&this).cast_mut().cast();
        // SAFETY: The domain is ours and not attached yet. `this` stays in place until the domain was freed, which
        // waits for a call that is under way with our drivers (`fault.rs`). Of the kernel's own for x86, the only
        // architecture that we build for, those that are modules call no handlers; elsewhere some do (ARM_SMMU).
        unsafe { bindings::iommu_set_fault_handler(this.as_raw(), Some(fault), token) };
        Ok(this)
    }

    fn make(dev: &Device<Bound>, handler: Option<Arc<dyn FaultHandler>>) -> Result<Arc<Self>> {
        let paging = Paging::new(dev)?;
        // INVARIANT: Nothing is mapped yet.
        Arc::pin_init(
            pin_init!(Self {
                paging,
                ranges <- new_mutex!(KVec::new(), "iommu user domain"),
                handler,
            }),
            GFP_KERNEL,
        )
    }

    pub(crate) fn as_raw(&self) -> *mut bindings::iommu_domain {
        self.paging.domain.as_ptr()
    }

    /// Maps the whole of `buffer` at `iova`.
    ///
    /// Fails with `EINVAL` for a range that is not all in the domain's aperture, with `EEXIST` where
    /// something is mapped in it, and with what the IOMMU core and driver say about its alignment.
    pub fn map(&self, iova: DmaAddress, buffer: Arc<Buffer>, access: Access) -> Result {
        let end = iova.checked_add(buffer.size() as u64 - 1).ok_or(EINVAL)?;
        if !self.paging.has(iova, end) {
            return Err(EINVAL);
        }
        let mut ranges = self.ranges.lock();
        if ranges.iter().any(|r| r.overlaps(iova, end)) {
            return Err(EEXIST);
        }
        ranges.reserve(1, GFP_KERNEL)?;
        // SAFETY: By the type invariant the domain is valid; the memory is held
        // by `buffer`, which goes into `ranges`, whose lock keeps others away.
        to_result(unsafe {
            bindings::iommu_map(
                self.as_raw(),
                iova as usize,
                buffer.phys(),
                buffer.size(),
                access.prot(),
                bindings::GFP_KERNEL,
            )
        })?;
        // INVARIANT: The new mapping is entered. There is room, see above.
        ranges.push(Range { iova, buffer }, GFP_KERNEL)?;
        Ok(())
    }

    /// Removes the mapping that [`map`](Self::map) made at `iova`.
    ///
    /// When this returns no device can reach the memory any more. Fails with `ENOENT` where
    /// there is no such mapping.
    pub fn unmap(&self, iova: DmaAddress) -> Result {
        let mut ranges = self.ranges.lock();
        let found = ranges.iter().position(|r| r.iova == iova);
        let index = found.ok_or(ENOENT)?;
        let size = ranges[index].buffer.size();
        // SAFETY: By the type invariant the domain is valid; the lock of `ranges` keeps
        // others away.
        let done = unsafe { bindings::iommu_unmap(self.as_raw(), iova as usize, size) };
        if done != size {
            // The range stays listed, so that its memory is not reused.
            return Err(EIO);
        }
        ranges.remove(index).map(drop).map_err(|_| ENOENT)
    }

    /// What the tables say about `iova`: the physical address, or none.
    pub fn iova_to_phys(&self, iova: DmaAddress) -> Option<PhysAddr> {
        // Tables must not go while they are walked.
        let _ranges = self.ranges.lock();
        // SAFETY: By the type invariant the domain is valid.
        let phys = unsafe { bindings::iommu_iova_to_phys(self.as_raw(), iova) };
        (phys != 0).then_some(phys)
    }
}

/// The `iommu_fault_handler_t` of a [`UserDomain`].
///
/// # Safety
///
/// `token` is a `UserDomain`, whose domain is not freed before the call is over. `dev` is a device, with a reference.
unsafe extern "C" fn fault(
    _domain: *mut bindings::iommu_domain,
    dev: *mut bindings::device,
    iova: c_ulong,
    flags: c_int,
    token: *mut c_void,
) -> c_int {
    from_result(|| {
        // SAFETY: By the contract. If it is being dropped that waits in the free of `paging`, its first field: all is
        // still there, and nothing is written until the call is over.
        let this = unsafe { &*token.cast::<UserDomain>() };
        // SAFETY: By the contract; it may be off its bus.
        let dev = unsafe { raw::device(dev) };
        let handler = this.handler.as_ref().ok_or(ENOSYS)?;
        // CAST: 64 bits both; a bit.
        let write = flags as u32 & bindings::IOMMU_FAULT_WRITE != 0;
        handler.fault(this, dev, iova as DmaAddress, write)?;
        Ok(0)
    })
}

/// A [`UserDomain`] of one device alone, attached instead of its default domain.
///
/// While it exists the device's DMA goes through it and not through what the
/// DMA API maps. Dropping it puts the device back to its default domain. This is for a
/// driver that uses the DMA API otherwise; one that owns the device's DMA goes through
/// [`DmaOwner`](crate::owner::DmaOwner). All methods may sleep.
///
/// # Invariants
///
/// `dev` is attached to `domain`.
pub struct OwnedDomain<'dev> {
    group: GroupRef,
    /// After the drop below nothing is attached, and this is the only reference.
    domain: Arc<UserDomain>,
    _dev: PhantomData<&'dev Device<Bound>>,
}

impl<'dev> OwnedDomain<'dev> {
    /// Allocates a domain and attaches `dev` to it.
    ///
    /// Fails as [`UserDomain::new`], with `EINVAL` where the device shares its group with
    /// others, with `EBUSY` where it is claimed or attached to another such domain, and
    /// with what the IOMMU's driver says.
    pub fn new(dev: &'dev Device<Bound>) -> Result<Self> {
        if owner::is_claimed(dev) {
            return Err(EBUSY);
        }
        let group = GroupRef::of(dev)?;
        let domain = UserDomain::new(dev)?;
        // SAFETY: The domain was just allocated for this device, and is kept.
        to_result(unsafe { bindings::iommu_attach_device(domain.as_raw(), as_raw(dev)) })?;
        // INVARIANT: Attached above.
        Ok(Self {
            group,
            domain,
            _dev: PhantomData,
        })
    }
}

impl Deref for OwnedDomain<'_> {
    type Target = UserDomain;

    fn deref(&self) -> &Self::Target {
        &self.domain
    }
}

impl Drop for OwnedDomain<'_> {
    fn drop(&mut self) {
        // Not iommu_detach_device(), which does nothing if another device has come to the group.
        // SAFETY: By the type invariant the group is attached to this domain.
        unsafe { bindings::iommu_detach_group(self.domain.as_raw(), self.group.as_raw()) };
    }
}
