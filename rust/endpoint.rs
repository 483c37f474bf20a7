// SPDX-License-Identifier: GPL-2.0

//! Endpoints: devices behind a unit, and the state that attach and release change.

use crate::{
    domain::Domain,
    driver::Driver,
    unit::UnitRef, //
};
use kernel::{
    new_mutex, new_spinlock_irq,
    prelude::*,
    sync::{
        Arc,
        Mutex,
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
    /// Innermost but for the unit's own locks.
    #[pin]
    pub(crate) entries: SpinLockIrq<D::Slot>,
}

impl<D: Driver> Endpoint<D> {
    pub(crate) fn new(unit: UnitRef<D>, facts: D::Endpoint, own: D::Slot) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                unit,
                facts,
                entries <- new_spinlock_irq!(own, "iommu endpoint slot"),
            }),
            GFP_KERNEL,
        )
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
    Blocked,
    Identity,
    Paging(Attachment<D>),
    /// Terminal: nothing programs the endpoint any more.
    Released,
}

/// What `dev->iommu->priv` points to: the endpoint and its domain lock.
#[pin_data]
pub(crate) struct Device<D: Driver> {
    pub(crate) endpoint: Arc<Endpoint<D>>,
    /// The per-device domain lock. Taken inside `group->mutex`, never the other way
    /// round; held over the whole of an attach or release, so that these exclude each
    /// other also where the core does not hold `group->mutex`.
    #[pin]
    pub(crate) state: Mutex<State<D>>,
}

impl<D: Driver> Device<D> {
    pub(crate) fn new(endpoint: Arc<Endpoint<D>>) -> impl PinInit<Self> {
        pin_init!(Self {
            endpoint,
            state <- new_mutex!(State::Untouched, "iommu device domain"),
        })
    }
}
