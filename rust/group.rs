// SPDX-License-Identifier: GPL-2.0

//! Groups, as far as this crate has to know them: who is in one, and whether a driver
//! is bound to any of them.
//!
//! The IOMMU core decides on groups and on their ownership. What is kept here follows
//! from what it was seen to do, and decides nothing but whether a device without a
//! driver that uses the DMA API is parked.

use crate::{
    attach,
    bindings,
    driver::Driver,
    endpoint::{
        Bound,
        Device, //
    },
    leak, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::Relaxed,
        Arc,
        Mutex, //
    },
};

/// The devices of one `struct iommu_group`.
#[pin_data]
pub(crate) struct Group<D: Driver> {
    /// Which group this is; compared only. The core's group exists for as long as it has
    /// members.
    identity: usize,
    /// The number in sysfs.
    pub(crate) id: c_int,
    /// Devices are parked while no driver in the group uses the DMA API.
    park: bool,
    /// Outside the devices' domain locks; nothing of the core's is taken inside.
    #[pin]
    pub(crate) members: Mutex<KVec<Arc<Device<D>>>>,
}

/// Whether a driver of one of the devices uses the group's default domain.
pub(crate) fn in_use<D: Driver>(members: &[Arc<Device<D>>]) -> bool {
    members.iter().any(|device| {
        let bound = device.bound.lock();
        bound.as_ref().is_some_and(|driver| !driver.manages_dma)
    })
}

impl<D: Driver> Group<D> {
    /// # Safety
    ///
    /// `group` points to a group that the caller holds a reference to.
    unsafe fn new(group: *mut bindings::iommu_group, park: bool) -> Result<Arc<Self>> {
        // SAFETY: By the contract.
        let id = unsafe { bindings::iommu_group_id(group) };
        Arc::pin_init(
            pin_init!(Self {
                identity: group.addr(),
                id,
                park,
                members <- new_mutex!(KVec::new(), "iommu group members"),
            }),
            GFP_KERNEL,
        )
    }

    /// The member that a device is.
    fn find(&self, dev: &kernel::device::Device) -> Option<Arc<Device<D>>> {
        self.members.lock().iter().find(|d| d.is(dev)).cloned()
    }

    fn bind(&self, device: &Device<D>, driver: Bound) {
        let members = self.members.lock();
        let was_in_use = in_use(&members);
        *device.bound.lock() = Some(driver);
        if self.park && !was_in_use && in_use(&members) {
            for member in members.iter() {
                attach::unpark(member);
            }
        }
    }

    fn unbind(&self, device: &Device<D>) {
        let members = self.members.lock();
        let Some(driver) = device.bound.lock().take() else {
            return;
        };
        attach::dma_cleanup(device);
        if driver.manages_dma || in_use(&members) {
            return;
        }
        // SAFETY: Drivers that use the DMA API are bound, and the last one in the group has
        // gone with all that the driver core freed for it. One that comes waits for the lock
        // in `bind`, before its probe.
        unsafe { leak::report(&members, device, &driver) };
        if self.park {
            for member in members.iter() {
                attach::park(member);
            }
        }
    }
}

/// A device in its group.
pub(crate) struct Member<D: Driver> {
    pub(crate) group: Arc<Group<D>>,
    pub(crate) device: Arc<Device<D>>,
}

impl<D: Driver> Clone for Member<D> {
    fn clone(&self) -> Self {
        Self {
            group: self.group.clone(),
            device: self.device.clone(),
        }
    }
}

impl<D: Driver> Member<D> {
    /// A driver is about to probe the device. Context: may sleep.
    pub(crate) fn bind(&self, driver: Bound) {
        self.group.bind(&self.device, driver);
    }

    /// The driver that was bound to the device has gone, and so has what the driver core
    /// frees for it. Nothing happens if that is known already.
    ///
    /// Context: may sleep.
    pub(crate) fn unbind(&self) {
        self.group.unbind(&self.device);
    }
}

/// All groups of a driver. Found in the registry, so under its lock.
pub(crate) struct Groups<D: Driver> {
    list: KVec<Arc<Group<D>>>,
    pub(crate) park: bool,
}

impl<D: Driver> Groups<D> {
    pub(crate) const fn new() -> Self {
        Self {
            list: KVec::new(),
            park: false,
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Group<D>>> {
        self.list.iter()
    }

    /// What a device is to us, if it is an endpoint.
    pub(crate) fn find(&self, dev: &kernel::device::Device) -> Option<Member<D>> {
        self.list.iter().find_map(|group| {
            Some(Member {
                device: group.find(dev)?,
                group: group.clone(),
            })
        })
    }

    /// Puts a new device into a group. One that is `bound` already was looked at by
    /// `probe` before, and missed as its driver came.
    ///
    /// Context: may sleep. Errors: `ENOMEM`.
    ///
    /// # Safety
    ///
    /// `group` points to a group that the caller holds a reference to.
    pub(crate) unsafe fn join(
        &mut self,
        group: *mut bindings::iommu_group,
        device: Arc<Device<D>>,
        bound: bool,
    ) -> Result {
        let known = self.list.iter().find(|g| g.identity == group.addr());
        let group = match known {
            Some(known) => known.clone(),
            None => {
                // SAFETY: By the contract.
                let new = unsafe { Group::new(group, self.park) }?;
                self.list.push(new.clone(), GFP_KERNEL)?;
                new
            }
        };
        if bound {
            *device.bound.lock() = Some(Bound {
                driver: None,
                manages_dma: false,
            });
        }
        let mut members = group.members.lock();
        let park = group.park && !bound && !in_use(&members);
        let joined = members.push(device.clone(), GFP_KERNEL);
        for member in members.iter() {
            member.group_size.store(members.len(), Relaxed);
        }
        if joined.is_ok() && park {
            // Before the first attach: nothing is programmed yet.
            attach::park(&device);
        }
        drop(members);
        if joined.is_err() {
            self.forget_empty();
        }
        Ok(joined?)
    }

    /// Takes a released device out of its group. Context: may sleep.
    pub(crate) fn leave(&mut self, device: &Arc<Device<D>>) {
        for group in self.list.iter() {
            group.members.lock().retain(|m| !Arc::ptr_eq(m, device));
        }
        self.forget_empty();
    }

    fn forget_empty(&mut self) {
        self.list.retain(|group| !group.members.lock().is_empty());
    }
}
