// SPDX-License-Identifier: GPL-2.0

//! Arithmetic of a command ring, and the fate of what was put into it.
//!
//! Pure: compiled into the kernel and into the host tests alike.
//!
//! A *position* counts the commands ever pushed, from 0; 64 bits do not wrap. A
//! position's place in the ring is its *index*. Commands are pushed as
//! *submissions*: some commands and, last, the wait command that reports them done.

/// Which places of a ring are in use.
///
/// # Invariants
///
/// The number of entries is a power of two, at least 4; `first <= next < first + entries`. One
/// place always stays empty, because hardware takes a head equal to the tail for an
/// empty ring.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ring {
    /// Entries less one: the bits of a position that are its index.
    mask: u32,
    first: u64,
    next: u64,
}

/// Consecutive positions, pushed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Submission {
    /// Position of the first command.
    pub first: u64,
    /// Number of commands, with the wait command; never 0.
    pub len: u32,
}

impl Submission {
    /// Returns the position of the wait command.
    #[inline]
    pub fn wait(&self) -> u64 {
        self.first + u64::from(self.len.max(1)) - 1
    }

    /// Returns whether `position` is one of this submission's.
    #[inline]
    pub fn contains(&self, position: u64) -> bool {
        (self.first..=self.wait()).contains(&position)
    }
}

impl Ring {
    /// Makes an empty ring; `None` unless `entries` is a power of two from 4 on.
    pub fn new(entries: u32) -> Option<Self> {
        (entries.is_power_of_two() && entries >= 4).then(|| Self {
            mask: entries - 1,
            first: 0,
            next: 0,
        })
    }

    /// Returns the largest number of commands that one submission can have, without
    /// its wait command: a quarter of the ring, so that several CPUs find room.
    #[inline]
    pub fn largest(&self) -> u32 {
        (self.mask / 4).max(1)
    }

    /// Returns the place of a position.
    #[inline]
    pub fn index(&self, position: u64) -> u32 {
        // CAST: truncation is meant; no more bits than these are asked for.
        position as u32 & self.mask
    }

    /// Returns the position that will be pushed next; its index is the ring's tail.
    #[inline]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Returns the first position that may still be in use.
    #[inline]
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Returns the number of free places.
    #[inline]
    pub fn free(&self) -> u32 {
        // CAST: smaller than `entries`, which is 32 bits.
        self.mask - (self.next - self.first) as u32
    }

    /// Takes places for `commands` commands and a wait command, if there are enough.
    #[inline]
    pub fn reserve(&mut self, commands: u32) -> Option<Submission> {
        let len = commands.checked_add(1)?;
        if len > self.free() {
            return None;
        }
        let first = self.next;
        // INVARIANT: at most `free()` more than before.
        self.next += u64::from(len);
        Some(Submission { first, len })
    }

    /// Frees the places of the oldest submissions that are over, which `is_over` says of the one whose
    /// wait command is at a position.
    ///
    /// The hardware works in order, so none is over before those that are older. Often all are, and the
    /// youngest tells for all; else the first that is not ends it.
    ///
    /// `len_at` returns the length of the submission that starts at an index.
    pub fn retire(&mut self, len_at: impl Fn(u32) -> u32, is_over: impl Fn(u64) -> bool) {
        if self.first < self.next && is_over(self.next - 1) {
            // INVARIANT: nothing is in use.
            self.first = self.next;
            return;
        }
        while let Some(oldest) = self.at(self.first, &len_at) {
            if !is_over(oldest.wait()) {
                break;
            }
            // INVARIANT: `at()` returns only submissions that end before `next`.
            self.first = oldest.wait() + 1;
        }
    }

    /// Calls `each` for the submissions in use, oldest first.
    pub fn for_each(&self, len_at: impl Fn(u32) -> u32, mut each: impl FnMut(Submission)) {
        let mut position = self.first;
        while let Some(submission) = self.at(position, &len_at) {
            position = submission.wait() + 1;
            each(submission);
        }
    }

    /// Returns the position in use, or the next one, whose index the hardware gave.
    ///
    /// `None` if no command is there: hardware is not to be trusted.
    pub fn locate(&self, index: u32) -> Option<u64> {
        let ahead = index.wrapping_sub(self.index(self.first)) & self.mask;
        let position = self.first + u64::from(ahead);
        (index <= self.mask && position <= self.next).then_some(position)
    }

    fn at(&self, first: u64, len_at: impl Fn(u32) -> u32) -> Option<Submission> {
        let submission = Submission {
            first,
            len: len_at(self.index(first)).max(1),
        };
        (submission.wait() < self.next).then_some(submission)
    }
}

