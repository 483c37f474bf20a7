// SPDX-License-Identifier: GPL-2.0

//! The runs of a domain: what is mapped, and what units are still to forget.
//!
//! This file is pure: it is also built and tested on the host, with another [`Tree`].

use super::run::{
    Rights,
    Run,
    State, //
};
use core::{
    mem::take,
    num::NonZero,
    ops::ControlFlow, //
};

/// Bytes of memory that a run takes at most.
pub const RUN: usize = 64;

/// Runs in the order of their addresses, no two of which share one.
pub trait Tree: Default {
    /// Memory for one run, of [`RUN`] bytes.
    type Room;

    /// Makes room without sleeping; `None` for want of memory.
    fn room() -> Option<Self::Room>;

    /// How many there are.
    fn count(&self) -> usize;

    /// Adds a run. Gives the room back if there is one that shares an address with it.
    fn insert(&mut self, room: Self::Room, run: Run) -> Result<(), Self::Room>;

    /// The first run that ends at `at` or later.
    fn at_or_after(&self, at: u64) -> Option<Run>;

    /// Shows `each` the runs that have an address between two, first and last, in order, until it has seen
    /// enough. It may change their states.
    fn visit(
        &mut self,
        start: u64,
        last: u64,
        each: impl FnMut(&Run, &mut State) -> ControlFlow<()>,
    );

    /// Takes runs out from the first on that ends at `at` or later, in order, as long as `wanted`
    /// says so. `taken` gets their room.
    fn take_while(
        &mut self,
        at: u64,
        wanted: impl FnMut(&Run) -> bool,
        taken: impl FnMut(Self::Room),
    );
}

