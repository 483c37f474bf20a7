// SPDX-License-Identifier: GPL-2.0

//! The endpoints that a domain is attached to, as flushers see them.

use crate::{
    batch::Batch,
    domain::Domain,
    driver::{
        Driver,
        Target, //
    },
    endpoint::Endpoint,
    inject,
    invalidation::Invalidation,
    pt::PageTable,
    queue::Synced,
    unit::UnitRef, //
};
use core::{
    mem::ManuallyDrop,
    ops::{
        Deref,
        DerefMut, //
    }, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::Relaxed,
        lock::{
            spinlock::SpinLockIrqGuard,
            Guard, //
        },
        Arc,
        SpinLockIrq, //
    },
};

/// One endpoint on the domain, and the tag it uses.
pub(crate) struct Node<D: Driver> {
    pub(crate) endpoint: Arc<Endpoint<D>>,
    pub(crate) tag: Arc<D::Tag>,
    /// The endpoint is there to stay: the unit has the tag's mappings if it was told of them. Not so
    /// while the endpoint is about to leave, or is blocked on the domain. Matters to units that are
    /// told of mappings only.
    pub(crate) live: bool,
    /// The endpoint is blocked, and was on the domain before. The core may bring it back, and does not take no
    /// for an answer: it blocks a device for a reset that way. Nothing of the tag is in use or cached.
    pub(crate) away: bool,
}

impl<D: Driver> Node<D> {
    fn is(&self, endpoint: &Arc<Endpoint<D>>, tag: &Arc<D::Tag>) -> bool {
        Arc::ptr_eq(&self.endpoint, endpoint) && Arc::ptr_eq(&self.tag, tag)
    }

    /// Whether the two must not be on one domain.
    fn excludes(&self, other: &Self) -> bool {
        let (one, other) = (&self.endpoint, &other.endpoint);
        !one.shares_group(other) && (one.is_sealed() || other.is_sealed())
    }
}

/// Nodes of one unit stand next to each other, so that their commands go out in
/// one batch.
pub(crate) type Nodes<D> = KVec<Node<D>>;

/// The nodes of each unit, as they stand next to each other.
pub(crate) fn by_unit<D: Driver>(nodes: &[Node<D>]) -> impl Iterator<Item = &[Node<D>]> {
    nodes.chunk_by(|a, b| a.endpoint.unit.same(&b.endpoint.unit))
}

/// Each tag of a unit's nodes once, but for endpoints that are away.
pub(crate) fn tags<D: Driver>(nodes: &[Node<D>]) -> impl Iterator<Item = &Arc<D::Tag>> {
    nodes.iter().enumerate().filter_map(|(i, node)| {
        let mut before = nodes.get(..i).unwrap_or_default().iter();
        let seen = before.any(|n| !n.away && Arc::ptr_eq(&n.tag, &node.tag));
        (!seen && !node.away).then_some(&node.tag)
    })
}

/// What the root of a domain's table is asked for with: its [`Attached`], which alone makes one.
pub struct Held(());

/// A domain's attachments with their lock held. Until it is released the domain's table does not grow,
/// and only from this its root can be had, for an entry.
pub(crate) struct Attached<'a, D: Driver> {
    domain: &'a Domain<D>,
    nodes: SpinLockIrqGuard<'a, Nodes<D>>,
}

impl<'a, D: Driver> Attached<'a, D> {
    /// Takes the lock. Context: any.
    pub(crate) fn lock(domain: &'a Domain<D>) -> Self {
        Self {
            domain,
            nodes: domain.attached.lock(),
        }
    }

    /// The same where C code has taken the lock; it is C code too that releases it.
    ///
    /// # Safety
    ///
    /// The lock is held, and not released before the result is gone. Nobody uses what it protects by another
    /// reference meanwhile.
    pub(crate) unsafe fn held(domain: &'a Domain<D>) -> ManuallyDrop<Self> {
        ManuallyDrop::new(Self {
            domain,
            // SAFETY: By the contract. It is not dropped, so that the lock is not released twice.
            nodes: unsafe { Guard::new(&domain.attached, ()) },
        })
    }

