// SPDX-License-Identifier: GPL-2.0

//! The commands. Sizes may end with k or M.
//!
//! ```text
//! mask BITS                  DMA mask, 28 to 64   "done"
//! run KEY=VALUE...           map and unmap        "ns N loop L pairs P failed F low 0xA high 0xB"
//!     kind=single            a buffer (default)
//!     kind=sg                a list of pieces that lie side by side
//!     kind=scattered         a list of pieces with gaps between
//!     size=S                 of the buffer or of each piece (4k)
//!     second=S               of every second buffer (as the others); not for lists
//!     entries=E              pieces of a list (32)
//!     threads=T              each on a CPU of its own (1)
//!     pairs=P                of one map and one unmap, for each thread (10000)
//!     depth=D                mappings of each thread that are there at a time (1)
//! ```
//!
//! N is the mean time of a pair in ns, without that of a loop that does all the same but map and
//! unmap: L. P is how many pairs there were in all, of which F were no pairs as the map failed.
//! A and B are the lowest and the highest address at which a mapping began.
//! A run ends after [`SECONDS`], with fewer pairs then, and on a signal.

use crate::words::Words;
use kernel::{
    cpu::nr_cpu_ids,
    page::PAGE_SIZE,
    prelude::*, //
};

/// How long a run may take. Who else wants the device, for example to unbind it, waits for so long.
pub(crate) const SECONDS: i64 = 20;

/// The largest piece of a list: what a PCI device takes unless its driver says more.
const PIECE: u64 = 64 << 10;
/// The largest buffer: what the page allocator has.
const BUFFER: u64 = 4 << 20;
/// All buffers together.
const MEMORY: u64 = 512 << 20;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Single,
    Side,
    Scattered,
}

/// What to run; checked.
pub(crate) struct Plan {
    pub(crate) kind: Kind,
    pub(crate) size: u32,
    /// Of every second buffer.
    pub(crate) second: u32,
    pub(crate) entries: u32,
    pub(crate) threads: u32,
    pub(crate) pairs: u64,
    pub(crate) depth: usize,
}

fn wrong(key: &str, value: &str, wanted: &str) -> Error {
    pr_err!("{key}={value}: must be {wanted}\n");
    EINVAL
}

fn number(text: &str) -> Option<u64> {
    let (digits, unit) = match text.strip_suffix('k') {
        Some(digits) => (digits, 1 << 10),
        None => match text.strip_suffix('M') {
            Some(digits) => (digits, 1 << 20),
            None => (text, 1),
        },
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

pub(crate) fn bits(number: u64) -> Result<u32> {
    match u32::try_from(number) {
        Ok(bits @ 28..=64) => Ok(bits),
        _ => {
            pr_err!("mask {number}: must be from 28 to 64 bits\n");
            Err(EINVAL)
        }
    }
}

impl Plan {
    pub(crate) fn parse(words: Words<'_>) -> Result<Self> {
        let mut this = Self {
            kind: Kind::Single,
            size: PAGE_SIZE as u32,
            second: 0,
            entries: 32,
            threads: 1,
            pairs: 10_000,
            depth: 1,
        };
        words.each(|word| {
            let Some((key, value)) = word.split_once('=') else {
                pr_err!("{word}: must be KEY=VALUE\n");
                return Err(EINVAL);
            };
            if key == "kind" {
                this.kind = match value {
                    "single" => Kind::Single,
                    "sg" => Kind::Side,
                    "scattered" => Kind::Scattered,
                    _ => return Err(wrong(key, value, "single, sg or scattered")),
                };
                return Ok(());
            }
            let within = |last: u64, wanted| match number(value) {
                Some(n) if (1..=last).contains(&n) => Ok(n),
                _ => Err(wrong(key, value, wanted)),
            };
            // CAST: small, as was just checked.
            match key {
                "size" => this.size = within(BUFFER, "from 4k to 4M")? as u32,
                "second" => this.second = within(BUFFER, "from 4k to 4M")? as u32,
                "entries" => this.entries = within(256, "from 1 to 256")? as u32,
                "threads" => this.threads = within(64, "from 1 to 64")? as u32,
                "pairs" => this.pairs = within(100_000_000, "from 1 to 100000000")?,
                "depth" => this.depth = within(1024, "from 1 to 1024")? as usize,
                _ => {
                    pr_err!("{key}: no such parameter\n");
                    return Err(EINVAL);
                }
            }
            Ok(())
        })?;
        if this.second == 0 {
            this.second = this.size;
        }
        this.check()?;
        Ok(this)
    }

    fn check(&self) -> Result {
        if self.threads > nr_cpu_ids() {
            pr_err!(
                "threads={}: there are {} CPUs\n",
                self.threads,
                nr_cpu_ids()
            );
            return Err(EINVAL);
        }
        for size in [self.size, self.second] {
            if !size.is_power_of_two() || (size as usize) < PAGE_SIZE {
                pr_err!("a size of {size}: must be a power of two, 4k at least\n");
                return Err(EINVAL);
            }
        }
        if self.kind != Kind::Single && self.second != self.size {
            pr_err!("second={}: only for kind=single\n", self.second);
            return Err(EINVAL);
        }
        if self.kind != Kind::Single && u64::from(self.size) > PIECE {
            pr_err!("size={}: a piece of a list has 64k at most\n", self.size);
            return Err(EINVAL);
        }
        let buffer = self.buffer(0).max(self.buffer(1)).next_power_of_two();
        if buffer > BUFFER {
            pr_err!("a list of {buffer} bytes: must be 4M at most\n");
            return Err(EINVAL);
        }
        let memory = buffer * self.depth as u64 * u64::from(self.threads);
        if memory > MEMORY {
            pr_err!("{memory} bytes of buffers: must be 512M at most\n");
            return Err(EINVAL);
        }
        Ok(())
    }

    /// Distance of two pieces of a list.
    pub(crate) fn stride(&self) -> u64 {
        match self.kind {
            Kind::Scattered => 2 * u64::from(self.size),
            _ => self.size.into(),
        }
    }

    /// Size of the buffer at `place`.
    pub(crate) fn buffer(&self, place: usize) -> u64 {
        match self.kind {
            Kind::Single if place % 2 == 1 => self.second.into(),
            Kind::Single => self.size.into(),
            _ => self.stride() * u64::from(self.entries),
        }
    }
}
