// SPDX-License-Identifier: GPL-2.0

//! Who holds which group: what `EBUSY` and `EPERM` of the IOMMU core do not say.

use crate::{
    driver::Driver,
    endpoint::{
        Bound,
        Device,
        State, //
    },
    group::{
        in_use,
        uses_dma_api,
        Group, //
    },
    late::LateLock,
    ops::Ops,
    owner,
    policy::mapper, //
};
use core::marker::PhantomData;
use kernel::{
    device, fmt,
    prelude::*,
    sync::{
        lock::mutex::MutexBackend,
        static_lock_class,
        GlobalLockBackend,
        LockClassKey, //
    },
};

/// A report of all groups of a driver, made when it is printed.
///
/// A group has one line, and below it each of its devices has one:
///
/// ```text
/// group 4: held for the DMA API by 1 of 2 devices
///   0000:00:04.0 driver nvme, uses the DMA API, domain default
///   0000:00:05.0 no driver, domain default
/// group 5: claimed through 1 of 2 devices
///   0000:01:01.0 driver my_driver, manages DMA itself, has claimed, domain of its owner
///   0000:01:02.0 no driver, domain of its owner
/// ```
///
/// What VFIO claims is "claimed past this framework". A driver is the one that was there
/// when it was bound, which is looked up nowhere else.
///
/// Context: may sleep.
pub struct Holders<D: Driver>(PhantomData<fn() -> D>);

impl<D: Driver> Holders<D> {
    /// The report.
    #[allow(clippy::new_without_default, reason = "there is no default driver")]
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

fn domain_of<D: Driver>(device: &Device<D>) -> &'static str {
    let place = device.place.lock();
    match &place.state {
        State::Untouched | State::Released => "none",
        State::Blocked(_) => "blocked",
        State::Identity if place.parked => "identity, parked",
        State::Identity => "identity",
        State::Paging(at) if at.domain.is_default() && place.parked => "default, parked",
        State::Paging(at) if at.domain.is_default() => "default",
        State::Paging(_) => "of its owner",
    }
}

fn has_claimed<D: Driver>(device: &Device<D>) -> bool {
    let mut claimed = false;
    owner::claims(|claim| claimed |= device.is(claim.device()));
    claimed
}

fn show_device<D: Driver>(device: &Device<D>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let name = device.name.to_str().unwrap_or("?");
    write!(f, "  {name} ")?;
    match &*device.bound.lock() {
        None => write!(f, "no driver")?,
        Some(bound) => {
            write!(f, "driver {}, ", bound.name())?;
            f.write_str(if bound.manages_dma {
                "manages DMA itself"
            } else {
                "uses the DMA API"
            })?;
        }
    }
    if has_claimed(device) {
        f.write_str(", has claimed")?;
    }
    writeln!(f, ", domain {}", domain_of(device))
}

fn show_group<D: Driver>(group: &Group<D>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let members = group.members.lock();
    let users = members.iter().filter(|device| uses_dma_api(device)).count();
    // Without such drivers only a claim takes a group away from its default domain.
    let claimed = members.iter().any(|device| {
        let place = device.place.lock();
        match &place.state {
            State::Blocked(_) => true,
            State::Paging(at) => !at.domain.is_default(),
            _ => false,
        }
    });
    let through = members.iter().filter(|device| has_claimed(device)).count();
    let of = members.len();
    write!(f, "group {}: ", group.id)?;
    if through > 0 {
        writeln!(f, "claimed through {through} of {of} devices")?;
    } else if users > 0 {
        writeln!(f, "held for the DMA API by {users} of {of} devices")?;
    } else if claimed {
        writeln!(f, "claimed past this framework")?;
    } else {
        writeln!(f, "not held")?;
    }
    members.iter().try_for_each(|device| {
        show_device(device, f)?;
        mapper::show(device, f)
    })
}

impl<D: Driver> core::fmt::Display for Holders<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(registry) = D::ops().registry() else {
            return Ok(());
        };
        for group in registry.lock().groups.iter() {
            show_group(group, f)?;
        }
        Ok(())
    }
}

/// What is known of groups, for who is not generic over the driver.
trait Report: Sync {
    /// Writes which drivers keep others from owning the group of `dev`; nothing if it is not
    /// of this driver. Context: may sleep.
    fn in_the_way(&self, dev: &device::Device, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

impl<D: Driver> Report for Ops<D> {
    fn in_the_way(&self, dev: &device::Device, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = D::ops().registry().ok();
        let Some(member) = found.and_then(|registry| registry.lock().groups.find(dev)) else {
            return Ok(());
        };
        let members = member.group.members.lock();
        // A driver that manages DMA is suspected only where none is known to be the reason.
        let used = in_use(&members);
        let mut before = ": ";
        for device in members.iter() {
            let bound = device.bound.lock();
            let suspect = |b: &&Bound| b.manages_dma != used && (used || !device.is(dev));
            if let Some(bound) = bound.as_ref().filter(suspect) {
                let name = device.name.to_str().unwrap_or("?");
                write!(f, "{before}{name} ({})", bound.name())?;
                before = ", ";
            }
        }
        Ok(())
    }
}

/// The reports of all drivers that are registered. Taken outside the drivers' registries.
enum ReportsLock {}

impl GlobalLockBackend for ReportsLock {
    const NAME: &'static CStr = c"iommu reports";
    type Item = KVec<&'static dyn Report>;
    type Backend = MutexBackend;

    fn get_lock_class() -> Pin<&'static LockClassKey> {
        static_lock_class!()
    }
}

// SAFETY: There is no other lock of this type.
static REPORTS: LateLock<ReportsLock> = unsafe { LateLock::new(KVec::new()) };

/// Has a driver's groups known to [`in_the_way`]; the drop ends that.
pub(crate) struct Reported(&'static dyn Report);

impl Reported {
    /// Errors: `ENOMEM`, `EBUSY` if another driver does the same for the first time.
    pub(crate) fn new<D: Driver>() -> Result<Self> {
        let report: &'static dyn Report = D::ops();
        REPORTS.get()?.lock().push(report, GFP_KERNEL)?;
        Ok(Self(report))
    }
}

impl Drop for Reported {
    fn drop(&mut self) {
        if let Ok(reports) = REPORTS.get() {
            let mut reports = reports.lock();
            reports.retain(|report| !core::ptr::addr_eq(*report, self.0));
            if reports.is_empty() {
                // Nothing drops the static when the module goes.
                *reports = KVec::new();
            }
        }
    }
}

/// Writes which drivers keep others from owning the group of `dev`, as `: DEVICE (DRIVER), ...`;
/// nothing where that is not known.
///
/// Context: may sleep; no lock of the IOMMU core's may be held.
pub(crate) fn in_the_way(dev: &device::Device, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match REPORTS.get() {
        Ok(reports) => reports.lock().iter().try_for_each(|r| r.in_the_way(dev, f)),
        Err(_) => Ok(()),
    }
}
