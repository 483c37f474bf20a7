// SPDX-License-Identifier: GPL-2.0

//! Row A11: for how long a device reaches what was unmapped. Pages are used, so that the hardware
//! has them cached, and unmapped one after the other, some each millisecond or two: so they meet
//! every moment of the timer that has them flushed.

use crate::oracle::Session;
use anyhow::{bail, ensure, Context, Result};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub struct Options {
    /// Folder in debugfs, such as rust_testdev-0000:00:03.0
    name: String,
    /// Milliseconds after which nothing is reached any more; 0: it is not reached at all
    max: u64,
    /// Pages that are unmapped
    #[arg(long, default_value_t = 1000)]
    pages: u32,
    /// Microseconds between two of them
    #[arg(long, default_value_t = 1000)]
    interval: u64,
    /// Percent of the pages whose addresses may be another page's before their time is over
    #[arg(long, default_value_t = 10)]
    reused: u32,
}

/// Tries, where the machine is to blame.
const TRIES: u32 = 3;

/// The device writes from a register access: without a pause QEMU has no time for its timers.
const PAUSE: Duration = Duration::from_micros(100);

pub fn run(o: &Options) -> Result<()> {
    let plan = Plan {
        max: Duration::from_millis(o.max),
        interval: Duration::from_micros(o.interval),
        pages: o.pages,
        reused: o.reused,
    };
    for left in (0..TRIES).rev() {
        let device = Device {
            session: Session::open(&o.name)?,
            start: Instant::now(),
        };
        match plan.run(device) {
            Err(error) if left > 0 && is_machine(&error) => println!("# {error}: once more"),
            result => {
                println!("# {}", result?);
                break;
            }
        }
    }
    Ok(())
}

fn is_machine(error: &anyhow::Error) -> bool {
    let late = error.downcast_ref::<TooLate>();
    late.is_some_and(|late| late.overdue >= Duration::from_millis(1))
}

/// A page was reached that must not be.
#[derive(Debug)]
struct TooLate {
    iova: u64,
    /// Times after the unmap at which it was.
    first: Duration,
    last: Duration,
    /// How late the timer was that has not expired then. The CPU that it is on did not run, or
    /// takes no interrupts: no timer can do anything about that. It is not late at all if whatever
    /// follows its interrupt is, or if it was to expire too late.
    overdue: Duration,
}

impl std::fmt::Display for TooLate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let TooLate {
            iova,
            first,
            last,
            overdue,
        } = self;
        write!(
            f,
            "page {iova:#x} was reached {first:?} after the unmap, and until {last:?}; a timer was late by {overdue:?}"
        )
    }
}

impl std::error::Error for TooLate {}

struct Page {
    handle: u64,
    iova: u64,
}

/// A device that writes, and the time.
trait Writer {
    /// A new page that the device may write to.
    fn map(&mut self) -> Result<Page>;
    fn unmap(&mut self, page: &Page) -> Result<()>;
    /// After the unmap.
    fn free(&mut self, page: &Page) -> Result<()>;
    /// Whether a write went through.
    fn write(&mut self, iova: u64) -> Result<bool>;
    fn now(&mut self) -> Duration;
    /// How late the timer is that flushes.
    fn overdue(&mut self) -> Duration;
}

struct Device {
    session: Session,
    start: Instant,
}

impl Writer for Device {
    fn map(&mut self) -> Result<Page> {
        let answer = self.session.run("map from")?;
        Ok(Page {
            handle: self.session.number(&answer, "handle")?,
            iova: self.session.number(&answer, "iova")?,
        })
    }

    fn unmap(&mut self, page: &Page) -> Result<()> {
        self.session
            .run(&format!("unmap {}", page.handle))
            .map(drop)
    }

    fn free(&mut self, page: &Page) -> Result<()> {
        self.session.run(&format!("free {}", page.handle)).map(drop)
    }

    fn write(&mut self, iova: u64) -> Result<bool> {
        std::thread::sleep(PAUSE);
        match &*self.session.run(&format!("dma write {iova} 4"))? {
            "ok" => Ok(true),
            "tx_fail" => Ok(false),
            other => bail!("the device says '{other}'"),
        }
    }

