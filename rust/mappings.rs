// SPDX-License-Identifier: GPL-2.0

//! What a domain maps, for units that keep no table in memory.
//!
//! Such a unit is told each mapping and asked to forget it. To know what a domain maps, to tell a
//! unit that comes later, and to know what may be forgotten in one go, the driver has to remember.
//!
//! A *piece* is what the unit was told as one mapping; it forgets whole pieces only. A *run* is a
//! number of pieces of one size that follow each other, in DMA addresses and in memory, with the
//! same rights. Runs are the nodes of a balanced tree (AVL: its depth is at most 1.44 times the
//! logarithm of the number of runs, whatever addresses a user picks). A node has 64 bytes.
//!
//! This file is pure: it is also built and tested on the host.

use core::{
    cmp::Ordering,
    mem::{
        replace,
        take, //
    },
    ops::DerefMut, //
};

/// Where nodes come from.
pub trait Memory: Sized {
    /// An owned node.
    type Node: DerefMut<Target = Node<Self>>;

    /// Makes a node without sleeping; `None` for want of memory.
    fn node(run: Run) -> Option<Self::Node>;
}

/// What a device may do with a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// It may read.
    pub read: bool,
    /// It may write.
    pub write: bool,
    /// It is no memory.
    pub mmio: bool,
}

/// Whether the units know of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its mapper has not told them yet.
    Fresh,
    /// They know, as far as they have an endpoint in the domain.
    Told,
}

/// Pieces of one size that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// First DMA address.
    pub iova: u64,
    /// Its physical address.
    pub phys: u64,
    /// Bytes of a piece, not 0.
    pub piece: u64,
    /// How many pieces, not 0.
    pub count: u32,
    /// What is allowed.
    pub rights: Rights,
    /// Who knows of it.
    pub state: State,
}

impl Run {
    /// A run of one piece that nobody was told of.
    ///
    /// `None` if it is empty, or ends beyond the last address.
    pub fn new(iova: u64, phys: u64, bytes: u64, rights: Rights) -> Option<Self> {
        iova.checked_add(bytes.checked_sub(1)?)?;
        phys.checked_add(bytes.checked_sub(1)?)?;
        Some(Self {
            iova,
            phys,
            piece: bytes,
            count: 1,
            rights,
            state: State::Fresh,
        })
    }

    /// All its bytes.
    pub fn bytes(&self) -> u64 {
        self.piece.wrapping_mul(u64::from(self.count))
    }

    /// Its last DMA address.
    pub fn last(&self) -> u64 {
        self.iova.wrapping_add(self.bytes().wrapping_sub(1))
    }

    /// Its pieces, each as a run of its own.
    pub fn pieces(&self) -> impl Iterator<Item = Run> + '_ {
        (0..u64::from(self.count)).map(|i| Run {
            iova: self.iova + i * self.piece,
            phys: self.phys + i * self.piece,
            count: 1,
            ..*self
        })
    }

    /// Whether `next` goes on where this ends, with the same rights.
    fn leads_to(&self, next: &Run) -> bool {
        self.last().checked_add(1) == Some(next.iova)
            && self.phys.checked_add(self.bytes()) == Some(next.phys)
            && self.rights == next.rights
            && self.state == next.state
    }

    /// Whether `next` goes on where this ends, and units were told of both, in pieces of one size.
    fn is_one_with(&self, next: &Run) -> bool {
        self.state == State::Told && self.piece == next.piece && self.leads_to(next)
    }
}

/// A node of a tree.
pub struct Node<M: Memory> {
    run: Run,
    height: u8,
    left: Option<M::Node>,
    right: Option<M::Node>,
}

impl<M: Memory> Node<M> {
    /// A node that is in no tree.
    pub fn new(run: Run) -> Self {
        Self {
            run,
            height: 1,
            left: None,
            right: None,
        }
    }

    fn update(&mut self) {
        self.height = 1 + height::<M>(&self.left).max(height::<M>(&self.right));
    }
}

fn height<M: Memory>(tree: &Option<M::Node>) -> u8 {
    tree.as_ref().map_or(0, |node| node.height)
}

