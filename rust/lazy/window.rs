// SPDX-License-Identifier: GPL-2.0

//! The allocator of I/O virtual addresses whose freed pages wait for one flush, all together.
//!
//! Pure: compiled into the kernel and into the host tests alike.
//!
//! The leaf entries (see [`super::leaves`]) say who has which page. All else here are hints where to
//! look, and a count of laps that makes flushes rare: each CPU takes chunks of pages in turn, and when
//! all chunks were given out once (a *lap*), one flush frees everything that was freed during it. An
//! old or overwritten hint costs time, never correctness. So nothing here takes a lock but a flush, and
//! an interrupt may come anywhere and use the same window.

use super::{
    clock::{Clock, Hardware},
    fit::{Geometry, Request},
    format::Format,
    leaves::{self, NotMapped, Pending, Refusal, Table},
    recent::{self, Run},
    word::{Line, Word},
};

/// Why nothing was mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error<E> {
    /// The request can never be met, here or anywhere; or a new entry was not present.
    Invalid,
    /// No run of free pages is long enough, even after a flush.
    Full,
    /// There may be one after a flush, but the flush failed.
    Flush(E),
}

/// What happened in a window, for statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Laps begun after the first one.
    pub laps: u64,
    /// Flushes that were started.
    pub flushes: u64,
    /// Those that failed.
    pub failed: u64,
    /// Searches through all that a request may use, that found nothing.
    pub searches: u64,
}

/// Chunks that a CPU takes one after the other before it searches the window: in one that is nearly
/// full, each chunk taken brings the next flush nearer.
const TRIES: usize = 8;

/// Searches of the window before a request is refused. Each but the last means that something has
/// changed since the one before; usually there are two, before and after a flush.
const SEARCHES: usize = 64;

/// A window of I/O virtual addresses.
pub struct Window<E: Table + Hardware> {
    env: E,
    geometry: Geometry,
    clock: Clock<E::Word>,
    /// Chunks given out since the beginning.
    next: Line<E::Word>,
    /// Where searches of the window start.
    low: Line<E::Word>,
    /// The last lap that was entered. Written exclusively.
    lap: E::Word,
    searches: E::Word,
}

impl<E: Table + Hardware> Window<E> {
    /// Makes a window of pages that were never used. `ageing` says whether there is a maximum age.
    ///
    /// `None` if `env` has not enough entries.
    pub fn new(env: E, geometry: Geometry, ageing: bool) -> Option<Self> {
        if env.leaves().len() < geometry.pages() {
            return None;
        }
        Some(Self {
            env,
            geometry,
            clock: Clock::new(ageing),
            next: Line(Word::new(0)),
            low: Line(Word::new(0)),
            lap: Word::new(0),
            searches: Word::new(0),
        })
    }

    /// Returns what the window was made with.
    pub fn env(&self) -> &E {
        &self.env
    }

    /// Returns the window's place and shape.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Maps a run of pages and returns the index of its first page.
    ///
    /// `leaf` returns the entry for each place in the run. It is called for the places in order, and
    /// again from 0 on if a page was not free; the hardware may already use what it returned. It may be called
    /// within [`Hardware::exclusively`]. `cpu` says whose cursor is used; any number will do, the caller's own
    /// is fastest.
    ///
    /// Errors: see [`Error`]. Nothing is mapped then. Context: any, if
    /// [`Hardware::exclusively`] and [`Hardware::flush`] allow it.
    #[inline]
    pub fn map(
        &self,
        cpu: usize,
        request: &Request,
        mut leaf: impl FnMut(usize) -> u64,
    ) -> Result<usize, Error<E::Error>> {
        if *request == Request::new(1) {
            if let Some(first) = self.map_next(cpu, leaf(0)) {
                return Ok(first);
            }
        }
        self.map_run(cpu, request, &mut leaf)
    }