/// Runs that are not needed any more, to be freed where no lock is held.
pub struct Freed<T: Tree>(#[allow(dead_code)] T);

/// Why a run was not added, with the room that was meant for it.
pub enum Refused<T: Tree> {
    /// Some of its addresses are mapped.
    Mapped(T::Room),
    /// Some of them were unmapped, and are not forgotten yet.
    Deferred(T::Room),
}

/// How many runs stay as they were mapped ([`Mappings::new`]): they take half a megabyte.
pub const FEW: usize = 8192;

/// How much room is kept for times without memory.
const SPARE: usize = 4;

/// Room that is kept for times without memory.
struct Spare<T: Tree>([Option<T::Room>; SPARE]);

impl<T: Tree> Spare<T> {
    /// Keeps room that is not needed, or frees it.
    fn keep(&mut self, room: Option<T::Room>) {
        if let Some(place) = self.0.iter_mut().find(|place| place.is_none()) {
            *place = room;
        }
    }

    /// Room from memory, or what was kept.
    fn room(&mut self) -> Option<T::Room> {
        T::room().or_else(|| self.0.iter_mut().find_map(take))
    }
}

/// The mappings of one domain.
pub struct Mappings<T: Tree> {
    live: T,
    /// Addresses that were unmapped, and that units were not asked to forget yet.
    deferred: T,
    /// Those that units are being asked to forget.
    leaving: T,
    spare: Spare<T>,
    few: usize,
}

/// Takes the first run at or after `at` out, and those after it that `unite` makes one with it. Returns
/// that one.
fn take_united<T: Tree>(
    tree: &mut T,
    spare: &mut Spare<T>,
    at: u64,
    unite: impl Fn(&Run, &Run) -> Option<Run>,
) -> Option<(T::Room, Run)> {
    let (mut one, mut room) = (None, None);
    tree.take_while(
        at,
        |run| {
            let more = match &one {
                None => Some(*run),
                Some(one) => unite(one, run),
            };
            one = more.or(one);
            more.is_some()
        },
        |taken| spare.keep(room.replace(taken)),
    );
    room.zip(one)
}

impl<T: Tree> Mappings<T> {
    /// None.
    ///
    /// As long as there are `few` runs, those that follow each other stay as they were mapped: what is mapped
    /// one by one often goes one by one and comes again, and to make one run of it and to split that each time
    /// would be up to a sixth of what a map and an unmap cost.
    pub fn new(few: usize) -> Self {
        Self {
            live: T::default(),
            deferred: T::default(),
            leaving: T::default(),
            spare: Spare([const { None }; SPARE]),
            few,
        }
    }

    /// The run that maps `iova`, or the first after it.
    pub fn at_or_after(&self, iova: u64) -> Option<Run> {
        self.live.at_or_after(iova)
    }

    /// Where `iova` leads.
    pub fn phys(&self, iova: u64) -> Option<u64> {
        let run = self.at_or_after(iova)?;
        Some(run.phys + iova.checked_sub(run.iova)?)
    }

    /// The first run between two addresses, first and last, that units were told of.
    pub fn told(&mut self, start: u64, last: u64) -> Option<Run> {
        let mut found = None;
        self.live.visit(start, last, |run, state| {
            if *state == State::Fresh {
                return ControlFlow::Continue(());
            }
            found = Some(*run);
            ControlFlow::Break(())
        });
        found
    }

    /// Adds a run, which is told of later.
    pub fn insert(&mut self, room: T::Room, run: Run) -> Result<(), Refused<T>> {
        if self.is_deferred(run.iova, run.last) {
            return Err(Refused::Deferred(room));
        }
        self.live.insert(room, run).map_err(Refused::Mapped)
    }

    /// Whether something between two addresses, first and last, was unmapped and is not forgotten yet.
    pub fn is_deferred(&self, start: u64, last: u64) -> bool {
        [&self.deferred, &self.leaving].into_iter().any(|tree| {
            let run = tree.at_or_after(start);
            run.is_some_and(|run| run.iova <= last)
        })
    }

    /// Shows `each` the fresh runs that start between two addresses, first and last, until it has seen
    /// enough. Those that follow each other are a single piece from here on: units are told of them as that.
    ///
    /// Only whoever mapped them may do this, as the others would not find theirs any more.
    pub fn each_fresh(
        &mut self,
        start: u64,
        last: u64,
        mut each: impl FnMut(&Run) -> ControlFlow<()>,
    ) {
        // Shown when it is seen where it ends.
        let mut piece: Option<Run> = None;
        let mut joined = false;
        self.live.visit(start, last, |run, state| {
            if *state == State::Told || run.iova < start {
                return ControlFlow::Continue(());
            }
            let Some(before) = piece.replace(*run) else {
                return ControlFlow::Continue(());
            };
            if let Some(both) = before.as_piece(run) {
                piece = Some(both);
                joined = true;
                return ControlFlow::Continue(());
            }
            let enough = each(&before);
            if enough.is_break() {
                piece = None;
            }
            enough
        });
        if let Some(piece) = piece {
            let _ = each(&piece);
        }
        if joined {
            // All of them, so that the next look at the rest finds none.
            self.unite(start, last, Run::as_piece);
        }
    }

    /// Units were told of the fresh runs between two addresses, first and last.
    pub fn settle(&mut self, start: u64, last: u64) {
        self.live.visit(start, last, |run, state| {
            if run.iova >= start {
                *state = State::Told;
            }
            ControlFlow::Continue(())
        });
        if self.live.count() > self.few {
            // The ones next to them may be of their kind.
            let (start, last) = (start.saturating_sub(1), last.saturating_add(1));
            self.unite(start, last, Run::as_run);
        }
    }

    /// Has `unite` make one run of those that follow each other and have an address between two, first and
    /// last.
    fn unite(&mut self, start: u64, last: u64, unite: impl Fn(&Run, &Run) -> Option<Run>) {
        let mut at = Some(start);
        while let Some(from) = at {
            let mut before: Option<Run> = None;
            at = None;
            self.live.visit(from, last, |run, _| {
                if before.is_some_and(|before| unite(&before, run).is_some()) {
                    at = before.map(|before| before.iova);
                    return ControlFlow::Break(());
                }
                before = Some(*run);
                ControlFlow::Continue(())
            });
            // Most follow none.
            let Some(first) = at else {
                return;
            };
            let one = take_united(&mut self.live, &mut self.spare, first, |one, next| {
                unite(one, next).filter(|_| next.iova <= last)
            });
            if let Some((room, run)) = one {
                at = run.last.checked_add(1);
                // There is place: that of those it is made of.
                let _ = self.live.insert(room, run);
            }
        }
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
        let mut next = Some(start);
        while let Some(at) = next.filter(|at| *at <= last) {
            let spare = &mut self.spare;
            self.live.take_while(
                at,
                |run| {
                    let follows = next == Some(run.iova) && run.iova <= last;
                    let whole = follows && (run.last <= last || run.is_piece());
                    if whole {
                        next = run.last.checked_add(1);
                    }
                    whole
                },
                |room| spare.keep(Some(room)),
            );
            if next == Some(at) {
                // No run goes whole here.
                let Some(stop) = self.cut(at, last) else {
                    break;
                };
                next = stop.checked_add(1);
            }
        }
        // `None`: all up to the last address there is.
        next.unwrap_or(0).wrapping_sub(start)
    }

    /// Takes the pieces out of a run that begin between two addresses, of which it has the first. Returns
    /// the last address of these; `None` if none begins there, or for want of memory.
    fn cut(&mut self, start: u64, last: u64) -> Option<u64> {
        let run = self.at_or_after(start).filter(|run| run.iova <= start)?;
        if (start - run.iova) % run.piece != 0 {
            return None;
        }
        let wanted = run.last.min(last) - run.iova;
        let stop = run.iova + (wanted - wanted % run.piece) + (run.piece.get() - 1);
        let (before, after) = (run.before(start), run.after(stop));
        let mut more = None;
        if before.is_some() && after.is_some() {
            more = Some(self.spare.room()?);
        }
        let one = |_: &Run, _: &Run| None;
        let (room, _) = take_united(&mut self.live, &mut self.spare, start, one)?;
        let mut rooms = [Some(room), more].into_iter().flatten();
        for (run, room) in [before, after].into_iter().flatten().zip(&mut rooms) {
            // They were there before.
            let _ = self.live.insert(room, run);
        }
        self.spare.keep(rooms.next());
        Some(stop)
    }

    /// Remembers that addresses, first and last, which were unmapped, are to be forgotten later.
    /// `false` for want of memory: then they have to be forgotten now.
    pub fn defer(&mut self, start: u64, last: u64) -> bool {
        let (run, room) = self.with_deferred(start, last);
        let room = room.or_else(|| self.spare.room());
        room.map(|room| self.deferred.insert(room, run)).is_some()
    }

    /// Makes one run of addresses, first and last, and the deferred ones that they meet or follow, which it
    /// takes out. Gives the room of one.
    fn with_deferred(&mut self, start: u64, last: u64) -> (Run, Option<T::Room>) {
        let addresses = Run {
            iova: start,
            last,
            phys: 0,
            piece: NonZero::<u64>::MIN,
            rights: Rights {
                read: false,
                write: false,
                mmio: false,
            },
            state: State::Told,
        };
        let (mut all, mut room) = (addresses, None);
        let spare = &mut self.spare;
        self.deferred.take_while(
            start.saturating_sub(1),
            |run| {
                let meets = run.iova <= last.saturating_add(1);
                if meets {
                    all.iova = all.iova.min(run.iova);
                    all.last = all.last.max(run.last);
                }
                meets
            },
            |taken| spare.keep(room.replace(taken)),
        );
        (all, room)
    }

    /// Units are about to be asked to forget what was deferred until now; see [`span`](Self::span). What
    /// is deferred later is not part of it. Whether there is something.
    ///
    /// [`end_flush`](Self::end_flush) comes before the next one.
    pub fn begin_flush(&mut self) -> bool {
        self.leaving = take(&mut self.deferred);
        self.leaving.count() > 0
    }

    /// The first addresses at or after `from` that can be forgotten in one go, first and last: ranges
    /// with what lies between, as long as nothing is mapped there that a unit knows of.
    pub fn span(&mut self, from: u64) -> Option<(u64, u64)> {
        let first = self.leaving.at_or_after(from)?;
        let mut last = first.last;
        while let Some(next) = last
            .checked_add(1)
            .and_then(|at| self.leaving.at_or_after(at))
        {
            if self.told(last, next.iova).is_some() {
                break;
            }
            last = next.last;
        }
        Some((first.iova, last))
    }

    /// Units have forgotten it, or else it waits on.
    pub fn end_flush(&mut self, forgotten: bool) -> Freed<T> {
        let mut rest = take(&mut self.leaving);
        if forgotten {
            return Freed(rest);
        }
        let one = |_: &Run, _: &Run| None;
        while let Some((room, run)) = take_united(&mut rest, &mut self.spare, 0, one) {
            let (run, more) = self.with_deferred(run.iova, run.last);
            self.spare.keep(more);
            let _ = self.deferred.insert(room, run);
        }
        Freed(rest)
    }
}