fn rotate_left<M: Memory>(mut node: M::Node) -> M::Node {
    let Some(mut up) = node.right.take() else {
        return node;
    };
    node.right = up.left.take();
    node.update();
    up.left = Some(node);
    up.update();
    up
}

fn rotate_right<M: Memory>(mut node: M::Node) -> M::Node {
    let Some(mut up) = node.left.take() else {
        return node;
    };
    node.left = up.right.take();
    node.update();
    up.right = Some(node);
    up.update();
    up
}

/// Restores the balance of a node whose subtrees are balanced and differ by at most two.
#[inline]
fn balance<M: Memory>(mut node: M::Node) -> M::Node {
    let (left, right) = (height::<M>(&node.left), height::<M>(&node.right));
    if left.abs_diff(right) > 1 {
        return rotate::<M>(node);
    }
    node.height = 1 + left.max(right);
    node
}

/// [`balance`] of a node whose subtrees differ by two.
fn rotate<M: Memory>(mut node: M::Node) -> M::Node {
    if height::<M>(&node.left) > height::<M>(&node.right) {
        node.left = node.left.take().map(|left| {
            if height::<M>(&left.left) < height::<M>(&left.right) {
                rotate_left::<M>(left)
            } else {
                left
            }
        });
        rotate_right::<M>(node)
    } else {
        node.right = node.right.take().map(|right| {
            if height::<M>(&right.right) < height::<M>(&right.left) {
                rotate_right::<M>(right)
            } else {
                right
            }
        });
        rotate_left::<M>(node)
    }
}

fn insert<M: Memory>(tree: Option<M::Node>, new: M::Node) -> M::Node {
    let Some(mut node) = tree else {
        return new;
    };
    if new.run.iova < node.run.iova {
        node.left = Some(insert::<M>(node.left.take(), new));
    } else {
        node.right = Some(insert::<M>(node.right.take(), new));
    }
    balance::<M>(node)
}

/// Shows `each` the runs that have an address between two, first and last, in order. It leaves a run its
/// addresses.
fn visit<M: Memory>(
    tree: &mut Option<M::Node>,
    first: u64,
    last: u64,
    each: &mut impl FnMut(&mut Run),
) {
    let Some(node) = tree else {
        return;
    };
    let node: &mut Node<M> = node;
    if node.run.iova > first {
        visit::<M>(&mut node.left, first, last, each);
    }
    if node.run.iova <= last && node.run.last() >= first {
        each(&mut node.run);
    }
    if node.run.last() < last {
        visit::<M>(&mut node.right, first, last, each);
    }
}

/// Takes the first node out: what is left, and the node.
fn take_first<M: Memory>(mut node: M::Node) -> (Option<M::Node>, M::Node) {
    match node.left.take() {
        None => (node.right.take(), node),
        Some(left) => {
            let (rest, first) = take_first::<M>(left);
            node.left = rest;
            (Some(balance::<M>(node)), first)
        }
    }
}

/// Takes the node out that starts at `iova`: what is left, and the node.
fn remove<M: Memory>(tree: Option<M::Node>, iova: u64) -> (Option<M::Node>, Option<M::Node>) {
    let Some(mut node) = tree else {
        return (None, None);
    };
    let found;
    match iova.cmp(&node.run.iova) {
        Ordering::Less => (node.left, found) = remove::<M>(node.left.take(), iova),
        Ordering::Greater => (node.right, found) = remove::<M>(node.right.take(), iova),
        Ordering::Equal => {
            let rest = match (node.left.take(), node.right.take()) {
                (None, rest) | (rest, None) => rest,
                (left, Some(right)) => {
                    let (right, mut top) = take_first::<M>(right);
                    top.left = left;
                    top.right = right;
                    Some(balance::<M>(top))
                }
            };
            return (rest, Some(node));
        }
    }
    (Some(balance::<M>(node)), found)
}

/// Runs that do not overlap, in the order of their addresses.
struct Tree<M: Memory> {
    root: Option<M::Node>,
    runs: usize,
}

impl<M: Memory> Tree<M> {
    const fn new() -> Self {
        Self {
            root: None,
            runs: 0,
        }
    }

