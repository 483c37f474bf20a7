// SPDX-License-Identifier: GPL-2.0

//! Ownership of a device's DMA: for drivers that hand it to somebody else.
//!
//! The core counts the owners of a *group*, and does not know who releases. Here it
//! is one token a device, so that nobody releases what another has claimed.

use crate::{
    bindings,
    consumer::UserDomain,
    group_ref::GroupRef,
    holders,
    raw::{
        as_raw,
        driver_name, //
    },
};
use kernel::{
    device::{
        Bound,
        Device, //
    },
    error::to_result,
    ffi::c_void,
    fmt,
    prelude::*,
    str::CString,
    sync::{
        aref::ARef,
        lock::mutex::MutexBackend,
        static_lock_class,
        Arc,
        GlobalLock,
        GlobalLockBackend,
        LockClassKey, //
    },
};

/// Who owns: devices of one group may be claimed at the same time with one key only.
///
/// Each [`new`](Self::new) makes another key, and a clone is the same one. The core
/// compares addresses: this one's is of memory of its own, which every token keeps, so
/// that no other owner can come to have the same.
#[derive(Clone)]
pub struct OwnerKey(Arc<Identity>);

/// Something with an address that is its own, which an empty type would not have.
struct Identity(#[allow(dead_code, reason = "only the address counts")] u8);

impl OwnerKey {
    /// Makes a key that differs from all others. May sleep. Fails with `ENOMEM`.
    pub fn new() -> Result<Self> {
        Ok(Self(Arc::new(Identity(0), GFP_KERNEL)?))
    }

    fn cookie(&self) -> *mut c_void {
        Arc::as_ptr(&self.0).cast_mut().cast()
    }
}

/// The right to decide what a bound device's DMA reaches.
///
/// While it lives the device and all of its group are refused all DMA, but for what a
/// domain lets through that was [attached](Self::attach); and no driver that uses the
/// DMA API can be bound to a device of the group (its probe fails with `EBUSY`).
/// Dropping the token detaches the domain. With the last token of a group the default
/// domain comes back. All methods, and the drop, may sleep.
///
/// # Invariants
///
/// `dev` was claimed with `key`, once, while it was in `group`. Where `attached` is
/// some, that domain was attached to `group` through this token.
pub struct DmaOwner<'dev> {
    dev: &'dev Device<Bound>,
    attached: Option<Arc<UserDomain>>,
    // These are dropped after the claim has ended, in this order.
    _listed: Listed,
    group: GroupRef,
    _key: OwnerKey,
}

impl<'dev> DmaOwner<'dev> {
    /// Claims `dev`, for its driver.
    ///
    /// The driver must manage DMA itself ([`crate::pci::managed`]): one for which the
    /// bus has set up the DMA API stands in its own way.
    ///
    /// Errors:
    ///
    /// - `EALREADY`: a token for this device lives already.
    /// - `EPERM`: another key holds the group, or a driver that uses the DMA API.
    /// - `EBUSY`: a domain is attached to the group without a claim.
    /// - `ENODEV`: the device has no group, as no IOMMU translates for it.
    /// - `EINVAL`: firmware wants ranges mapped for a device of the group at all times.
    /// - `ENOMEM`, and what the IOMMU's driver says about being blocked.
    ///
    /// On `EPERM` and `EBUSY` a message names the group, and the devices and drivers that are in
    /// the way, as far as the framework knows. Where it fails, nothing has changed.
    pub fn claim(dev: &'dev Device<Bound>, key: &OwnerKey) -> Result<Self> {
        let group = GroupRef::of(dev)?;
        let listed = Listed::add(dev, group.id())?;
        // SAFETY: The device is bound, and in a group, which it does not leave before it
        // is unbound. The cookie is not null.
        let code = unsafe { bindings::iommu_device_claim_dma_owner(as_raw(dev), key.cookie()) };
        if let Err(error) = to_result(code) {
            explain(dev, group.id(), error);
            return Err(error);
        }
        listed.set_held();
        // INVARIANT: Claimed above; only once, as `listed` is the only one of the device.
        Ok(Self {
            dev,
            attached: None,
            _listed: listed,
            group,
            _key: key.clone(),
        })
    }

    /// Has the DMA of the device, and of *all* others of its group, go through `domain`,
    /// which may be attached to other groups too.
    ///
    /// Errors: `EBUSY` where a domain is attached already, through this token or that of
    /// another device of the group (which must be of the same key): mainline goes from
    /// blocked to a domain and back, never from domain to domain. `EINVAL` where the
    /// domain does not fit: made for a device of another IOMMU driver, or for a unit that
    /// walks other tables. The device is where it was then.
    pub fn attach(&mut self, domain: Arc<UserDomain>) -> Result {
        if self.attached.is_some() {
            return Err(EBUSY);
        }
        // SAFETY: Both are valid, and `self.attached` keeps the domain. Others than
        // owners of this key cannot attach anything, by the type invariant.
        to_result(unsafe { bindings::iommu_attach_group(domain.as_raw(), self.group.as_raw()) })?;
        // INVARIANT: Attached just now.
        self.attached = Some(domain);
        Ok(())
    }

