// SPDX-License-Identifier: GPL-2.0

//! Domains whose units keep no table: they are told of mappings, and asked to forget them.
//!
//! The domain remembers what is mapped ([`Remote`]). What keeps it and its units in step:
//!
//! - Who maps inserts a *fresh* run. Nobody tells units of it but the mapper, in [`announce`], with the
//!   attachment lock held; then it is *told*.
//! - Who unmaps takes the run out, and units are asked to forget its addresses after that ([`flush`]),
//!   with the attachment lock held. Until then nobody maps there: it is the core that gives out addresses,
//!   and who unmaps has them until the flush is over.
//! - An endpoint that comes is put into the domain with the attachment lock held, and if it is the
//!   first one of its tag, the unit is told all runs that are *told* before the lock is released
//!   ([`fill`]). So each run is told by its mapper or by who comes, and by one of them only.
//! - A unit forgets a tag's mappings by itself once no endpoint is in its domain, and nobody here knows
//!   when exactly that is: an endpoint leaves by being put elsewhere. So who is about to leave is marked
//!   before (`Node::live`). Nobody relies on a tag that has no other endpoint than such: who
//!   comes then has the unit forget all of it first. A unit is still asked to forget what is unmapped
//!   meanwhile.
//!
//! With a flush queue nothing is sent when something is unmapped. The addresses are kept, side by side,
//! and go in few ranges when the core flushes. What a unit was asked to forget at once, and did not, is
//! kept in the same way: until a later flush succeeds nothing else is mapped there.

use crate::{
    attached::{
        self,
        by_unit,
        tags,
        Node, //
    },
    batch::Batch,
    bindings,
    domain::Domain,
    driver::Driver,
    endpoint::Endpoint,
    gather::Gather,
    inject,
    invalidation::Invalidation,
    mappings::{
        run::{
            Rights,
            Run,
            State, //
        },
        Freed,
        Refused,
        Room, //
    },
    pt::Remote,
    queue::Synced,
    unit::UnitRef, //
};
use core::ops::ControlFlow;
use kernel::{
    alloc::Flags,
    prelude::*,
    sync::Arc, //
};

/// Inserts a mapping that no unit knows of yet.
///
/// What is not forgotten yet of an earlier mapping there is tried again first.
///
/// Errors: `ENOMEM`; `EINVAL` if the range is not possible, `EEXIST` if a part of it is mapped; `EIO`,
/// `ETIMEDOUT` if a unit does not forget what was. Context: that of `gfp`.
pub(crate) fn map<D: Driver>(
    domain: &Domain<D>,
    remote: &Remote,
    iova: u64,
    phys: u64,
    bytes: u64,
    prot: u32,
    gfp: Flags,
) -> Result {
    inject::fails_atomic("map")?;
    let rights = Rights {
        read: prot & bindings::IOMMU_READ != 0,
        write: prot & bindings::IOMMU_WRITE != 0,
        mmio: remote.config.mmio && prot & bindings::IOMMU_MMIO != 0,
    };
    let run = Run::new(iova, phys, bytes, rights).ok_or(EINVAL)?;
    if iova < remote.config.start || run.last > remote.config.last {
        return Err(EINVAL);
    }
    let room = Room::new(gfp)?;
    let inserted = remote.mappings.lock().insert(room, run);
    let room = match inserted {
        Ok(()) => return Ok(()),
        Err(Refused::Mapped(_)) => return Err(EEXIST),
        Err(Refused::Deferred(room)) => room,
    };
    let _ = flush(domain, remote, &Invalidation::All)?;
    let inserted = remote.mappings.lock().insert(room, run);
    // What did not fit is freed here, without the lock.
    inserted.map_err(|_| EEXIST)
}

