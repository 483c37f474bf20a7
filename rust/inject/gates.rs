// SPDX-License-Identifier: GPL-2.0

//! What a point does in test builds, and the file that arms it.

use super::{
    command::Command,
    rules::{
        bit,
        ArmError,
        Arrival,
        Rules,
        Ticket, //
    }, //
};
use core::fmt::Display;
use kernel::{
    debugfs::{
        Dir,
        File, //
    },
    device::Device,
    fmt,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        global_lock, //
    },
    time::{
        delay::{
            fsleep,
            udelay, //
        },
        Delta,
        Instant,
        Monotonic, //
    },
    uaccess::UserSliceReader, //
};

/// The longest command, in bytes.
const LINE: usize = 128;
/// When a gate opens by itself. Sleepers poll, so this may exceed the time after which
/// the kernel complains about a hung task.
const SLEEP_LIMIT: Delta = Delta::from_secs(60);
/// The same in atomic context, well below what the kernel takes for a lockup.
const SPIN_LIMIT: Delta = Delta::from_secs(5);
const SLEEP_STEP: Delta = Delta::from_micros(100);
const SPIN_STEP: Delta = Delta::from_micros(10);

/// [`Rules::mask`], to be read without the lock. A rule holds for who arrives after the
/// write that armed it has returned; for that the order of a system call is enough.
static ARMED: Atomic<u64> = Atomic::new(0);

global_lock! {
    // SAFETY: `Control::new` initialises it, when the framework is loaded. It is used by
    // the file made after that, and by points while `ARMED` is not 0, which only the file
    // can bring about.
    unsafe(uninit) static RULES: SpinLockIrq<Rules> = Rules::NONE;
}

/// Changes the rules. Context: any.
fn change<T>(change: impl FnOnce(&mut Rules) -> T) -> T {
    let mut rules = RULES.lock();
    let result = change(&mut rules);
    ARMED.store(rules.mask(), Relaxed);
    result
}

fn is_armed(point: &str) -> bool {
    let armed = ARMED.load(Relaxed);
    armed != 0 && armed & bit(point) != 0
}

/// See [`super::reach`].
#[inline]
pub(super) fn reach(point: &'static str, dev: Option<&Device>) -> Result {
    if !is_armed(point) {
        return Ok(());
    }
    arrive(point, dev, SLEEP_LIMIT, fsleep)
}

/// See [`super::fails_atomic`].
#[inline]
pub(super) fn reach_atomic(point: &'static str) -> Result {
    if !is_armed(point) {
        return Ok(());
    }
    arrive(point, None, SPIN_LIMIT, spin)
}

fn spin(delta: Delta) {
    // udelay() takes a few milliseconds at most.
    let start = Instant::<Monotonic>::now();
    while start.elapsed() < delta {
        udelay(SPIN_STEP);
    }
}

#[inline(never)]
fn arrive(point: &str, dev: Option<&Device>, limit: Delta, pause: fn(Delta)) -> Result {
    let name = dev.and_then(|dev| dev.name().to_str().ok());
    let Arrival {
        micros,
        gate,
        errno,
    } = RULES.lock().arrive(point, name);
    if micros > 0 {
        pause(Delta::from_micros(micros.into()));
    }
    if let Some(ticket) = gate {
        hold(point, ticket, limit, pause);
    }
    match errno {
        Some(errno) => Err(Error::from_errno(-c_int::from(errno))),
        None => Ok(()),
    }
}

fn hold(point: &str, ticket: Ticket, limit: Delta, pause: fn(Delta)) {
    let step = if limit == SPIN_LIMIT {
        SPIN_STEP
    } else {
        SLEEP_STEP
    };
    let start = Instant::<Monotonic>::now();
    while RULES.lock().held(ticket) {
        if start.elapsed() > limit {
            change(|rules| rules.give_up(ticket));
            pr_err!("gate {point} timed out\n");
            return;
        }
        pause(step);
    }
}

/// Opens all gates when the module goes.
struct OpenAll;

impl Drop for OpenAll {
    fn drop(&mut self) {
        change(Rules::clear);
    }
}

/// Contents of the file: [`RULES`].
struct Console;

/// The file.
#[pin_data]
pub(crate) struct Control {
    /// Before the file, whose removal waits for who uses it: "wait" then sees its gate gone.
    _open_all: OpenAll,
    #[pin]
    file: File<Console>,
    _dir: Dir,
}

impl Control {
    /// Makes the file. Once, when the framework is loaded.
    pub(crate) fn new() -> Result<Pin<KBox<Self>>> {
        // SAFETY: The module's init function runs once.
        unsafe { RULES.init() };
        let dir = Dir::new(c"rust_iommu");
        KBox::pin_init(
            pin_init!(Self {
                _open_all: OpenAll,
                _dir: dir.clone(),
                file <- dir.read_write_callback_file(
                    c"inject",
                    Console,
                    &Console::show,
                    &Console::write,
                ),
            }),
            GFP_KERNEL,
        )
    }
}

impl Console {
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(&*RULES.lock(), f)
    }

    fn write(&self, reader: &mut UserSliceReader) -> Result {
        let mut line = [0; LINE];
        let len = reader.len();
        reader.read_slice(line.get_mut(..len).ok_or(EINVAL)?)?;
        let text = core::str::from_utf8(&line[..len]).map_err(|_| EINVAL)?;
        match Command::parse(text).ok_or(EINVAL)? {
            Command::Arm(place, kind) => change(|r| r.arm(place, kind)).map_err(|e| match e {
                ArmError::Held => EBUSY,
                ArmError::Full => ENOSPC,
            }),
            Command::Open(place) => change(|r| r.open(&place)).then_some(()).ok_or(ENOENT),
            Command::Clear => {
                change(Rules::clear);
                Ok(())
            }
            Command::Wait(place, seconds) => {
                let start = Instant::<Monotonic>::now();
                while !RULES.lock().waiting(&place).ok_or(ENOENT)? {
                    if start.elapsed() > Delta::from_secs(seconds.into()) {
                        return Err(ETIMEDOUT);
                    }
                    if current!().signal_pending() {
                        return Err(EINTR);
                    }
                    fsleep(SLEEP_STEP);
                }
                Ok(())
            }
        }
    }
}
