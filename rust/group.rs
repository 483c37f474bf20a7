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
    confine::{
        self,
        Confinement, //
    },
    driver::Driver,
    endpoint::{
        Bound,
        Device,
        State, //
    },
    leak,
    named,
    pci::{
        merged::How,
        ports, //
    },
    policy::{
        mapper,
        overlay, //
    }, //
};
use kernel::{
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
    pub(crate) confinement: Arc<Confinement>,
    /// Held while the policy of one of the devices is changed. Inside their device locks, outside
    /// the core's `group->mutex`.
    #[pin]
    pub(crate) changing: Mutex<()>,
    /// Outside the devices' domain locks; nothing of the core's is taken inside.
    #[pin]
    pub(crate) members: Mutex<KVec<Arc<Device<D>>>>,
}

/// Whether the device's driver uses the group's default domain.
pub(crate) fn uses_dma_api<D: Driver>(device: &Device<D>) -> bool {
    device
        .bound
        .lock()
        .as_ref()
        .is_some_and(Bound::uses_dma_api)
}

/// Whether a driver of one of the devices does.
pub(crate) fn in_use<D: Driver>(members: &[Arc<Device<D>>]) -> bool {
    members.iter().any(|device| uses_dma_api(device))
}

/// Whether all of them are trusted.
pub(crate) fn are_trusted<D: Driver>(members: &[Arc<Device<D>>]) -> bool {
    members.iter().all(|device| device.trusted)
}

/// Whether nobody maps or unmaps on the device's behalf: it has no driver, or that of
/// ports, and is not just being added.
fn is_quiet<D: Driver>(device: &Arc<Device<D>>) -> bool {
    let added = !matches!(device.place.lock().state, State::Untouched);
    let bound = device.bound.lock();
    added
        && bound
            .as_ref()
            .is_none_or(|driver| driver.name() == ports::DRIVER)
}