/// Whether somebody else than `without` is on the tag, and stays.
fn is_live<D: Driver>(
    nodes: &[Node<D>],
    tag: &Arc<D::Tag>,
    without: Option<&Arc<Endpoint<D>>>,
) -> bool {
    nodes.iter().any(|node| {
        let left_out = without.is_some_and(|endpoint| Arc::ptr_eq(&node.endpoint, endpoint));
        node.live && !left_out && Arc::ptr_eq(&node.tag, tag)
    })
}

/// Tells units of what was mapped between two addresses, first and last, with the attachment lock held.
/// What they refuse is reported with that lock held, too.
fn tell<D: Driver>(nodes: &[Node<D>], remote: &Remote, start: u64, last: u64) -> Result {
    for of_unit in by_unit(nodes) {
        let Some(unit) = of_unit.first().map(|node| &node.endpoint.unit) else {
            continue;
        };
        let mut batch = Batch::<D>::new(unit);
        for tag in tags(of_unit).filter(|tag| is_live(of_unit, tag, None)) {
            let mut at = Some(start);
            while let Some(from) = at.take() {
                batch.make_room();
                remote.mappings.lock().each_fresh(from, last, |run| {
                    // Nothing is sent with that lock held.
                    if batch.is_full() {
                        at = Some(run.iova);
                        return ControlFlow::Break(());
                    }
                    D::map(unit, tag, run, &mut batch);
                    ControlFlow::Continue(())
                });
            }
        }
        let _ = batch.sync_in_place()?;
    }
    Ok(())
}

/// Tells units of what was mapped at `iova` on.
///
/// A unit that has no memory for it is asked to forget what waits for that, and told again.
///
/// Errors: `ENOMEM`, `EIO`, `ETIMEDOUT`: the caller unmaps it, which makes units forget as much of it
/// as they know. Context: atomic.
pub(crate) fn announce<D: Driver>(
    domain: &Domain<D>,
    remote: &Remote,
    iova: u64,
    bytes: u64,
) -> Result {
    let Some(last) = bytes.checked_sub(1).and_then(|more| iova.checked_add(more)) else {
        return Ok(());
    };
    inject::fails_atomic("map.announce")?;
    // Freed after the lock was released, as it is declared before.
    let mut _freed = None;
    let nodes = domain.attached.lock();
    let mut told = inject::fails_atomic("map.tell").and_then(|()| tell(&nodes, remote, iova, last));
    if matches!(told, Err(ENOMEM)) {
        inject::reach_atomic("map.nomem");
        let (forgotten, freed) = forget_deferred(&nodes, remote);
        _freed = Some(freed);
        let _ = forgotten?;
        // What of this it has taken is in the way of telling it once more.
        forget_range(&nodes, iova, last).map(drop)?;
        told = tell(&nodes, remote, iova, last);
    }
    told?;
    remote.mappings.lock().settle(iova, last);
    Ok(())
}

/// Has every unit forget ranges, which `next` gives from an address on, with the attachment lock held. What
/// they refuse is reported with that lock held, too.
fn forget<D: Driver>(
    nodes: &[Node<D>],
    next: impl Fn(u64) -> Option<(u64, u64)>,
) -> Result<Synced> {
    let mut result = Ok(Synced::nothing_cached());
    for of_unit in by_unit(nodes) {
        let Some(unit) = of_unit.first().map(|node| &node.endpoint.unit) else {
            continue;
        };
        let mut batch = Batch::<D>::new(unit);
        let mut at = Some(0);
        while let Some((start, last)) = at.and_then(&next) {
            let what = Invalidation::Range {
                start,
                last,
                leaf_only: true,
            };
            attached::invalidate(of_unit, &what, &mut batch);
            at = last.checked_add(1);
        }
        if let Err(e) = batch.sync_in_place() {
            result = Err(e);
        }
    }
    result
}

/// Has units forget a range, in which nothing is mapped that they were told of.
fn forget_range<D: Driver>(nodes: &[Node<D>], start: u64, last: u64) -> Result<Synced> {
    forget(nodes, |from| (from <= last).then_some((start, last)))
}