    /// Maps a page where the cursor of `cpu` is, and returns its index: what [`Window::map`] tries first for
    /// one page that may be anywhere in the window, in a few instructions.
    ///
    /// `None`: nothing is mapped, as that page is not free, or of no chunk of this CPU, or `leaf` is not
    /// present. Context: any.
    #[inline]
    pub fn map_next(&self, cpu: usize, leaf: u64) -> Option<usize> {
        let cursor = &self.env.cursors().get(cpu)?.0;
        let place = cursor.load();
        let (next, end) = unpack(place);
        if next >= end {
            return None;
        }
        let word = self.entries().get(next)?;
        if !leaves::claim_one(&self.env, word, self.clock.flushed(), leaf) {
            return None;
        }
        cursor.store(advance(place));
        Some(next)
    }

    /// [`Window::map`] where it is not the usual case, which is not to be slowed down by this one.
    #[inline(never)]
    fn map_run(
        &self,
        cpu: usize,
        request: &Request,
        leaf: &mut impl FnMut(usize) -> u64,
    ) -> Result<usize, Error<E::Error>> {
        let usable = self.geometry.usable(request);
        if !request.is_valid() || self.geometry.place(request, 0, usable).is_none() {
            return Err(Error::Invalid);
        }
        // A cursor may be anywhere in the window. And if all CPUs took chunks for large requests in a
        // small window, little of a lap would be left.
        let chunks = self.chunks_for(request);
        let all = chunks.saturating_mul(self.env.cursors().len());
        if usable == self.geometry.pages() && (chunks == 1 || all <= self.geometry.chunks() / 4) {
            if let Some(first) = self.map_at_cursor(cpu, chunks, request, leaf)? {
                return Ok(first);
            }
        }
        self.search(usable, request, leaf)
    }

    /// Maps a run of pages from index `first` on; `leaf` as for [`Window::map`]. Does not flush.
    ///
    /// Errors: [`Error::Full`] if a page is not free, or waits for a flush; [`Error::Invalid`] if one
    /// is not in the window, or a new entry is not present. Context: any.
    pub fn map_at(
        &self,
        first: usize,
        pages: usize,
        mut leaf: impl FnMut(usize) -> u64,
    ) -> Result<(), Error<E::Error>> {
        let run = self.run(first, pages).ok_or(Error::Invalid)?;
        let flushed = self.clock.flushed();
        if leaves::last_busy::<E>(run, flushed).is_some() {
            return Err(Error::Full);
        }
        leaves::claim(&self.env, &self.clock, run, flushed, &mut leaf).map_err(|refusal| {
            match refusal {
                Refusal::Busy(_) => Error::Full,
                Refusal::Invalid => Error::Invalid,
            }
        })
    }

    /// Unmaps `pages` pages from index `first` on. They are handed out again after the next flush.
    ///
    /// Errors: some were not mapped, or are not in the window; those that were mapped are unmapped,
    /// and nothing happens to the others. Context: any.
    #[inline]
    pub fn unmap(&self, first: usize, pages: usize) -> Result<(), NotMapped> {
        match self.run(first, pages) {
            Some(run) => leaves::release(&self.env, &self.clock, run),
            None => Err(NotMapped { pages }),
        }
    }

    /// Unmaps as [`Window::unmap`] does, but keeps the run for [`Window::map_again`] if it can.
    #[inline]
    pub fn unmap_for_now(&self, first: usize, pages: usize) -> Result<(), NotMapped> {
        let run = self.run(first, pages).ok_or(NotMapped { pages })?;
        let leaf = run.first().map_or(0, Word::load);
        let Some(word) = recent::word::<E::Format>(leaf, Run { first, pages }) else {
            return leaves::release(&self.env, &self.clock, run);
        };
        // Others may wait for what is in no place yet.
        let kept = self.env.promptly(|| {
            let kept = leaves::keep(&self.env, &self.clock, run, leaf);
            if kept && !recent::put(self.env.recent(), word) {
                self.push(word);
            }
            kept
        });
        // That was full, as clearing is: a timer that expires finds the run, or is found idle.
        self.clock.age(&self.env);
        if kept {
            return Ok(());
        }
        leaves::release(&self.env, &self.clock, run)
    }

