// SPDX-License-Identifier: GPL-2.0

//! The attach and release protocol, one copy for all hardware.
//!
//! An attach goes through these steps, under the device's domain lock:
//!
//! 1. prepare: everything that can fail for lack of memory or of ids;
//! 2. publish: the tag is put where flushers of the new domain find it;
//! 3. program: the entry is stored, before flushers can run again and before the table can grow;
//! 4. sync: the hardware acknowledges that it uses the new entry;
//! 5. retire: the old tag is taken from its flushers, invalidated, and only with
//!    the hardware's acknowledgement given up with the old table.
//!
//! When 4 fails, the old entry is put back and the new tag and table are leaked:
//! the hardware may have seen either. When 5 fails, the old ones are leaked. What is
//! leaked stays with its flushers, so that they do not free anything either.
//!
//! A unit that keeps no table (`remote`) is told the domain's mappings in step 3, and step 4 is done before
//! flushers can run again. The attaches of its endpoints take turns from where a place is decided on
//! until the unit has answered. Nobody relies on an endpoint that is about to leave, or whose step 4 failed.
//! When the old entry is acknowledged after that, nothing is leaked: the unit has answered both.
//!
//! A device that is parked goes through the same steps, but to a default domain its entry
//! is blocked instead.

use crate::{
    attached::{
        self,
        Attached,
        Node, //
    },
    batch::Batch,
    bindings,
    confine,
    domain::Domain,
    driver::{
        Driver,
        Target, //
    },
    endpoint::{
        Attachment,
        Device,
        Endpoint,
        Entries,
        Place,
        State, //
    },
    inject,
    invalidation::Invalidation,
    locked::Locked,
    pci::Function,
    pt::{
        PageTable,
        Root, //
    },
    queue::Synced,
    raw,
    remote, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// Programs the endpoint's entry with its slot locked.
fn program<D: Driver>(endpoint: &Endpoint<D>, target: &Target<'_, D>, batch: &mut Batch<'_, D>) {
    store(endpoint, &endpoint.entries.lock(), target, batch);
}

fn store<D: Driver>(
    endpoint: &Endpoint<D>,
    entries: &Entries<D>,
    target: &Target<'_, D>,
    batch: &mut Batch<'_, D>,
) {
    entries.set(target);
    D::program(
        &endpoint.unit,
        &endpoint.facts,
        &Locked::<D>::new(&entries.slot),
        target,
        batch,
    );
}

/// Programs an entry with a new root, if it names the table of `tag`. Called with the lock of the domain's
/// attachments held.
///
/// Else the entry says something else already, but perhaps the unit does not know yet: who has stored it
/// sends the invalidation without that lock, and may have been refused. So it is sent here too.
pub(crate) fn name_root<D: Driver>(
    endpoint: &Endpoint<D>,
    tag: &D::Tag,
    root: Root<D::Table>,
    batch: &mut Batch<'_, D>,
) {
    let entries = endpoint.entries.lock();
    if entries.are_on(tag) {
        store(endpoint, &entries, &Target::Paging { root, tag }, batch);
    } else {
        D::forget_entry(&endpoint.unit, &Locked::<D>::new(&entries.slot), batch);
    }
}

/// Programs an entry that no domain's flushers have to learn of, and waits.
pub(crate) fn program_static<D: Driver>(
    endpoint: &Endpoint<D>,
    target: &Target<'_, D>,
) -> Result<Synced> {
    let _order = endpoint.unit.in_order();
    let mut batch = Batch::<D>::new(&endpoint.unit);
    program(endpoint, target, &mut batch);
    let _ = inject::reach("attach.decided", None);
    batch.sync()
}

/// What a unit has said of an attach.
fn told(sent: Result<Synced>) -> Result<Synced> {
    sent.and_then(|proof| inject::fails_atomic("attach.told").map(|()| proof))
}

/// Programs the entry of an endpoint that is on a domain's list, and waits.
///
/// A unit that is told of mappings is told them before the list is unlocked. If it fails nobody relies on
/// the endpoint being there.
fn reprogram<D: Driver>(
    endpoint: &Arc<Endpoint<D>>,
    at: &Attachment<D>,
    blocked: bool,
    after: impl FnOnce(&mut Batch<'_, D>),
) -> Result<Synced> {
    let Attachment { domain, tag } = at;
    let _order = endpoint.unit.in_order();
    let mut batch = Batch::<D>::new(&endpoint.unit);
    let mut attached = Attached::lock(domain);
    if D::Table::IS_REMOTE {
        tell(endpoint, at, blocked, &mut attached, &mut batch);
        let told = told(batch.sync_in_place());
        if told.is_err() {
            attached::set_live(&mut attached, endpoint, tag, false);
        }
        told
    } else {
        program(endpoint, &on_domain(&attached, tag, blocked), &mut batch);
        drop(attached);
        after(&mut batch);
        batch.sync()
    }
}

/// Programs the entry, and adds what tells the unit of the domain's mappings.
fn tell<D: Driver>(
    endpoint: &Arc<Endpoint<D>>,
    at: &Attachment<D>,
    blocked: bool,
    nodes: &mut Attached<'_, D>,
    batch: &mut Batch<'_, D>,
) {
    let Attachment { domain, tag } = at;
    attached::set_live(nodes, endpoint, tag, !blocked);
    program(endpoint, &on_domain(nodes, tag, blocked), batch);
    if let Some(remote) = domain.table().remote().filter(|_| !blocked) {
        remote::fill(nodes, remote, endpoint, &endpoint.unit, tag, batch);
    }
}

/// The endpoint is about to be put elsewhere: nobody is to rely on its tag meanwhile.
fn leave<D: Driver>(endpoint: &Arc<Endpoint<D>>, state: &State<D>) {
    if let State::Paging(at) = state {
        attached::set_live(&mut at.domain.attached.lock(), endpoint, &at.tag, false);
    }
}

/// Whether nothing gets through a default domain: while the device is parked, unless firmware uses the
/// device too.
fn is_shut<D: Driver>(device: &Device<D>, parked: bool) -> bool {
    parked && device.firmware.lock().is_empty()
}

/// The same for a paging domain. Those that are no default ones are their owner's, who is there.
fn is_shut_on<D: Driver>(device: &Device<D>, parked: bool, domain: &Domain<D>) -> bool {
    is_shut(device, parked && domain.is_default())
}

/// What is programmed for the identity domain.
fn identity_target<D: Driver>(device: &Device<D>, parked: bool) -> Target<'static, D> {
    if is_shut(device, parked) {
        Target::Blocked
    } else {
        Target::Identity
    }
}

/// What is programmed for a paging domain, whose lock is held for as long.
fn on_domain<'a, D: Driver>(
    attached: &'a Attached<'_, D>,
    tag: &'a D::Tag,
    blocked: bool,
) -> Target<'a, D> {
    if blocked {
        Target::Blocked
    } else {
        attached.paging(tag)
    }
}