/// Has units forget what was deferred; it waits on if they do not. The nodes are to be freed without
/// locks.
fn forget_deferred<D: Driver>(nodes: &[Node<D>], remote: &Remote) -> (Result<Synced>, Freed) {
    remote.mappings.lock().begin_flush();
    let forgotten = forget(nodes, |from| remote.mappings.lock().span(from));
    let freed = remote.mappings.lock().end_flush(forgotten.is_ok());
    (forgotten, freed)
}

/// Has units forget all that was unmapped, or what was in a range.
///
/// A range that a unit did not forget waits for the next flush of all.
///
/// Errors: `ETIMEDOUT`, `EIO`; then all units were still tried. Context: atomic.
pub(crate) fn flush<D: Driver>(
    domain: &Domain<D>,
    remote: &Remote,
    what: &Invalidation,
) -> Result<Synced> {
    inject::reach_atomic("flush");
    let nodes = domain.attached.lock();
    match *what {
        Invalidation::All => {
            let (forgotten, freed) = forget_deferred(&nodes, remote);
            drop(nodes);
            // Without the locks.
            drop(freed);
            forgotten
        }
        Invalidation::Range { start, last, .. } => {
            let forgotten = forget_range(&nodes, start, last);
            if forgotten.is_err() {
                // Without memory for that the next mapping there is the unit's to refuse.
                let _ = remote.mappings.lock().defer(start, last);
            }
            forgotten
        }
    }
}

/// Unmaps whole pieces, and returns how many bytes: it may be more than asked for.
///
/// Without a flush queue the addresses are gathered, for [`flush`]. Context: any.
pub(crate) fn unmap<D: Driver>(
    domain: &Domain<D>,
    remote: &Remote,
    iova: u64,
    bytes: u64,
    mut gather: Gather<'_>,
) -> u64 {
    let Some(last) = bytes.checked_sub(1).and_then(|more| iova.checked_add(more)) else {
        return 0;
    };
    inject::reach_atomic("unmap");
    let mut mappings = remote.mappings.lock();
    let removed = mappings.remove(iova, last);
    let Some(more) = removed.checked_sub(1) else {
        return 0;
    };
    let last = iova + more;
    if gather.is_queued() {
        let deferred = mappings.defer(iova, last);
        drop(mappings);
        if !deferred {
            // No memory to wait with it. As for every flush of the core, nobody takes an answer; the
            // queue reports a failure.
            let _ = domain.flush(&Invalidation::Range {
                start: iova,
                last,
                leaf_only: true,
            });
        }
        return removed;
    }
    drop(mappings);
    if !gather.add(iova, last) {
        // There is a gap: what was gathered before it goes first.
        if let Some(what) = gather.invalidation() {
            let _ = domain.flush(&what);
        }
        gather.clear();
        gather.add(iova, last);
    }
    removed
}

/// Adds to `batch` what tells a unit all mappings of a domain, for an endpoint that is put into it, if
/// no other is there.
///
/// Called with the attachment lock held, whose nodes these are.
pub(crate) fn fill<D: Driver>(
    nodes: &[Node<D>],
    remote: &Remote,
    endpoint: &Arc<Endpoint<D>>,
    unit: &UnitRef<D>,
    tag: &Arc<D::Tag>,
    batch: &mut Batch<'_, D>,
) {
    if is_live(nodes, tag, Some(endpoint)) {
        return;
    }
    let everything = Invalidation::Range {
        start: remote.config.start,
        last: remote.config.last,
        leaf_only: true,
    };
    D::invalidate(unit, tag, &everything, batch);
    let mut at = Some(0);
    while let Some(run) = at.and_then(|at| remote.mappings.lock().at_or_after(at)) {
        if run.state == State::Told {
            for piece in run.pieces() {
                D::map(unit, tag, &piece, batch);
            }
        }
        at = run.last.checked_add(1);
    }
}