    fn now(&mut self) -> Duration {
        self.start.elapsed()
    }

    fn overdue(&mut self) -> Duration {
        let list = std::fs::read_to_string("/proc/timer_list");
        overdue(&list.unwrap_or_default())
    }
}

/// From lines as "... rust_iommu_timer_expired, S:01" and "# expires at 3-3 nsecs [in -2 to -2 nsecs]".
fn overdue(list: &str) -> Duration {
    let lines = list.lines().zip(list.lines().skip(1));
    let ours = lines.filter(|(name, _)| name.contains("rust_iommu_timer"));
    let late = ours.filter_map(|(_, expires)| {
        let (_, left) = expires.split_once("[in -")?;
        left.split_once(' ')?.0.parse().ok()
    });
    Duration::from_nanos(late.max().unwrap_or(0))
}

struct Plan {
    max: Duration,
    interval: Duration,
    pages: u32,
    reused: u32,
}

/// What was unmapped.
struct Gone {
    page: Page,
    /// Before the unmap was asked for.
    before: Duration,
    /// When it was done.
    after: Duration,
    /// A write has failed.
    refused: bool,
}

#[derive(Debug, Default)]
struct Figures {
    pages: u32,
    /// Writes went through after the unmap.
    reached: u32,
    /// Longest time after the beginning of an unmap at which one did.
    latest: Duration,
    /// The address was handed out again, so that no write could tell.
    reused: u32,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Figures {
            pages,
            reached,
            latest,
            reused,
        } = self;
        let latest = latest.as_micros();
        write!(
            f,
            "{pages} pages, {reached} reached after the unmap, the latest {latest} us after it, {reused} reused"
        )
    }
}

impl Plan {
    fn run(&self, mut device: impl Writer) -> Result<Figures> {
        let mut figures = Figures::default();
        let mut gone: VecDeque<Gone> = VecDeque::new();
        let mut next = device.now();
        let mut turn = 0usize;
        while figures.pages < self.pages || !gone.is_empty() {
            if figures.pages < self.pages && device.now() >= next {
                let new = self.unmap(&mut device, &mut figures)?;
                if let Some(place) = gone.iter().position(|g| g.page.iova == new.page.iova) {
                    figures.reused += 1;
                    let old = gone.remove(place).context("reused page")?;
                    device.free(&old.page)?;
                }
                gone.push_back(new);
                // Not a multiple of anything.
                let uneven = u64::from(figures.pages) * 7919 % 1000;
                next = device.now() + self.interval / 2 + self.interval * uneven as u32 / 1000;
            }
            // The first one at its end, the others in turn before that.
            let end = |g: &Gone| g.after + self.max;
            let now = device.now();
            if gone.front().is_some_and(|g| now >= end(g)) {
                let last = gone.pop_front().context("first page")?;
                let reached = device.write(last.page.iova)?;
                device.free(&last.page)?;
                if reached {
                    return Err(too_late(&mut device, &last, now).into());
                }
            }
            if gone.is_empty() {
                continue;
            }
            turn = turn.wrapping_add(1) % gone.len();
            let one = &mut gone[turn];
            if one.refused {
                continue;
            }
            let now = device.now();
            if device.write(one.page.iova)? {
                if now >= end(one) {
                    return Err(too_late(&mut device, one, now).into());
                }
                figures.latest = figures.latest.max(now - one.before);
            } else {
                one.refused = true;
            }
        }
        if self.max.is_zero() {
            ensure!(figures.reached == 0, "{figures}");
            return Ok(figures);
        }
        ensure!(
            figures.reached > self.pages / 2,
            "{figures}: nothing was lazy, so nothing was tested"
        );
        ensure!(figures.reused < self.pages * self.reused / 100, "{figures}");
        Ok(figures)
    }

    fn unmap(&self, device: &mut impl Writer, figures: &mut Figures) -> Result<Gone> {
        let page = device.map()?;
        ensure!(device.write(page.iova)?, "a mapped page is not reached");
        let before = device.now();
        device.unmap(&page)?;
        let after = device.now();
        figures.pages += 1;
        let now = device.now();
        let reached = device.write(page.iova)?;
        if reached {
            figures.reached += 1;
            figures.latest = figures.latest.max(now - before);
        }
        Ok(Gone {
            page,
            before,
            after,
            refused: !reached,
        })
    }
}