impl<D: Driver> Group<D> {
    /// # Safety
    ///
    /// `group` points to a group that the caller holds a reference to.
    unsafe fn new(group: *mut bindings::iommu_group, park: bool) -> Result<Arc<Self>> {
        // SAFETY: By the contract.
        let id = unsafe { bindings::iommu_group_id(group) };
        let confinement = Confinement::new()?;
        Arc::pin_init(
            pin_init!(Self {
                identity: group.addr(),
                id,
                park,
                confinement,
                changing <- named::mutex!((), "iommu group policy"),
                members <- named::mutex!(KVec::new(), "iommu group members"),
            }),
            GFP_KERNEL,
        )
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

    fn unbind(&self, device: &Device<D>, dev: &kernel::device::Device) {
        let members = self.members.lock();
        let Some(name) = device.bound.lock().as_ref().map(Bound::copy) else {
            return;
        };
        // A flush that fails does so for the cleanup too, which says it.
        let _ = mapper::release(device);
        attach::dma_cleanup(device);
        let others = || {
            members
                .iter()
                .filter(|other| !core::ptr::eq(&***other, device))
        };
        if name.uses_dma_api() && others().all(is_quiet) {
            // SAFETY: No driver but that of ports is bound in the group, and the last one has
            // gone with all that the driver core freed for it. One that comes waits for the
            // lock in `bind`, before its probe. A device that comes is not attached before
            // the core has mapped what firmware needs.
            unsafe { leak::report(&members, device, &name) };
        }
        // As long as a driver is known the group's default domain stays.
        mapper::stop(device, dev);
        let driver = device.bound.lock().take();
        if driver.is_none_or(|driver| !driver.uses_dma_api()) || in_use(&members) {
            return;
        }
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
    pub(crate) fn unbind(&self, dev: &kernel::device::Device) {
        self.group.unbind(&self.device, dev);
    }
}

/// Why a device is in the group of another one. Devices as in [`Device::identity_of`].
pub(crate) struct Merged {
    pub(crate) device: usize,
    pub(crate) with: usize,
    pub(crate) how: How,
}

/// All devices of a driver, in their groups. Found in the registry, so under its lock.
pub(crate) struct Groups<D: Driver> {
    members: KVec<Member<D>>,
    /// Of devices that are both in `members`, but for one that joins.
    merged: KVec<Merged>,
    pub(crate) park: bool,
}

impl<D: Driver> Groups<D> {
    pub(crate) const fn new() -> Self {
        Self {
            members: KVec::new(),
            merged: KVec::new(),
            park: false,
        }
    }

    /// All devices.
    pub(crate) fn devices(&self) -> impl Iterator<Item = &Arc<Device<D>>> {
        self.members.iter().map(|member| &member.device)
    }

    /// Visits the devices that have merged a group, each once for each way. Errors: those of `visit`.
    pub(crate) fn merged(
        &self,
        group: &Arc<Group<D>>,
        mut visit: impl FnMut(&Device<D>, How) -> Result,
    ) -> Result {
        let members = self.members.iter();
        for member in members.filter(|member| Arc::ptr_eq(&member.group, group)) {
            let device = &member.device;
            let is_why = |how: How| {
                let both = matches!(how, How::Function | How::Alias);
                self.merged.iter().any(|merged| {
                    merged.how == how
                        && (device.has_identity(merged.with)
                            || (both && device.has_identity(merged.device)))
                })
            };
            for how in How::ALL {
                if is_why(how) {
                    visit(device, how)?;
                }
            }
        }
        Ok(())
    }

    /// The groups, in the order in which they were found.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Group<D>>> {
        let first = |i: usize, group: &Arc<Group<D>>| {
            let mut before = self.members.iter().take(i);
            !before.any(|member| Arc::ptr_eq(&member.group, group))
        };
        let groups = self.members.iter().map(|member| &member.group);
        groups
            .enumerate()
            .filter(move |(i, g)| first(*i, g))
            .map(|(_, g)| g)
    }

    /// What a device is to us, if it is an endpoint.
    pub(crate) fn find(&self, dev: &kernel::device::Device) -> Option<Member<D>> {
        self.members.iter().find(|m| m.device.is(dev)).cloned()
    }

    /// Puts a new device into a group, for what may be said of the reasons in `merged`.
    ///
    /// Context: may sleep. Errors: `ENOMEM`; `ENODEV` if its firmware needs what is not in the group's
    /// aperture; a flush failed that has to come before a device that is not trusted.
    ///
    /// # Safety
    ///
    /// `group` points to a group that the caller holds a reference to.
    pub(crate) unsafe fn join(
        &mut self,
        group: *mut bindings::iommu_group,
        device: Arc<Device<D>>,
        merged: KVec<Merged>,
    ) -> Result {
        self.members.reserve(1, GFP_KERNEL)?;
        self.merged.reserve(merged.len(), GFP_KERNEL)?;
        let mut groups = self.members.iter().map(|member| &member.group);
        let group = match groups.find(|known| known.identity == group.addr()) {
            Some(known) => known.clone(),
            // SAFETY: By the contract.
            None => unsafe { Group::new(group, self.park) }?,
        };
        {
            let mut members = group.members.lock();
            members.reserve(1, GFP_KERNEL)?;
            confine::admit(&group.confinement, &device)?;
            overlay::join(&members, &device)?;
            let park = group.park && !in_use(&members);
            if let Some(known) = members.first() {
                let single = known.single_queue.load(Relaxed);
                device.single_queue.store(single, Relaxed);
            }
            device
                .endpoint
                .confinement
                .populate(group.confinement.clone());
            members.push(device.clone(), GFP_KERNEL)?;
            for member in members.iter() {
                member.group_size.store(members.len(), Relaxed);
            }
            if park {
                // Before the first attach: nothing is programmed yet.
                attach::park(&device);
            }
        }
        self.members.push(Member { group, device }, GFP_KERNEL)?;
        for merged in merged {
            self.merged.push(merged, GFP_KERNEL)?;
        }
        Ok(())
    }

    /// Takes a released device out of its group. Context: may sleep.
    pub(crate) fn leave(&mut self, device: &Arc<Device<D>>) {
        for member in self.members.iter() {
            if Arc::ptr_eq(&member.device, device) {
                let mut members = member.group.members.lock();
                members.retain(|other| !Arc::ptr_eq(other, device));
            }
        }
        self.members
            .retain(|member| !Arc::ptr_eq(&member.device, device));
        self.merged.retain(|merged| {
            !device.has_identity(merged.device) && !device.has_identity(merged.with)
        });
    }
}