    /// Keeps a run in another one's place. Or frees it: who unmaps waits for nobody's flush.
    #[inline(never)]
    fn push(&self, word: u64) {
        let pushed = self.env.exclusively_if_free(|| {
            let pushed = recent::push(self.env.recent(), word)?;
            self.retire(pushed);
            Some(())
        });
        if pushed.flatten().is_none() {
            self.retire(recent::run(word));
        }
    }

    /// Maps a run of pages that is kept, and returns its first page: hardware has been told of it. `leaf` as
    /// for [`Window::map`].
    ///
    /// `None`: nothing is mapped, as there is none. Context: any.
    #[inline]
    pub fn map_again(
        &self,
        request: &Request,
        mut leaf: impl FnMut(usize) -> u64,
    ) -> Option<usize> {
        if request.pages > recent::LONGEST {
            return None;
        }
        let entry = leaf(0);
        let whole = (1..request.pages).all(|place| leaf(place) == leaves::at(entry, place));
        if !whole || !E::Format::is_present(entry) {
            return None;
        }
        let suits = |first| self.geometry.suits(request, first);
        self.env.promptly(|| {
            let places = self.env.recent();
            let first = recent::take::<E::Format, _>(places, entry, request.pages, suits)?;
            leaves::use_again::<E>(self.run(first, request.pages)?, entry);
            Some(first)
        })
    }

    /// Returns how many runs are kept.
    pub fn kept(&self) -> usize {
        let places = self.env.recent().iter();
        places.filter(|place| place.load() != recent::NONE).count()
    }

    /// Frees all that is kept. Within [`Hardware::exclusively`].
    fn retire_locked(&self) {
        for place in self.env.recent() {
            let word = place.load();
            // If somebody was faster it is mapped again, or another run, which was unmapped just now.
            if word != recent::NONE && place.compare_exchange(word, recent::NONE).is_ok() {
                self.retire(recent::run(word));
            }
        }
    }

    fn retire_all(&self) {
        if !self.env.recent().is_empty() {
            self.env.exclusively(|| self.retire_locked());
        }
    }

    fn retire(&self, run: Run) {
        if let Some(run) = self.run(run.first, run.pages) {
            leaves::retire(&self.env, &self.clock, run);
        }
    }

    /// Returns the entry of a page if it is mapped.
    pub fn lookup(&self, index: usize) -> Option<u64> {
        let entry = self.entries().get(index)?.load();
        E::Format::is_mapped(entry).then_some(entry)
    }

    /// Returns how many pages are mapped. Reads all entries.
    pub fn mapped(&self) -> usize {
        self.entries()
            .iter()
            .filter(|word| E::Format::is_mapped(word.load()))
            .count()
    }

    /// Takes pages out of use for good: reserved regions. Returns whether all of them are out of
    /// use now; pages that are mapped, wait for a flush, or are not in the window cannot be.
    pub fn reserve(&self, first: usize, pages: usize) -> bool {
        let flushed = self.clock.flushed();
        self.run(first, pages).is_some_and(|run| {
            run.iter()
                .fold(true, |all, word| leaves::reserve::<E>(word, flushed) && all)
        })
    }

    /// Makes sure that the hardware reaches nothing that was unmapped before this call: one flush.
    ///
    /// Errors: the flush failed. Context: as for [`Window::map`].
    pub fn drain(&self) -> Result<(), E::Error> {
        self.retire_all();
        self.clock.drain(&self.env)
    }

    /// What the timer calls; see [`Clock::expire`].
    pub fn expire(&self) -> Result<(), E::Error> {
        self.clock.expire(&self.env, || self.retire_all())
    }

    /// Switches the maximum age on or off; see [`Clock::set_ageing`].
    pub fn set_ageing(&self, ageing: bool) {
        self.clock.set_ageing(ageing);
    }

    /// Returns the statistics. None of them is counted where a page is mapped or unmapped.
    pub fn counts(&self) -> Counts {
        let (flushes, failed) = self.clock.counts();
        Counts {
            laps: self.lap.load(),
            flushes,
            failed,
            searches: self.searches.load(),
        }
    }

    #[inline]
    fn entries(&self) -> &[E::Word] {
        self.env
            .leaves()
            .get(..self.geometry.pages())
            .unwrap_or_default()
    }