/// Returns the number that the wait command at `wait` reports.
///
/// Never 0, and another one than a wait command that was in the same place before:
/// positions in one place differ by a multiple of the ring's size, which is even.
#[inline]
pub fn token(wait: u64) -> u32 {
    // CAST: truncation is meant; the place was in use 2^32 positions ago at best.
    wait as u32 | 1
}

/// What went wrong with a submission. Packed with the position of its wait command
/// into one word for each place, as the place will belong to another one later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Hardware refused one of the commands; the wait command is still to come.
    Refused,
    /// As `Refused`, and the hardware has dropped the wait command.
    RefusedAndDropped,
    /// Hardware dropped the wait command, so the commands may not be done.
    Dropped,
}

/// A [`Verdict`] word that says nothing about any submission.
pub const NO_VERDICT: u64 = 0;

impl Verdict {
    /// Packs a verdict about the submission whose wait command is at `wait`.
    #[inline]
    pub fn pack(self, wait: u64) -> u64 {
        let code = match self {
            Verdict::Refused => 1,
            Verdict::RefusedAndDropped => 2,
            Verdict::Dropped => 3,
        };
        (wait << 2) | code
    }

    /// Unpacks a word; `None` if it is not about the submission that waits at `wait`.
    #[inline]
    pub fn unpack(word: u64, wait: u64) -> Option<Self> {
        if word >> 2 != wait & (u64::MAX >> 2) {
            return None;
        }
        match word & 3 {
            1 => Some(Verdict::Refused),
            2 => Some(Verdict::RefusedAndDropped),
            3 => Some(Verdict::Dropped),
            _ => None,
        }
    }
}

/// What a submitter learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Nothing yet.
    Pending,
    /// All commands are done.
    Done,
    /// Hardware refused a command of this submission; nothing is outstanding.
    Refused,
    /// Hardware dropped the wait command: the commands may or may not be done; nothing
    /// is outstanding.
    Dropped,
    /// The submission is over, but the submitter looked too late to know how it ended.
    Unknown,
}

/// Decides the one thing that a status and, read after it, a doubt (see [`Observed`])
/// can tell: that the commands are done and nothing went wrong since. The usual case.
#[inline]
pub fn is_done(wait: u64, status: u32, doubt: u64) -> bool {
    status == token(wait) && doubt <= wait
}

/// What a submitter reads about its submission, in the order of the fields.
///
/// Nobody waits for a submitter to look: its place may be another submission's by
/// then, also between two of these reads. It was over before that, and `retired`
/// tells; but how it ended is then only known if nothing went wrong since.
#[derive(Clone, Copy, Debug)]
pub struct Observed {
    /// The place's status word.
    pub status: u32,
    /// The place's verdict word.
    pub verdict: u64,
    /// [`Ring::first`], stored before any of the places it frees is used again.
    pub retired: u64,
    /// A position after those of all submissions that something went wrong with,
    /// stored before their verdicts.
    pub doubt: u64,
}

/// Decides the outcome of the submission that waits at `wait`.
#[inline]
pub fn outcome(wait: u64, seen: Observed) -> Outcome {
    let answered = seen.status == token(wait);
    let lost_place = seen.retired > wait;
    match Verdict::unpack(seen.verdict, wait) {
        Some(Verdict::Refused) if answered || lost_place => Outcome::Refused,
        Some(Verdict::Refused) => Outcome::Pending,
        Some(Verdict::RefusedAndDropped) => Outcome::Refused,
        Some(Verdict::Dropped) => Outcome::Dropped,
        None if lost_place && wait < seen.doubt => Outcome::Unknown,
        None if lost_place || answered => Outcome::Done,
        None => Outcome::Pending,
    }
}

/// Decides whether the hardware is done with the submission that waits at `wait`, so
/// that its places are free.
#[inline]
pub fn is_over(wait: u64, status: u32, verdict: u64) -> bool {
    match Verdict::unpack(verdict, wait) {
        Some(Verdict::Dropped | Verdict::RefusedAndDropped) => true,
        Some(Verdict::Refused) | None => status == token(wait),
    }
}

/// Returns the new verdict on a submission when the hardware has dropped all wait
/// commands that it had fetched, this one's among them; `None` if it was done before.
pub fn drop_wait(wait: u64, status: u32, verdict: u64) -> Option<Verdict> {
    if is_over(wait, status, verdict) {
        return None;
    }
    Some(match Verdict::unpack(verdict, wait) {
        Some(_) => Verdict::RefusedAndDropped,
        None => Verdict::Dropped,
    })
}