    /// The first run that ends at `iova` or later.
    fn at_or_after(&self, iova: u64) -> Option<&Run> {
        let mut best = None;
        let mut place = &self.root;
        while let Some(node) = place {
            if node.run.last() >= iova {
                best = Some(&node.run);
                place = &node.left;
            } else {
                place = &node.right;
            }
        }
        best
    }

    /// The run that starts at `iova`. Its start may be moved up to its last address.
    fn get_mut(&mut self, iova: u64) -> Option<&mut Run> {
        let mut place = &mut self.root;
        while let Some(node) = place {
            if node.run.iova == iova {
                return Some(&mut node.run);
            }
            place = if iova < node.run.iova {
                &mut node.left
            } else {
                &mut node.right
            };
        }
        None
    }

    fn overlaps(&self, start: u64, last: u64) -> bool {
        self.at_or_after(start).is_some_and(|run| run.iova <= last)
    }

    fn insert(&mut self, mut node: M::Node) {
        node.left = None;
        node.right = None;
        node.height = 1;
        self.root = Some(insert::<M>(self.root.take(), node));
        self.runs += 1;
    }

    fn remove(&mut self, iova: u64) -> Option<M::Node> {
        let (root, found) = remove::<M>(self.root.take(), iova);
        self.root = root;
        if found.is_some() {
            self.runs -= 1;
        }
        found
    }
}