    /// What the entry of an endpoint with this tag is to say. It cannot be kept longer than the lock.
    pub(crate) fn paging<'t>(&'t self, tag: &'t D::Tag) -> Target<'t, D> {
        Target::Paging {
            root: self.domain.table().root(&Held(())),
            tag,
        }
    }
}

impl<D: Driver> Deref for Attached<'_, D> {
    type Target = Nodes<D>;

    fn deref(&self) -> &Nodes<D> {
        &self.nodes
    }
}

impl<D: Driver> DerefMut for Attached<'_, D> {
    fn deref_mut(&mut self) -> &mut Nodes<D> {
        &mut self.nodes
    }
}

/// Adds to a batch what makes the unit of these nodes forget translations of each of their tags, and counts it
/// for who uses the tag. Context: atomic.
pub(crate) fn invalidate<D: Driver>(
    nodes: &[Node<D>],
    what: &Invalidation,
    batch: &mut Batch<'_, D>,
) {
    for tag in tags(nodes) {
        let commands = batch.invalidate(tag, what);
        let on = nodes
            .iter()
            .filter(|node| !node.away && Arc::ptr_eq(&node.tag, tag));
        on.for_each(|node| {
            node.endpoint.invalidations.add(commands, Relaxed);
        });
    }
}

/// Inserts `node` and runs `program` before the lock is released.
///
/// From the moment the lock is free, every flush of the domain reaches the node's
/// tag; and a flush that came before cannot have missed a translation that the
/// hardware could have cached, because the entry was not programmed yet.
///
/// One that comes back takes its own place, without further memory.
///
/// Errors: `ENOMEM`; `EBUSY` for the first of a group if one of another group is on the list, and either is
/// sealed. Nothing is done then. Context: may sleep.
pub(crate) fn insert<D: Driver>(
    domain: &Domain<D>,
    node: Node<D>,
    program: impl FnOnce(&Attached<'_, D>),
) -> Result {
    loop {
        let wanted = {
            let mut nodes = Attached::lock(domain);
            // Where its group is, the core does not take no for an answer.
            if !has_group(&nodes, &node.endpoint) && nodes.iter().any(|n| n.excludes(&node)) {
                return Err(EBUSY);
            }
            let is_back =
                |other: &&mut Node<D>| other.away && Arc::ptr_eq(&other.endpoint, &node.endpoint);
            if let Some(own) = nodes.iter_mut().find(is_back) {
                // Not the last reference to its tag: `State::Blocked` has one.
                *own = node;
                program(&nodes);
                return Ok(());
            }
            if nodes.len() < nodes.capacity() {
                let at = nodes
                    .iter()
                    .rposition(|n| n.endpoint.unit.same(&node.endpoint.unit))
                    .map_or(nodes.len(), |i| i + 1);
                nodes.insert_within_capacity(at, node).map_err(|_| ENOMEM)?;
                program(&nodes);
                return Ok(());
            }
            nodes.len() + 1
        };
        grow(&domain.attached, wanted)?;
    }
}

/// Makes room for `wanted` nodes. The allocation is done without the lock.
fn grow<D: Driver>(list: &SpinLockIrq<Nodes<D>>, wanted: usize) -> Result {
    let mut larger = KVec::with_capacity(wanted.next_power_of_two(), GFP_KERNEL)?;
    let mut nodes = list.lock();
    // Another attach may have grown the list meanwhile, or filled it further.
    if larger.capacity() > nodes.capacity() {
        for node in nodes.drain_all() {
            // Cannot fail: `larger` is the larger one.
            larger.push_within_capacity(node).map_err(|_| ENOMEM)?;
        }
        core::mem::swap(&mut *nodes, &mut larger);
    }
    drop(nodes);
    // The old memory, now in `larger`, is freed here, without the lock.
    drop(larger);
    Ok(())
}

/// Says whether the endpoint's nodes for `tag` are [`live`](Node::live). There are several where an
/// attach failed and left one. Context: atomic.
pub(crate) fn set_live<D: Driver>(
    nodes: &mut [Node<D>],
    endpoint: &Arc<Endpoint<D>>,
    tag: &Arc<D::Tag>,
    live: bool,
) {
    for node in nodes.iter_mut().filter(|node| node.is(endpoint, tag)) {
        node.live = live;
    }
}

/// Takes the endpoint's nodes for `tag` out, with proof that the hardware neither uses
/// the tag for the endpoint nor has anything cached under it.
///
/// Context: may sleep (memory is freed).
pub(crate) fn remove<D: Driver>(
    list: &SpinLockIrq<Nodes<D>>,
    endpoint: &Arc<Endpoint<D>>,
    tag: &Arc<D::Tag>,
    _proof: Synced,
) {
    take_out(list, |node| node.is(endpoint, tag));
}

/// Marks the endpoint's nodes for `tag` as [`away`](Node::away), with proof as for [`remove`].
///
/// Context: atomic.
pub(crate) fn set_away<D: Driver>(
    list: &SpinLockIrq<Nodes<D>>,
    endpoint: &Arc<Endpoint<D>>,
    tag: &Arc<D::Tag>,
    _proof: Synced,
) {
    let mut nodes = list.lock();
    for node in nodes.iter_mut().filter(|node| node.is(endpoint, tag)) {
        node.away = true;
    }
}

/// The endpoint does not come back. Context: may sleep (memory is freed).
pub(crate) fn forget<D: Driver>(list: &SpinLockIrq<Nodes<D>>, endpoint: &Arc<Endpoint<D>>) {
    take_out(list, |node| {
        Arc::ptr_eq(&node.endpoint, endpoint) && node.away
    });
}

fn take_out<D: Driver>(list: &SpinLockIrq<Nodes<D>>, is_one: impl Fn(&Node<D>) -> bool) {
    loop {
        let mut nodes = list.lock();
        let at = nodes.iter().position(&is_one);
        let node = at.and_then(|at| nodes.remove(at).ok());
        drop(nodes);
        // Dropped without the lock: it may be the last reference to the tag.
        if node.is_none() {
            return;
        }
    }
}

/// Whether a device of the endpoint's group is on the domain, or may come back to it.
pub(crate) fn has_group<D: Driver>(nodes: &[Node<D>], endpoint: &Endpoint<D>) -> bool {
    let mut others = nodes.iter().map(|node| &node.endpoint);
    others.any(|other| other.shares_group(endpoint))
}

/// The tag that the domain already has on a unit.
///
/// Context: atomic.
pub(crate) fn tag_on<D: Driver>(
    list: &SpinLockIrq<Nodes<D>>,
    unit: &UnitRef<D>,
) -> Option<Arc<D::Tag>> {
    list.lock()
        .iter()
        .find(|n| n.endpoint.unit.same(unit))
        .map(|n| n.tag.clone())
}

/// Invalidates in every cache that may hold translations of the domain, one batch
/// a unit, and waits.
///
/// Errors: `ETIMEDOUT`, `EIO`; then all units were still tried. Context: atomic.
pub(crate) fn flush<D: Driver>(
    list: &SpinLockIrq<Nodes<D>>,
    what: &Invalidation,
) -> Result<Synced> {
    inject::reach_atomic("flush");
    let nodes = list.lock();
    let mut result = Ok(Synced::nothing_cached());
    let mut rest = nodes.as_slice();
    while let [first, others @ ..] = rest {
        rest = others;
        if first.away {
            continue;
        }
        let unit = &first.endpoint.unit;
        let mut batch = Batch::<D>::new(unit);
        let mut last = &first.tag;
        let mut commands = batch.invalidate(last, what);
        first.endpoint.invalidations.add(commands, Relaxed);
        while let [node, others @ ..] = rest {
            if !node.endpoint.unit.same(unit) {
                break;
            }
            rest = others;
            if node.away {
                continue;
            }
            // Endpoints of a unit share the domain's tag on it, but for the rare two that were
            // attached at the same moment. To invalidate for one twice does no harm.
            if !Arc::ptr_eq(&node.tag, last) {
                last = &node.tag;
                commands = batch.invalidate(last, what);
            }
            node.endpoint.invalidations.add(commands, Relaxed);
        }
        if let Err(e) = batch.sync_in_place() {
            result = Err(e);
        }
    }
    result
}