/// What is known of a page that was reached at `now`.
fn too_late(device: &mut impl Writer, gone: &Gone, now: Duration) -> TooLate {
    let overdue = device.overdue();
    let patience = now + Duration::from_secs(5);
    let mut last = now;
    while last < patience && device.write(gone.page.iova).unwrap_or(false) {
        last = device.now();
    }
    TooLate {
        iova: gone.page.iova,
        first: now - gone.before,
        last: last - gone.before,
        overdue,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Unmapped pages are reached until the next flush; there is one every so many microseconds,
    /// but in one period there is none.
    struct Flushed {
        now: u64,
        period: u64,
        missed: Option<u64>,
        pages: Vec<Option<u64>>,
    }

    impl Flushed {
        fn new(period: u64, missed: Option<u64>) -> Flushed {
            Flushed {
                now: 0,
                period,
                missed,
                pages: Vec::new(),
            }
        }

        fn last_flush(&self) -> u64 {
            let mut number = self.now / self.period;
            if self.missed == Some(number) {
                number -= 1;
            }
            number * self.period
        }
    }

    impl Writer for Flushed {
        fn map(&mut self) -> Result<Page> {
            self.pages.push(None);
            let number = self.pages.len() as u64 - 1;
            Ok(Page {
                handle: number,
                iova: number << 12,
            })
        }

        fn unmap(&mut self, page: &Page) -> Result<()> {
            self.now += 3;
            self.pages[page.handle as usize] = Some(self.now);
            Ok(())
        }

        fn free(&mut self, page: &Page) -> Result<()> {
            ensure!(self.pages[page.handle as usize].is_some());
            Ok(())
        }

        fn write(&mut self, iova: u64) -> Result<bool> {
            self.now += 10;
            let unmapped = self.pages[(iova >> 12) as usize];
            Ok(unmapped.is_none_or(|time| time > self.last_flush()))
        }

        fn now(&mut self) -> Duration {
            self.now += 1;
            Duration::from_micros(self.now)
        }

        fn overdue(&mut self) -> Duration {
            Duration::from_micros(self.now % self.period)
        }
    }

    fn plan(max: u64) -> Plan {
        Plan {
            max: Duration::from_micros(max),
            interval: Duration::from_micros(100),
            pages: 1000,
            reused: 10,
        }
    }

    #[test]
    fn latest_is_found() {
        let figures = plan(5100).run(Flushed::new(5000, None)).unwrap();
        let latest = figures.latest.as_micros();
        assert!((3500..5100).contains(&latest), "{figures}");
        assert_eq!(figures.reused, 0);
    }

    #[test]
    fn a_flush_that_is_too_late_is_seen() {
        let error = plan(4000).run(Flushed::new(5000, None)).unwrap_err();
        assert!(error.downcast_ref::<TooLate>().is_some(), "{error}");
    }

    #[test]
    fn a_flush_that_is_left_out_is_seen() {
        let error = plan(5100).run(Flushed::new(5000, Some(7))).unwrap_err();
        assert!(error.downcast_ref::<TooLate>().is_some(), "{error}");
    }

    #[test]
    fn late_timers_are_found() {
        let list = " #0: <0>, tick_nohz_handler, S:01\n # expires at 1-1 nsecs [in -9 to -9 nsecs]\n \
             #1: <0>, rust_iommu_timer_expired, S:01\n # expires at 5-5 nsecs [in -70 to -70 nsecs]\n \
             #2: <0>, rust_iommu_timer_expired, S:01\n # expires at 5-5 nsecs [in 500 to 500 nsecs]\n";
        assert_eq!(overdue(list), Duration::from_nanos(70));
        assert_eq!(overdue(""), Duration::ZERO);
    }

    #[test]
    fn nothing_lazy_is_an_error() {
        let error = plan(5100).run(Flushed::new(1, None)).unwrap_err();
        assert!(error.to_string().contains("nothing was lazy"), "{error}");
    }
}