    /// Has all DMA of the group refused again, and returns the domain that was attached
    /// through this token. Without one nothing happens. Cannot fail.
    pub fn detach(&mut self) -> Option<Arc<UserDomain>> {
        let domain = self.attached.take()?;
        // SAFETY: Both are valid, and by the type invariant it is this domain that is
        // attached: the core lets no other in its place.
        unsafe { bindings::iommu_detach_group(domain.as_raw(), self.group.as_raw()) };
        Some(domain)
    }
}

impl Drop for DmaOwner<'_> {
    fn drop(&mut self) {
        self.detach();
        // A device without its group is one whose IOMMU was unregistered under a bound
        // driver. There is no claim any more then, and the core would follow a null pointer.
        if GroupRef::of(self.dev).is_ok_and(|group| group == self.group) {
            // SAFETY: By the type invariant this device was claimed, once.
            unsafe { bindings::iommu_device_release_dma_owner(as_raw(self.dev)) };
        }
    }
}

/// A device that is claimed.
pub struct Claim {
    device: ARef<Device>,
    driver: CString,
    group: i32,
    /// False while the core is being asked.
    held: bool,
}

impl Claim {
    /// The device that the token is for.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Name of the driver that was bound to it at that time, which is the one that claimed.
    pub fn driver(&self) -> &CStr {
        &self.driver
    }

    /// Number of the IOMMU group.
    pub fn group(&self) -> i32 {
        self.group
    }
}

/// `0000:00:03.0 (driver)`
impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_fmt(fmt!("{} ({})", self.device.name(), &*self.driver))
    }
}

/// Calls `visitor` for each token that lives, in the order of the claims.
///
/// As many as are of one group, so many claims the core counts for it (owners that came
/// past this framework, such as VFIO, not among them).
///
/// Context: may sleep; the visitor too, but it must neither claim nor release. Takes a
/// lock below which nothing is locked, so any other may be held.
pub fn claims(mut visitor: impl FnMut(&Claim)) {
    visit(&mut visitor);
}

fn visit(visitor: &mut dyn FnMut(&Claim)) {
    CLAIMS.lock().iter().filter(|c| c.held).for_each(visitor);
}

/// Whether a token for `dev` lives.
pub(crate) fn is_claimed(dev: &Device) -> bool {
    CLAIMS.lock().iter().any(|c| c.held && same(&c.device, dev))
}

fn same(a: &Device, b: &Device) -> bool {
    core::ptr::eq(a, b)
}

/// Says why `dev` cannot be claimed, if it is for others that hold the group.
fn explain(dev: &Device<Bound>, group: i32, error: Error) {
    let rest = if error == EPERM {
        "used through the DMA API, or by another owner"
    } else if error == EBUSY {
        "a domain is attached to it"
    } else {
        return;
    };
    // Made before it is printed: that must not sleep, for the lock.
    let text = CString::try_from_fmt(fmt!("{}", Reason { dev, group, rest }));
    if let Ok(text) = text {
        dev_warn!(dev, "cannot own DMA of group {group}: {}\n", &*text);
    }
}

struct Reason<'a> {
    dev: &'a Device,
    group: i32,
    rest: &'static str,
}

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut result = Ok(());
        let mut before = "claimed for ";
        visit(&mut |claim| {
            if claim.group == self.group && result.is_ok() {
                result = f.write_fmt(fmt!("{before}{claim}"));
                before = ", ";
            }
        });
        result?;
        if before == ", " {
            return Ok(());
        }
        f.write_str(self.rest)?;
        holders::in_the_way(self.dev, f)
    }
}

/// The entry of a device in the list of claims; dropping it takes it out.
///
/// It is there before the core is asked and until after the release, so that there is
/// one at a time, without the list's lock being held in the core.
struct Listed(ARef<Device>);

impl Listed {
    fn add(dev: &Device<Bound>, group: i32) -> Result<Self> {
        let claim = Claim {
            device: dev.into(),
            driver: CString::try_from_fmt(fmt!("{}", driver_name(dev)))?,
            group,
            held: false,
        };
        let mut claims = CLAIMS.lock();
        if claims.iter().any(|c| same(&c.device, dev)) {
            return Err(EALREADY);
        }
        claims.push(claim, GFP_KERNEL)?;
        Ok(Self(dev.into()))
    }

    fn set_held(&self) {
        let mut claims = CLAIMS.lock();
        for claim in claims.iter_mut().filter(|c| same(&c.device, &self.0)) {
            claim.held = true;
        }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut claims = CLAIMS.lock();
        claims.retain(|c| !same(&c.device, &self.0));
        if claims.is_empty() {
            // Nothing drops the static when the module goes.
            *claims = KVec::new();
        }
    }
}

/// The lock of the list of claims.
enum ClaimsLock {}

impl GlobalLockBackend for ClaimsLock {
    const NAME: &'static CStr = c"iommu claims";
    type Item = KVec<Claim>;
    type Backend = MutexBackend;

    fn get_lock_class() -> Pin<&'static LockClassKey> {
        static_lock_class!()
    }
}

// SAFETY: `init` comes first, by its contract. There is no other lock of this type.
static CLAIMS: GlobalLock<ClaimsLock> = unsafe { GlobalLock::new(KVec::new()) };

/// Makes the list of claims ready.
///
/// # Safety
///
/// Called once, before anything else of this file.
pub(crate) unsafe fn init() {
    // SAFETY: Once, by the contract.
    unsafe { CLAIMS.init() };
}
