// SPDX-License-Identifier: GPL-2.0

//! Endpoints: devices behind a unit, and the state that attach and release change.

use crate::{
    confine::Confinement,
    domain::Domain,
    driver::{
        Driver,
        Target, //
    },
    named,
    pci::Function,
    policy::{
        overlay::Chosen,
        settings, //
    },
    pt::walk::Range,
    raw,
    source_id::SourceId,
    unit::UnitRef, //
};
use core::cell::Cell;
use kernel::{
    device,
    prelude::*,
    str::CString,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex,
        SetOnce,
        SpinLockIrq, //
    },
};

/// What flushers and the attach protocol share of an endpoint.
///
/// It may outlive the device: a domain's list of attachments holds it. It has no
/// pointer to the device, only the unit and facts.
#[pin_data]
pub(crate) struct Endpoint<D: Driver> {
    pub(crate) unit: UnitRef<D>,
    pub(crate) facts: D::Endpoint,
    /// Of the group that the device is in. Set before the first attach.
    pub(crate) confinement: SetOnce<Arc<Confinement>>,
    /// Innermost but for the unit's own locks.
    #[pin]
    pub(crate) entries: SpinLockIrq<Entries<D>>,
    /// Commands that made the unit forget translations of a domain while the endpoint was on it. An
    /// endpoint can be on the lists of two domains for a moment, so no lock of theirs is enough to count.
    pub(crate) invalidations: Atomic<u64>,
}

/// An endpoint's own entries, and what was last stored there.
pub(crate) struct Entries<D: Driver> {
    pub(crate) slot: D::Slot,
    /// Where the tag is whose table they name; 0 if they name none. Compared only: an endpoint's tag is
    /// there for as long as its entries have it.
    on: Cell<usize>,
}

impl<D: Driver> Entries<D> {
    /// They are about to say this.
    pub(crate) fn set(&self, target: &Target<'_, D>) {
        self.on.set(match target {
            Target::Paging { tag, .. } => core::ptr::from_ref(*tag).addr(),
            Target::Blocked | Target::Identity => 0,
        });
    }

    /// Whether they name the table of `tag`.
    pub(crate) fn are_on(&self, tag: &D::Tag) -> bool {
        self.on.get() == core::ptr::from_ref(tag).addr()
    }
}

impl<D: Driver> Endpoint<D> {
    pub(crate) fn new(unit: UnitRef<D>, facts: D::Endpoint, own: D::Slot) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                unit,
                facts,
                confinement: SetOnce::new(),
                entries <- named::spinlock_irq!(
                    Entries { slot: own, on: Cell::new(0) },
                    "iommu endpoint slot"
                ),
                invalidations: Atomic::new(0),
            }),
            GFP_KERNEL,
        )
    }

    /// Whether both are in one group.
    pub(crate) fn shares_group(&self, other: &Self) -> bool {
        let (one, other) = (self.confinement.as_ref(), other.confinement.as_ref());
        one.zip(other)
            .is_some_and(|(one, other)| Arc::ptr_eq(one, other))
    }

    /// Whether no device of another group is to be on a domain with it.
    pub(crate) fn is_sealed(&self) -> bool {
        let confinement = self.confinement.as_ref();
        confinement.is_some_and(|confinement| confinement.sealed.load(Relaxed))
    }
}

/// A paging domain that an endpoint is on.
pub(crate) struct Attachment<D: Driver> {
    /// Keeps the table alive for as long as the endpoint's entry points to it,
    /// whatever the core does with its own reference.
    pub(crate) domain: Arc<Domain<D>>,
    pub(crate) tag: Arc<D::Tag>,
}

/// Where an endpoint is.
pub(crate) enum State<D: Driver> {
    /// Probed; its entry still says what it said before.
    Untouched,
    /// With a domain of an owner that the core may bring it back to: see [`attached::Node::away`].
    ///
    /// [`attached::Node::away`]: crate::attached::Node::away
    Blocked(Option<Attachment<D>>),
    Identity,
    Paging(Attachment<D>),
    /// Terminal: nothing programs the endpoint any more.
    Released,
}

/// Where an endpoint is, and whether it is kept from there.
pub(crate) struct Place<D: Driver> {
    /// Where the core has put it.
    pub(crate) state: State<D>,
    /// On a default domain its entry is blocked all the same, because no driver in its
    /// group uses the DMA API.
    pub(crate) parked: bool,
}

impl<D: Driver> Place<D> {
    /// Whether somebody has taken the group away from its default domain.
    pub(crate) fn is_claimed(&self) -> bool {
        match &self.state {
            State::Blocked(_) => true,
            State::Paging(at) => !at.domain.is_default(),
            State::Untouched | State::Identity | State::Released => false,
        }
    }
}