    #[inline]
    fn run(&self, first: usize, pages: usize) -> Option<&[E::Word]> {
        self.entries().get(first..first.checked_add(pages)?)
    }

    /// Returns how many chunks are taken at a time: so many that the rest, which may be lost for this
    /// lap, is a quarter at most.
    fn chunks_for(&self, request: &Request) -> usize {
        let chunk = self.geometry.chunk();
        if request.pages <= chunk / 4 {
            return 1;
        }
        request.pages.saturating_mul(4).div_ceil(chunk)
    }

    /// Maps in what is left of the CPU's chunks, or in the next few ones.
    fn map_at_cursor(
        &self,
        cpu: usize,
        chunks: usize,
        request: &Request,
        leaf: &mut impl FnMut(usize) -> u64,
    ) -> Result<Option<usize>, Error<E::Error>> {
        let Some(cursor) = self.env.cursors().get(cpu) else {
            return Ok(None);
        };
        let (mut from, mut end) = unpack(cursor.0.load());
        for left in (0..=TRIES).rev() {
            let flushed = self.clock.flushed();
            if let Some(first) = self.claim_between(request, from, end, flushed, leaf)? {
                cursor.0.store(pack(first + request.pages, end));
                return Ok(Some(first));
            }
            if left == 0 {
                break;
            }
            let Some((start, after)) = self.take(chunks) else {
                break;
            };
            // If nobody else took a chunk since, the run may begin in the old one.
            from = if start == end {
                from.max((end + 1).saturating_sub(request.pages))
            } else {
                start
            };
            end = after;
        }
        // What was looked through in vain is not looked through again.
        cursor.0.store(pack(end, end));
        Ok(None)
    }

    /// Takes the next chunks: first page, and page after the last one. Fewer than `count` where the
    /// window ends.
    fn take(&self, count: usize) -> Option<(usize, usize)> {
        let chunks = self.geometry.chunks() as u64;
        let mut next = self.next.0.load();
        loop {
            let first = next.checked_rem(chunks)?;
            let after = chunks.min(first.saturating_add(count as u64));
            match self.next.0.compare_exchange(next, next + (after - first)) {
                Ok(()) => {
                    self.enter(next.checked_div(chunks)?);
                    // CAST: at most the number of chunks.
                    return self.geometry.chunk_range(first as usize, after as usize);
                }
                // Another CPU took some: there is progress.
                Err(now) => next = now,
            }
        }
    }

    /// Begins a lap, if nobody has, with a flush that frees what was freed in the one before.
    fn enter(&self, lap: u64) {
        if self.lap.load_acquire() >= lap {
            return;
        }
        self.env.exclusively(|| {
            if self.lap.load() >= lap {
                return;
            }
            self.retire_locked();
            // Also if there was one since the last lap began, for the maximum age: what was freed after
            // that would be in the way, and be searched through in vain. If it fails the lap is of
            // little use, but the search after it tries again.
            let _ = self.clock.flush_after_locked(self.clock.epoch(), &self.env);
            self.lap.store_release(lap);
        });
    }

    /// Claims the first run that suits, between two indices.
    fn claim_between(
        &self,
        request: &Request,
        from: usize,
        end: usize,
        flushed: u64,
        leaf: &mut impl FnMut(usize) -> u64,
    ) -> Result<Option<usize>, Error<E::Error>> {
        let mut from = from;
        while let Some(first) = self.geometry.place(request, from, end) {
            let Some(run) = self.run(first, request.pages) else {
                break;
            };
            // Claiming can only be undone by an unmap, and those pages wait for a flush then. So
            // it is not begun when it is seen to fail. From the end on: the search goes on behind.
            from = match leaves::last_busy::<E>(run, flushed) {
                Some(place) => first + place + 1,
                None => match leaves::claim(&self.env, &self.clock, run, flushed, leaf) {
                    Ok(()) => return Ok(Some(first)),
                    Err(Refusal::Busy(place)) => first + place + 1,
                    Err(Refusal::Invalid) => return Err(Error::Invalid),
                },
            };
        }
        Ok(None)
    }

