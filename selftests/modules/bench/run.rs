// SPDX-License-Identifier: GPL-2.0

//! The loops.

use crate::plan::{
    Kind,
    Plan,
    SECONDS, //
};
use core::hint::black_box;
use iommu::{
    dma::{
        Buffer,
        Mapping, //
    },
    scatter::ScatterList,
    threads::{
        on_cpus,
        Team, //
    },
};
use kernel::{
    device::{
        Bound,
        Device, //
    },
    dma::{
        DataDirection,
        DmaAddress, //
    },
    new_mutex,
    page::PAGE_SIZE,
    prelude::*,
    sync::Arc,
    time::{
        Delta,
        Instant,
        Monotonic, //
    },
};

/// Pairs after which others may have the CPU.
const BREATH: u64 = 16;
const DIRECTION: DataDirection = DataDirection::FromDevice;

/// What is mapped and unmapped by turns.
enum Slot<'dev> {
    Single {
        dev: &'dev Device<Bound>,
        buffer: Arc<Buffer>,
        mapping: Option<Mapping<'dev>>,
    },
    List(ScatterList<'dev>),
}

impl<'dev> Slot<'dev> {
    fn new(dev: &'dev Device<Bound>, plan: &Plan, place: usize) -> Result<Self> {
        // CAST: a few MB, see the plan.
        let buffer = Buffer::new((plan.buffer(place) as usize).div_ceil(PAGE_SIZE))?;
        if plan.kind == Kind::Single {
            return Ok(Self::Single {
                dev,
                buffer,
                mapping: None,
            });
        }
        let stride = plan.stride() as usize;
        ScatterList::new(dev, buffer, plan.entries, plan.size, stride, DIRECTION).map(Self::List)
    }

    /// Returns where the mapping begins.
    fn map(&mut self) -> Result<DmaAddress> {
        match self {
            Self::Single {
                dev,
                buffer,
                mapping,
            } => {
                let new = Mapping::new(dev, buffer.clone(), DIRECTION)?;
                Ok(mapping.insert(new).dma_addr())
            }
            Self::List(list) => {
                list.map()?;
                list.dma_addr().ok_or(EIO)
            }
        }
    }

    fn unmap(&mut self) {
        match self {
            Self::Single { mapping, .. } => *mapping = None,
            Self::List(list) => list.unmap(),
        }
    }

    /// All that a pair does beside mapping and unmapping.
    fn skip(&mut self) {
        if let Self::Single { buffer, .. } = self {
            drop(black_box(buffer.clone()));
        }
    }
}

/// What came of a run, of all threads together.
#[derive(Clone, Copy)]
pub(crate) struct Sum {
    pub(crate) pairs: u64,
    pub(crate) failed: u64,
    pub(crate) low: DmaAddress,
    pub(crate) high: DmaAddress,
    ns: i64,
    loops: u64,
    loop_ns: i64,
}

fn mean(ns: i64, count: u64) -> i64 {
    // CAST: a count of what took some time each.
    ns.checked_div(count as i64).unwrap_or(0)
}

impl Sum {
    const fn new() -> Self {
        Self {
            pairs: 0,
            failed: 0,
            low: DmaAddress::MAX,
            high: 0,
            ns: 0,
            loops: 0,
            loop_ns: 0,
        }
    }

    fn mapped(&mut self, at: DmaAddress) {
        self.low = self.low.min(at);
        self.high = self.high.max(at);
    }

    /// Mean time of a turn without mapping.
    pub(crate) fn per_loop(&self) -> i64 {
        mean(self.loop_ns, self.loops)
    }

    /// Mean time of a pair, without the loop.
    pub(crate) fn per_pair(&self) -> i64 {
        mean(self.ns, self.pairs) - self.per_loop()
    }

    fn add(&mut self, other: &Self) {
        self.pairs += other.pairs;
        self.failed += other.failed;
        self.low = self.low.min(other.low);
        self.high = self.high.max(other.high);
        self.ns += other.ns;
        self.loops += other.loops;
        self.loop_ns += other.loop_ns;
    }
}

fn slots<'dev>(dev: &'dev Device<Bound>, plan: &Plan) -> Result<KVec<Slot<'dev>>> {
    let mut slots = KVec::with_capacity(plan.depth, GFP_KERNEL)?;
    for place in 0..plan.depth {
        slots.push(Slot::new(dev, plan, place)?, GFP_KERNEL)?;
    }
    Ok(slots)
}

/// Calls `turn` on the slots in a circle; returns how often, and how long it took.
fn turns(
    team: &Team<'_>,
    slots: &mut [Slot<'_>],
    pairs: u64,
    mut turn: impl FnMut(&mut Slot<'_>),
) -> (u64, i64) {
    let begin = Instant::<Monotonic>::now();
    let mut turns = 0;
    while turns < pairs {
        for slot in slots.iter_mut() {
            turn(slot);
            turns += 1;
            if turns == pairs {
                break;
            }
            if turns % BREATH == 0
                && (!team.breathe() || begin.elapsed() > Delta::from_secs(SECONDS))
            {
                return (turns, begin.elapsed().as_nanos());
            }
        }
    }
    (turns, begin.elapsed().as_nanos())
}

fn thread(dev: &Device<Bound>, plan: &Plan, team: &Team<'_>) -> Result<Sum> {
    let mut slots = slots(dev, plan);
    let mut sum = Sum::new();
    team.together();
    if let Ok(slots) = &mut slots {
        (sum.loops, sum.loop_ns) = turns(team, slots, plan.pairs.min(10_000), |slot| slot.skip());
    }
    team.together();
    let mut slots = slots?;
    let (pairs, ns) = turns(team, &mut slots, plan.pairs, |slot| {
        slot.unmap();
        match slot.map() {
            Ok(at) => sum.mapped(at),
            Err(_) => sum.failed += 1,
        }
    });
    (sum.pairs, sum.ns) = (pairs, ns);
    // The last ones are unmapped in time, too.
    let begin = Instant::<Monotonic>::now();
    slots.iter_mut().for_each(Slot::unmap);
    sum.ns += begin.elapsed().as_nanos();
    Ok(sum)
}

/// Runs the threads. May sleep.
pub(crate) fn run(dev: &Device<Bound>, plan: &Plan) -> Result<Sum> {
    let results = KBox::pin_init(new_mutex!(Ok(Sum::new())), GFP_KERNEL)?;
    on_cpus(plan.threads, |team| {
        let result = thread(dev, plan, team);
        let mut all = results.lock();
        match (&mut *all, result) {
            (Ok(sum), Ok(more)) => sum.add(&more),
            (Ok(_), Err(error)) => *all = Err(error),
            (Err(_), _) => {}
        }
    })?;
    let result = *results.lock();
    result
}