/// Programs the entry of a device for the place where it is, and waits; `None` if nothing was programmed
/// for it yet. `after` as for [`reprogram`]: where the device has a tag it adds to that batch.
fn program_place<D: Driver>(
    device: &Device<D>,
    place: &Place<D>,
    after: impl FnOnce(&mut Batch<'_, D>, &D::Tag),
) -> Option<Result<Synced>> {
    let endpoint = &device.endpoint;
    let target = match &place.state {
        State::Untouched | State::Released => return None,
        State::Blocked(_) => Target::Blocked,
        State::Identity => identity_target(device, place.parked),
        State::Paging(at) => {
            let blocked = is_shut_on(device, place.parked, &at.domain);
            return Some(reprogram(endpoint, at, blocked, |batch| {
                after(batch, &at.tag);
            }));
        }
    };
    Some(program_static(endpoint, &target))
}

/// Step 5: leaves the state that an endpoint has been moved away from.
fn retire<D: Driver>(device: &Device<D>, old: State<D>) {
    match old {
        State::Paging(old) => {
            if let Some((old, proof)) = vacate(device, old) {
                attached::remove(&old.domain.attached, &device.endpoint, &old.tag, proof);
            }
        }
        State::Blocked(Some(old)) => attached::forget(&old.domain.attached, &device.endpoint),
        _ => {}
    }
}

/// Leaves a domain that the unit has refused: for good, or to come back another time.
fn withdraw<D: Driver>(
    device: &Device<D>,
    place: &mut Place<D>,
    new: Attachment<D>,
    proof: Synced,
) {
    let (list, endpoint) = (&new.domain.attached, &device.endpoint);
    match &place.state {
        State::Blocked(Some(old)) if Arc::ptr_eq(&old.domain, &new.domain) => {
            attached::set_away(list, endpoint, &new.tag, proof);
            // The node has this tag now.
            place.state = State::Blocked(Some(new));
        }
        _ => attached::remove(list, endpoint, &new.tag, proof),
    }
}

/// Whether the core may want to bring a device that it blocks back to where it is.
///
/// It blocks one with ATS for a reset, and that looks like a detach. Nobody else comes to a default domain.
fn may_return<D: Driver>(dev: Function<'_>, at: &Attachment<D>) -> bool {
    !at.domain.is_default() && dev.supports_ats()
}

/// Has the unit forget the tag of a domain that an endpoint has been moved away from.
///
/// The node is taken from the flushers last: until the hardware has forgotten the tag,
/// a flush that did not reach it must not pass for a proof. When the invalidation
/// fails the node stays, so that those flushes fail too, and free nothing; the rest is leaked then.
fn vacate<D: Driver>(device: &Device<D>, old: Attachment<D>) -> Option<(Attachment<D>, Synced)> {
    let endpoint = &device.endpoint;
    let mut batch = Batch::<D>::new(&endpoint.unit);
    D::invalidate(&endpoint.unit, &old.tag, &Invalidation::All, &mut batch);
    match batch.sync() {
        Ok(proof) => Some((old, proof)),
        Err(e) => {
            pr_err!(
                "{}: invalidation after detach failed ({}): leaking the old page table\n",
                &*device.name,
                e.to_errno()
            );
            core::mem::forget(old);
            None
        }
    }
}

/// Moves the device to a paging domain.
///
/// Errors: `ENODEV` after release, `EINVAL` if the domain does not fit, `EBUSY` (see [`confine::check`],
/// and [`attached::insert`] for devices that are sealed), `ENOMEM`, `ENOSPC`, `ETIMEDOUT`, `EIO`; the
/// device then stays where it was.
///
/// Context: may sleep; `group->mutex` or nothing held.
pub(crate) fn paging<D: Driver>(
    device: &Device<D>,
    dev: Function<'_>,
    domain: Arc<Domain<D>>,
) -> Result {
    let endpoint = &device.endpoint;
    let unit = &endpoint.unit;
    let _ = inject::reach("attach", Some(dev.as_device()));
    let mut place = device.place.lock();

    match &place.state {
        State::Released => return Err(ENODEV),
        State::Paging(at) if Arc::ptr_eq(&at.domain, &domain) => return Ok(()),
        _ => {}
    }
    if domain.is_default() {
        // SAFETY: The device is probed, and the core holds `group->mutex` over an attach of a default
        // domain. It looks at this after the first one.
        unsafe {
            bindings::rust_iommu_set_shadow_on_flush(
                raw::as_raw(dev.as_device()),
                domain.single_queue,
            )
        };
    }
    D::compatible(unit, &endpoint.facts, &domain.config)?;
    confine::check(endpoint, &domain)?;
    if D::flush_new_mappings(unit) && !domain.flushes_new {
        return Err(EINVAL);
    }
    inject::reach("attach.prepare", Some(dev.as_device()))?;
    let tag = domain.tag_for(unit)?;

    let node = Node {
        endpoint: endpoint.clone(),
        tag: tag.clone(),
        live: false,
        away: false,
    };
    let blocked = is_shut_on(device, place.parked, &domain);
    inject::reach("attach.pre_hw", Some(dev.as_device()))?;
    let new = Attachment { domain, tag };
    let sent = if D::Table::IS_REMOTE {
        // Room first: what fails up to here has changed nothing.
        attached::insert(&new.domain, node, |_| ())?;
        leave(endpoint, &place.state);
        reprogram(endpoint, &new, blocked, |_| {})
    } else {
        let mut batch = Batch::<D>::new(unit);
        attached::insert(&new.domain, node, |attached| {
            let target = on_domain(attached, &new.tag, blocked);
            program(endpoint, &target, &mut batch);
        })?;
        told(batch.sync())
    };

    if let Err(e) = sent {
        let proof = undo(device, &place);
        if let Some(proof) = proof.filter(|_| D::Table::IS_REMOTE) {
            // The unit has put the endpoint elsewhere again, so it has nothing of the new domain.
            pr_err!("{}: attach was refused ({})\n", &*device.name, e.to_errno());
            withdraw(device, &mut place, new, proof);
            return Err(e);
        }
        pr_err!(
            "{}: attach was not acknowledged ({}): leaking the new page table\n",
            &*device.name,
            e.to_errno()
        );
        // Its node stays, as in `retire`.
        core::mem::forget(new);
        return Err(e);
    }

    let _ = inject::reach("attach.post_hw", Some(dev.as_device()));
    if new.domain.is_default() {
        confine::note(endpoint, new.domain.narrowed);
    }
    retire(
        device,
        core::mem::replace(&mut place.state, State::Paging(new)),
    );
    Ok(())
}

/// Puts back the entry of the state that an attach was to leave. Gives the proof that the unit uses
/// it; without one, with a message.
fn undo<D: Driver>(device: &Device<D>, place: &Place<D>) -> Option<Synced> {
    // Before the first attach there is no entry to go back to; blocked is safe.
    program_place(device, place, |_, _| {})
        .unwrap_or_else(|| program_static(&device.endpoint, &Target::Blocked))
        .inspect_err(|_| {
            pr_err!(
                "{}: the old translation was put back, but not acknowledged\n",
                &*device.name
            );
        })
        .ok()
}

/// Moves the device to the identity or the blocked domain.
///
/// The core does not expect these to fail. When the hardware does not acknowledge,
/// the entry in memory stands all the same and what it replaced is leaked.
///
/// Errors: `ENODEV` after release.
///
/// Context: may sleep.
fn fixed<D: Driver>(device: &Device<D>, dev: Function<'_>, to: State<D>) -> Result {
    let _ = inject::reach("attach", Some(dev.as_device()));
    let mut place = device.place.lock();

    match (&place.state, &to) {
        (State::Released, _) => return Err(ENODEV),
        (State::Blocked(_), State::Blocked(_)) | (State::Identity, State::Identity) => {
            return Ok(())
        }
        _ => {}
    }
    let target = match to {
        State::Identity => identity_target(device, place.parked),
        _ => Target::Blocked,
    };
    let _ = inject::reach("attach.pre_hw", Some(dev.as_device()));
    leave(&device.endpoint, &place.state);
    if let Err(e) = program_static(&device.endpoint, &target) {
        pr_err!(
            "{}: change to a fixed translation was not acknowledged ({})\n",
            &*device.name,
            e.to_errno()
        );
        match core::mem::replace(&mut place.state, to) {
            // It was blocked, and had nothing in use.
            old @ State::Blocked(_) => retire(device, old),
            old => core::mem::forget(old),
        }
        return Ok(());
    }
    let _ = inject::reach("attach.post_hw", Some(dev.as_device()));
    let is_blocked = matches!(to, State::Blocked(_));
    match core::mem::replace(&mut place.state, to) {
        State::Paging(old) if is_blocked && may_return(dev, &old) => {
            if let Some((old, proof)) = vacate(device, old) {
                attached::set_away(&old.domain.attached, &device.endpoint, &old.tag, proof);
                place.state = State::Blocked(Some(old));
            }
        }
        old => retire(device, old),
    }
    Ok(())
}

/// Moves the device to the identity domain; see [`fixed`].
pub(crate) fn identity<D: Driver>(device: &Device<D>, dev: Function<'_>) -> Result {
    fixed(device, dev, State::Identity)
}

/// Moves the device to the blocked domain; see [`fixed`].
pub(crate) fn blocked<D: Driver>(device: &Device<D>, dev: Function<'_>) -> Result {
    fixed(device, dev, State::Blocked(None))
}

/// Ends the device's life here. Nothing is programmed for it afterwards.
///
/// The core has attached the release domain before: blocked, or identity for a
/// device whose firmware needs its regions. An endpoint that never was attached
/// keeps the entry that it came with.
///
/// Context: may sleep.
pub(crate) fn release<D: Driver>(device: &Device<D>, dev: &kernel::device::Device) {
    let _ = inject::reach("release.pre", Some(dev));
    let mut place = device.place.lock();
    let old = core::mem::replace(&mut place.state, State::Released);
    leave(&device.endpoint, &old);
    if matches!(old, State::Paging(_)) {
        if let Err(e) = program_static(&device.endpoint, &Target::Blocked) {
            pr_err!(
                "{}: release was not acknowledged ({}): leaking the page table\n",
                &*device.name,
                e.to_errno()
            );
            core::mem::forget(old);
            return;
        }
    }
    retire(device, old);
    drop(place);
    let _ = inject::reach("release.post", Some(dev));
}

/// Blocks a default domain, or lets it through, and leaves the device's place as it is.
fn set_parked<D: Driver>(device: &Device<D>, parked: bool) {
    let mut place = device.place.lock();
    place.parked = parked;
    let done = program_place(device, &place, |batch, tag| {
        // No tag is retired here, which would bring this with it.
        D::invalidate(&device.endpoint.unit, tag, &Invalidation::All, batch);
    });
    if let Some(Err(e)) = done {
        pr_err!(
            "{}: a change of its driver was not acknowledged ({})\n",
            &*device.name,
            e.to_errno()
        );
    }
}

/// Keeps DMA of the device through its default domain blocked until [`unpark`]. Context: may sleep.
pub(crate) fn park<D: Driver>(device: &Device<D>) {
    let _ = inject::reach("park", None);
    set_parked(device, true);
}

/// Ends [`park`]. Context: may sleep.
pub(crate) fn unpark<D: Driver>(device: &Device<D>) {
    let _ = inject::reach("unpark", Some(&device.dev));
    set_parked(device, false);
}

/// Completes what is still to be invalidated for the device, after its driver has gone.
///
/// Context: may sleep.
pub(crate) fn dma_cleanup<D: Driver>(device: &Device<D>) {
    let place = device.place.lock();
    let State::Paging(at) = &place.state else {
        return;
    };
    let endpoint = &device.endpoint;
    let done = if D::Table::IS_REMOTE {
        at.domain.flush(&Invalidation::All)
    } else {
        let mut batch = Batch::<D>::new(&endpoint.unit);
        D::dma_cleanup(&endpoint.unit, &endpoint.facts, &at.tag, &mut batch);
        batch.sync()
    };
    if let Err(e) = done {
        pr_err!(
            "{}: what its driver had unmapped may still be reachable ({})\n",
            &*device.name,
            e.to_errno()
        );
    }
}