/// Nodes that are not needed any more, to be freed where no lock is held.
pub struct Freed<M: Memory>(#[allow(dead_code)] Option<M::Node>);

/// Nodes that are kept for times without memory.
const SPARE: usize = 4;

/// The mappings of one domain.
pub struct Mappings<M: Memory> {
    live: Tree<M>,
    /// Addresses that were unmapped, and that units were not asked to forget yet.
    deferred: Tree<M>,
    /// Those that units are being asked to forget.
    leaving: Tree<M>,
    spare: [Option<M::Node>; SPARE],
}

impl<M: Memory> Default for Mappings<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: Memory> Mappings<M> {
    /// None.
    pub const fn new() -> Self {
        Self {
            live: Tree::new(),
            deferred: Tree::new(),
            leaving: Tree::new(),
            spare: [const { None }; SPARE],
        }
    }

    /// How many runs there are, those that were deferred too.
    pub fn runs(&self) -> usize {
        self.live.runs + self.deferred.runs + self.leaving.runs
    }

    /// The run that maps `iova`, or the first after it.
    pub fn at_or_after(&self, iova: u64) -> Option<Run> {
        self.live.at_or_after(iova).copied()
    }

    /// Where `iova` leads.
    pub fn phys(&self, iova: u64) -> Option<u64> {
        let run = self.at_or_after(iova)?;
        Some(run.phys + iova.checked_sub(run.iova)?)
    }

    /// The first run between two addresses, first and last, that units were told of.
    pub fn told(&self, start: u64, last: u64) -> Option<Run> {
        let mut at = start;
        loop {
            let run = self.at_or_after(at).filter(|run| run.iova <= last)?;
            if run.state == State::Told {
                return Some(run);
            }
            at = run.last().checked_add(1)?;
        }
    }

    /// Adds a run, which is told of later. Gives it back if some of its addresses are mapped, or
    /// not forgotten yet.
    pub fn insert(&mut self, node: M::Node) -> Result<(), M::Node> {
        let (start, last) = (node.run.iova, node.run.last());
        if self.live.overlaps(start, last) || self.is_deferred(start, last) {
            return Err(node);
        }
        self.live.insert(node);
        Ok(())
    }

    /// Whether something between two addresses, first and last, was unmapped and is not forgotten yet.
    pub fn is_deferred(&self, start: u64, last: u64) -> bool {
        self.deferred.overlaps(start, last) || self.leaving.overlaps(start, last)
    }

    /// Makes single pieces of fresh runs that follow each other, between two addresses, first and
    /// last: units will be told of them as that.
    ///
    /// Only whoever mapped them may do this, as the others would not find theirs any more.
    pub fn join(&mut self, start: u64, last: u64) {
        let mut before: Option<Run> = None;
        let mut follow = false;
        visit::<M>(&mut self.live.root, start, last, &mut |run| {
            if run.state == State::Fresh && run.iova >= start {
                follow |= before.is_some_and(|before| before.leads_to(run));
                before = Some(*run);
            }
        });
        let first = follow.then(|| self.fresh(start, last)).flatten();
        let Some(mut run) = first else {
            return;
        };
        let after = |run: &Run| run.last().checked_add(1);
        while let Some(next) = after(&run).and_then(|at| self.fresh(at, last)) {
            if !run.leads_to(&next) {
                run = next;
                continue;
            }
            let freed = self.live.remove(next.iova);
            self.keep(freed);
            run.piece = run.bytes() + next.bytes();
            run.count = 1;
            if let Some(first) = self.live.get_mut(run.iova) {
                *first = run;
            }
        }
    }

    /// The first fresh run that starts between two addresses, first and last.
    pub fn fresh(&self, start: u64, last: u64) -> Option<Run> {
        let mut at = start;
        loop {
            let run = self.at_or_after(at).filter(|run| run.iova <= last)?;
            if run.state == State::Fresh && run.iova >= start {
                return Some(run);
            }
            at = run.last().checked_add(1)?;
        }
    }

    /// Units were told of the fresh runs between two addresses, first and last.
    pub fn settle(&mut self, start: u64, last: u64) {
        let (first, end) = (start.saturating_sub(1), last.saturating_add(1));
        let mut before: Option<Run> = None;
        let mut follow = false;
        visit::<M>(&mut self.live.root, first, end, &mut |run| {
            if (start..=last).contains(&run.iova) {
                run.state = State::Told;
            }
            follow |= before.is_some_and(|before| before.is_one_with(run));
            before = Some(*run);
        });
        if follow {
            self.unite(start, last);
        }
    }

    /// Makes one run of those that units were told of and that follow each other, between two addresses,
    /// first and last, and with the ones next to them.
    fn unite(&mut self, start: u64, last: u64) {
        let before = start.checked_sub(1).and_then(|at| self.at_or_after(at));
        let mut before = before.filter(|run| run.iova < start);
        let mut at = Some(start);
        // The one after the range is looked at too: it may follow the last one there.
        while let Some(run) = at.and_then(|at| self.at_or_after(at)) {
            at = run.last().checked_add(1).filter(|_| run.iova <= last);
            before = Some(self.coalesce(before, run));
        }
    }

    /// Makes one run of two with pieces of one size that units were told of, if the second follows the
    /// first. Returns the one, or the second.
    fn coalesce(&mut self, first: Option<Run>, second: Run) -> Run {
        let first = first.filter(|first| first.is_one_with(&second));
        let both = first.and_then(|first| {
            let count = first.count.checked_add(second.count)?;
            Some(Run { count, ..first })
        });
        let Some(both) = both else {
            return second;
        };
        let freed = self.live.remove(second.iova);
        self.keep(freed);
        if let Some(run) = self.live.get_mut(both.iova) {
            *run = both;
        }
        both
    }

    /// Unmaps from `start` on to `last`, up to the first address that is not mapped. Returns how many
    /// bytes.
    ///
    /// A piece goes whole if it starts there, also if it ends beyond `last`: then it is more than was
    /// asked for. The core cuts what it unmaps at the sizes of pages, and goes on after what was done.
    ///
    /// It stops at a piece that starts before `start`, and where a run has to be split and there is no
    /// memory for that.
    pub fn remove(&mut self, start: u64, last: u64) -> u64 {
        let mut at = start;
        while at <= last {
            let Some(run) = self.at_or_after(at).filter(|run| run.iova <= at) else {
                break;
            };
            // The last address of the piece that has the last one wanted here.
            let wanted = run.last().min(last) - run.iova;
            let stop = run.iova + (wanted - wanted % run.piece) + (run.piece - 1);
            if (at - run.iova) % run.piece != 0 || !self.cut(&run, at, stop) {
                break;
            }
            match stop.checked_add(1) {
                Some(next) => at = next,
                // All up to the last address there is.
                None => return 0u64.wrapping_sub(start),
            }
        }
        at - start
    }

    /// Takes whole pieces out of a run.
    fn cut(&mut self, run: &Run, start: u64, last: u64) -> bool {
        let pieces = |bytes: u64| u32::try_from(bytes / run.piece).unwrap_or(u32::MAX);
        let (before, after) = (pieces(start - run.iova), pieces(run.last() - last));
        let rest = Run {
            iova: last.wrapping_add(1),
            phys: run.phys.wrapping_add(last - run.iova).wrapping_add(1),
            count: after,
            ..*run
        };
        match (before, after) {
            (0, 0) => {
                let freed = self.live.remove(run.iova);
                self.keep(freed);
            }
            (0, _) => {
                if let Some(run) = self.live.get_mut(run.iova) {
                    *run = rest;
                }
            }
            (_, 0) => {
                if let Some(run) = self.live.get_mut(run.iova) {
                    run.count = before;
                }
            }
            _ => {
                let Some(node) = self.node(rest) else {
                    return false;
                };
                if let Some(run) = self.live.get_mut(run.iova) {
                    run.count = before;
                }
                self.live.insert(node);
            }
        }
        true
    }

    /// Remembers that addresses, first and last, which were unmapped, are to be forgotten later.
    /// `false` for want of memory: then they have to be forgotten now.
    pub fn defer(&mut self, start: u64, last: u64) -> bool {
        let (run, freed) = self.take_in(start, last);
        let node = match freed {
            Some(mut node) => {
                node.run = run;
                Some(node)
            }
            None => self.node(run),
        };
        node.map(|node| self.deferred.insert(node)).is_some()
    }

    /// Makes one run of addresses, first and last, and the deferred ones that they meet or follow. Gives a
    /// node of those.
    fn take_in(&mut self, start: u64, last: u64) -> (Run, Option<M::Node>) {
        let (mut start, mut last) = (start, last);
        let mut node = None;
        while let Some(run) = self
            .deferred
            .at_or_after(start.saturating_sub(1))
            .filter(|run| run.iova <= last.saturating_add(1))
            .copied()
        {
            start = start.min(run.iova);
            last = last.max(run.last());
            let freed = self.deferred.remove(run.iova);
            self.keep(replace(&mut node, freed));
        }
        let run = Run {
            iova: start,
            phys: 0,
            piece: (last - start).saturating_add(1),
            count: 1,
            rights: Rights {
                read: false,
                write: false,
                mmio: false,
            },
            state: State::Told,
        };
        (run, node)
    }

    /// Units are about to be asked to forget what was deferred until now; see [`span`](Self::span). What
    /// is deferred later is not part of it. Whether there is something.
    ///
    /// [`end_flush`](Self::end_flush) comes before the next one.
    pub fn begin_flush(&mut self) -> bool {
        self.leaving = replace(&mut self.deferred, Tree::new());
        self.leaving.root.is_some()
    }

    /// The first addresses at or after `from` that can be forgotten in one go, first and last: ranges
    /// with what lies between, as long as nothing is mapped there that a unit knows of.
    pub fn span(&self, from: u64) -> Option<(u64, u64)> {
        let first = self.leaving.at_or_after(from)?;
        let mut last = first.last();
        while let Some(next) = last
            .checked_add(1)
            .and_then(|at| self.leaving.at_or_after(at))
        {
            if self.told(last, next.iova).is_some() {
                break;
            }
            last = next.last();
        }
        Some((first.iova, last))
    }

    /// Units have forgotten it, or else it waits on.
    pub fn end_flush(&mut self, forgotten: bool) -> Freed<M> {
        let mut rest = replace(&mut self.leaving, Tree::new());
        if forgotten {
            return Freed(rest.root);
        }
        while let Some(node) = rest.root.take() {
            let (root, mut node) = take_first::<M>(node);
            rest.root = root;
            let (run, freed) = self.take_in(node.run.iova, node.run.last());
            self.keep(freed);
            node.run = run;
            self.deferred.insert(node);
        }
        Freed(None)
    }

    /// A node from memory, or a spare one.
    fn node(&mut self, run: Run) -> Option<M::Node> {
        M::node(run).or_else(|| {
            let mut node = self.spare.iter_mut().find_map(take)?;
            node.run = run;
            Some(node)
        })
    }

    /// Keeps a node that is not needed as a spare one, or frees it.
    fn keep(&mut self, node: Option<M::Node>) {
        if let Some(place) = self.spare.iter_mut().find(|place| place.is_none()) {
            *place = node;
        }
    }
}