/// A driver that is bound, as it was when it came.
///
/// Captured once, under the device's lock: later the driver may be gone while its
/// name is still in `dev->driver`.
pub(crate) struct Bound {
    /// Nothing if there was no memory for the name.
    pub(crate) driver: Option<CString>,
    /// It claims the device's DMA by itself, as `vfio-pci` does, and does not use what
    /// the DMA API maps.
    pub(crate) manages_dma: bool,
    /// We are told when all is freed that is freed on its behalf.
    pub(crate) end_is_told: bool,
}

impl Bound {
    /// Whether it uses what the DMA API maps.
    pub(crate) fn uses_dma_api(&self) -> bool {
        !self.manages_dma
    }

    /// The same, without the name if there is no memory for it.
    pub(crate) fn copy(&self) -> Self {
        let name = self.driver.as_ref();
        Self {
            driver: name.and_then(|name| CString::try_from(&**name).ok()),
            manages_dma: self.manages_dma,
            end_is_told: self.end_is_told,
        }
    }

    /// The driver's name.
    pub(crate) fn name(&self) -> &str {
        let name = self.driver.as_ref().and_then(|name| name.to_str().ok());
        name.unwrap_or("of unknown name")
    }
}

/// What `dev->iommu->priv` points to: the endpoint and its domain lock.
#[pin_data]
pub(crate) struct Device<D: Driver> {
    /// Which device this is. Kept from being freed, but registered only until it is [`State::Released`].
    pub(crate) dev: ARef<device::Device>,
    pub(crate) name: CString,
    pub(crate) endpoint: Arc<Endpoint<D>>,
    /// Devices in the group, this one among them, when the last one joined. A default domain is
    /// made large enough for them.
    pub(crate) group_size: Atomic<usize>,
    /// The per-device domain lock. Taken inside `group->mutex`, never the other way
    /// round; held over the whole of an attach or release, so that these exclude each
    /// other also where the core does not hold `group->mutex`.
    #[pin]
    pub(crate) place: Mutex<Place<D>>,
    /// What is done differently from what the group's default domain says; `policy/overlay.rs`
    /// changes it, with the lock of the group's members held.
    pub(crate) overlay: Chosen,
    /// It may do what only devices that are trusted may.
    pub(crate) trusted: bool,
    /// The queue of the group's next default domain would be a single one.
    pub(crate) single_queue: Atomic<bool>,
    /// How long an unmapped IOVA may stay reachable under the policy `lazy`, in milliseconds; 0: until
    /// all were used.
    pub(crate) max_age_ms: Atomic<u32>,
    /// The device has attributes in sysfs.
    pub(crate) has_attributes: Atomic<bool>,
    /// A `Mapper` while the DMA API's operations are ours; changed with the lock of the group's
    /// members held.
    pub(crate) mapper: Atomic<usize>,
    /// Requests of its own that were refused and reported.
    pub(crate) faults: Atomic<u64>,
    /// Who is bound. Innermost; changed inside the lock of the device's group only.
    #[pin]
    pub(crate) bound: Mutex<Option<Bound>>,
    /// What firmware needs mapped one to one. Innermost.
    #[pin]
    pub(crate) firmware: Mutex<KVec<Range>>,
}

impl<D: Driver> Device<D> {
    /// Errors: `ENOMEM`. Context: may sleep.
    pub(crate) fn new(dev: &device::Device, endpoint: Arc<Endpoint<D>>) -> Result<Arc<Self>> {
        let name = CString::try_from_fmt(fmt!("{}", dev.name()))?;
        Arc::pin_init(
            pin_init!(Self {
                dev: dev.into(),
                name,
                endpoint,
                group_size: Atomic::new(1),
                trusted: Function::from_device(dev).is_none_or(|function| !function.is_untrusted()),
                overlay: Chosen::new(),
                single_queue: Atomic::new(settings::single_queue()),
                max_age_ms: Atomic::new(settings::max_age_ms()),
                has_attributes: Atomic::new(false),
                mapper: Atomic::new(0),
                faults: Atomic::new(0),
                place <- named::mutex!(
                    Place {
                        state: State::Untouched,
                        parked: false,
                    },
                    "iommu device domain"
                ),
                bound <- named::mutex!(None, "iommu device driver"),
                firmware <- named::mutex!(KVec::new(), "iommu device firmware"),
            }),
            GFP_KERNEL,
        )
    }

    /// What tells a device from others that are there; compared only.
    pub(crate) fn identity_of(dev: &device::Device) -> usize {
        raw::as_raw(dev).addr()
    }

    /// Whether this was made of `dev`.
    pub(crate) fn is(&self, dev: &device::Device) -> bool {
        self.has_identity(Self::identity_of(dev))
    }

    pub(crate) fn has_identity(&self, identity: usize) -> bool {
        Self::identity_of(&self.dev) == identity
    }

    /// The source id of its own requests.
    pub(crate) fn source(&self) -> Option<SourceId> {
        Function::from_device(&self.dev).map(|function| function.source_id())
    }
}
