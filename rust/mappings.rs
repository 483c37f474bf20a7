// SPDX-License-Identifier: GPL-2.0

//! What a domain maps, for units that keep no table in memory.
//!
//! Such a unit is told each mapping and asked to forget it. To know what a domain maps, to tell a
//! unit that comes later, and to know what may be forgotten in one go, the driver has to remember.
//!
//! The runs are nodes of the kernel's red-black tree, whose depth is at most twice the logarithm of their
//! number, whatever addresses a user picks.

pub mod index;
pub mod run;

use self::{
    index::Tree,
    run::{
        Rights,
        Run,
        State, //
    },
};
use core::{
    cmp::Ordering,
    num::NonZero,
    ops::ControlFlow, //
};
use kernel::{
    alloc::Flags,
    prelude::*,
    rbtree::{
        Entry,
        RBTree,
        RBTreeNodeReservation, //
    },
};

/// Addresses, first and last.
///
/// Two that share an address are equal. Of keys that share none this is an order; and of those in a tree the
/// one that shares an address with another range is found in one walk.
struct Addresses(u64, u64);

impl Addresses {
    fn of(run: &Run) -> Self {
        Self(run.iova, run.last)
    }
}

impl Ord for Addresses {
    fn cmp(&self, other: &Self) -> Ordering {
        if self.1 < other.0 {
            Ordering::Less
        } else if self.0 > other.1 {
            Ordering::Greater
        } else {
            Ordering::Equal
        }
    }
}

impl PartialOrd for Addresses {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Addresses {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Addresses {}

/// What is at a run's addresses.
struct Content {
    phys: u64,
    piece: NonZero<u64>,
    rights: Rights,
    state: State,
}

impl Content {
    fn of(run: &Run) -> Self {
        Self {
            phys: run.phys,
            piece: run.piece,
            rights: run.rights,
            state: run.state,
        }
    }
}

const _: () = assert!(
    size_of::<kernel::bindings::rb_node>() + size_of::<Addresses>() + size_of::<Content>()
        <= index::RUN
);

fn run((addresses, content): (&Addresses, &Content)) -> Run {
    Run {
        iova: addresses.0,
        last: addresses.1,
        phys: content.phys,
        piece: content.piece,
        rights: content.rights,
        state: content.state,
    }
}

/// Memory for a run.
pub struct Room(RBTreeNodeReservation<Addresses, Content>);

impl Room {
    /// Errors: `ENOMEM`. Context: that of `gfp`.
    pub(crate) fn new(gfp: Flags) -> Result<Self> {
        RBTreeNodeReservation::new(gfp).map(Self)
    }
}

/// The kernel's red-black tree.
#[derive(Default)]
pub struct Runs {
    tree: RBTree<Addresses, Content>,
    len: usize,
}

impl Tree for Runs {
    type Room = Room;

    fn room() -> Option<Room> {
        Room::new(GFP_ATOMIC | __GFP_NOWARN).ok()
    }

    fn count(&self) -> usize {
        self.len
    }

    fn insert(&mut self, room: Room, run: Run) -> Result<(), Room> {
        match self.tree.entry(Addresses::of(&run)) {
            Entry::Vacant(place) => {
                place.insert(Content::of(&run), room.0);
                self.len += 1;
                Ok(())
            }
            Entry::Occupied(_) => Err(room),
        }
    }

    fn at_or_after(&self, at: u64) -> Option<Run> {
        let cursor = self.tree.cursor_lower_bound(&Addresses(at, at))?;
        Some(run(cursor.current()))
    }

    fn visit(
        &mut self,
        start: u64,
        last: u64,
        mut each: impl FnMut(&Run, &mut State) -> ControlFlow<()>,
    ) {
        let mut place = self.tree.cursor_lower_bound_mut(&Addresses(start, start));
        while let Some(mut cursor) = place {
            let run = run(cursor.current());
            let (_, content) = cursor.current_mut();
            if run.iova > last || each(&run, &mut content.state).is_break() || run.last >= last {
                return;
            }
            place = cursor.move_next();
        }
    }

    fn take_while(
        &mut self,
        at: u64,
        mut wanted: impl FnMut(&Run) -> bool,
        mut taken: impl FnMut(Room),
    ) {
        let mut place = self.tree.cursor_lower_bound_mut(&Addresses(at, at));
        while let Some(cursor) = place {
            let this = run(cursor.current());
            if !wanted(&this) {
                return;
            }
            let (next, node) = cursor.remove_current();
            self.len -= 1;
            taken(Room(node.into_reservation()));
            // After the last one it goes back to the one before.
            place = next.filter(|next| next.current().0 .0 > this.last);
        }
    }
}

/// The mappings of one domain.
pub(crate) type Mappings = index::Mappings<Runs>;

/// Runs to be freed without a lock.
pub(crate) type Freed = index::Freed<Runs>;

/// Why a run was not added.
pub(crate) type Refused = index::Refused<Runs>;