    /// Claims a run anywhere in the first `usable` pages, from where the last one was found.
    fn sweep(
        &self,
        usable: usize,
        request: &Request,
        flushed: u64,
        leaf: &mut impl FnMut(usize) -> u64,
    ) -> Result<Option<usize>, Error<E::Error>> {
        // CAST: an index.
        let low = (self.low.0.load() as usize).min(usable);
        let wrapped = usable.min(low.saturating_add(request.pages - 1));
        for (from, end) in [(low, usable), (0, wrapped)] {
            if let Some(first) = self.claim_between(request, from, end, flushed, leaf)? {
                self.low.0.store((first + request.pages) as u64);
                return Ok(Some(first));
            }
        }
        self.searches.fetch_add(1);
        Ok(None)
    }

    /// Flushes, and claims a run before anybody else can have what the flush has freed. Who only
    /// flushes and searches again may find that others, faster, have used all of it, for ever.
    fn flush_and_sweep(
        &self,
        usable: usize,
        request: &Request,
        leaf: &mut impl FnMut(usize) -> u64,
    ) -> Result<Option<usize>, Error<E::Error>> {
        let entries = self.entries().get(..usable).unwrap_or_default();
        self.env.exclusively(|| {
            let mut flushed = self.clock.flushed();
            let mut result = self.sweep(usable, request, flushed, leaf);
            // While the first flush ran, others may have used what was free before, and freed it too
            // late for that flush. After it they have nothing more to use. So the second one gets all.
            for _ in 0..2 {
                if !matches!(result, Ok(None)) {
                    break;
                }
                self.retire_locked();
                if leaves::survey::<E>(entries, flushed).0 != Pending::Freed {
                    break;
                }
                result = match self.clock.flush_locked(&self.env) {
                    Ok(number) => {
                        flushed = number;
                        self.sweep(usable, request, flushed, leaf)
                    }
                    Err(error) => Err(Error::Flush(error)),
                };
            }
            self.clock.publish(flushed);
            result
        })
    }

    /// Maps anywhere in the first `usable` pages, flushing if that gains any.
    fn search(
        &self,
        usable: usize,
        request: &Request,
        leaf: &mut impl FnMut(usize) -> u64,
    ) -> Result<usize, Error<E::Error>> {
        let mut before = None;
        for round in 0..SEARCHES {
            let flushed = self.clock.flushed();
            if let Some(first) = self.sweep(usable, request, flushed, leaf)? {
                return Ok(first);
            }
            self.retire_all();
            // Judged by what was flushed when the search began: a page that has become free since
            // then is one more reason to search again.
            let entries = self.entries().get(..usable).unwrap_or_default();
            let (pending, digest) = leaves::survey::<E>(entries, flushed);
            match pending {
                // All was as it is now while it was searched, so there was no run. Else pages may
                // have been given back here while others were taken there, ahead of the search.
                Pending::Nothing if before == Some(digest) => return Err(Error::Full),
                Pending::Nothing => {}
                Pending::Leaving => self.env.relax(),
                // One flush does for all who wait for it.
                Pending::Freed if round == 0 => self
                    .clock
                    .flush_after(self.clock.epoch(), &self.env)
                    .map_err(Error::Flush)?,
                Pending::Freed => {
                    if let Some(first) = self.flush_and_sweep(usable, request, leaf)? {
                        return Ok(first);
                    }
                }
            }
            before = Some(digest);
        }
        Err(Error::Full)
    }
}

/// A cursor: the next page to try, and the page after the last one of the chunk.
#[inline]
fn pack(next: usize, end: usize) -> u64 {
    ((next as u64) << 32) | end as u64
}

/// A cursor whose next page is before the end of its chunk, which is below 2^32, a page further.
#[inline]
fn advance(cursor: u64) -> u64 {
    cursor.wrapping_add(pack(1, 0))
}

#[inline]
fn unpack(cursor: u64) -> (usize, usize) {
    // CAST: 32 bits each.
    (
        (cursor >> 32) as usize,
        (cursor & u64::from(u32::MAX)) as usize,
    )
}
