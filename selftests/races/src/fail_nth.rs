// SPDX-License-Identifier: GPL-2.0

//! Row A5: one operation, again and again, with another of its allocations failing each time.
//!
//! The kernel counts the calling thread's allocations down (`fail-nth`, see
//! Documentation/fault-injection in its sources). Each round is: get ready, fail the n-th
//! allocation of the operation, put right what that left undone, see that all works, and
//! compare the counters. The first round in which nothing was left to fail is the last.

use crate::file;
use crate::operations::{self, Operation};
use crate::vmstat::Snapshot;
use anyhow::{ensure, Context, Result};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// More allocations than any of the operations makes.
const LIMIT: u32 = 10_000;

#[derive(clap::Args)]
pub struct Options {
    /// Fail only allocations below this function of the kernel
    #[arg(long, value_name = "FUNCTION")]
    below: Option<String>,
    /// Nor those below this one
    #[arg(long, value_name = "FUNCTION")]
    except: Option<String>,
    /// Start with this allocation
    #[arg(long, default_value_t = 1)]
    first: u32,
    /// Fail this many of them at least, or it was not the operation that was tried
    #[arg(long, default_value_t = 1)]
    least: u32,
    #[command(subcommand)]
    operation: operations::Kind,
}

pub fn run(o: &Options) -> Result<()> {
    let _settings = Settings::new(o.below.as_deref(), o.except.as_deref())?;
    let nth = Nth::new()?;
    let mut operation = o.operation.start()?;
    // Tables and the kernel's own caches grow when they are first used.
    for _ in 0..2 {
        round(&mut *operation, &nth, 0).context("without failures")?;
    }
    let before = Snapshot::new()?;
    let start = Instant::now();
    let mut errors = 0;
    for n in o.first..LIMIT {
        let outcome = round(&mut *operation, &nth, n).with_context(|| format!("allocation {n}"))?;
        let compared = before.compare(Duration::from_secs(5));
        compared.with_context(|| format!("allocation {n}: {}", outcome.text))?;
        errors += u32::from(outcome.failed);
        if !outcome.injected {
            ensure!(!outcome.failed, "failed by itself: {}", outcome.text);
            println!(
                "# {} allocations, {errors} of them told as errors, {:.1} s",
                n - o.first,
                start.elapsed().as_secs_f32()
            );
            ensure!(n - o.first >= o.least, "too few to be the operation");
            return Ok(());
        }
    }
    anyhow::bail!("there is no end to it");
}

struct Outcome {
    injected: bool,
    failed: bool,
    text: String,
}

/// Fails no allocation if `n` is 0.
fn round(operation: &mut dyn Operation, nth: &Nth, n: u32) -> Result<Outcome> {
    operation.prepare().context("before")?;
    nth.set(n)?;
    let result = operation.run();
    let left = nth.get()?;
    nth.set(0)?;
    let text = match &result {
        Ok(()) => "succeeded".to_string(),
        Err(error) => format!("{error:#}"),
    };
    let injected = n > 0 && left == 0;
    if injected {
        // What the kernel then complains of has a cause that can be looked up.
        let _ = file::write(Path::new("/dev/kmsg"), &format!("fail-nth {n}: {text}"));
    }
    let failed = result.is_err();
    let repaired = operation.repair(result, injected);
    repaired.with_context(|| format!("after '{text}'"))?;
    Ok(Outcome {
        injected,
        failed,
        text,
    })
}

/// The calling thread's count.
struct Nth(File);

impl Nth {
    fn new() -> Result<Nth> {
        let path = "/proc/thread-self/fail-nth";
        let file = OpenOptions::new().read(true).write(true).open(path);
        Ok(Nth(file.context(path)?))
    }

    fn set(&self, n: u32) -> Result<()> {
        self.0.write_all_at(n.to_string().as_bytes(), 0)?;
        Ok(())
    }

    fn get(&self) -> Result<u32> {
        let mut text = [0; 16];
        let length = self.0.read_at(&mut text, 0)?;
        Ok(std::str::from_utf8(&text[..length])?.trim().parse()?)
    }
}

/// What counts as an allocation; set back at the end.
struct Settings(Vec<(PathBuf, String)>);

impl Settings {
    fn new(below: Option<&str>, except: Option<&str>) -> Result<Settings> {
        let mut this = Settings(Vec::new());
        for kind in ["failslab", "fail_page_alloc"] {
            let dir = Path::new("/sys/kernel/debug").join(kind);
            this.set(dir.join("verbose"), "0")?;
            this.set(dir.join("ignore-gfp-wait"), "N")?;
            for (what, function) in [("require", below), ("reject", except)] {
                let Some(function) = function else { continue };
                let (start, end) = range_of(function)?;
                this.set(dir.join("stacktrace-depth"), "32")?;
                this.set(dir.join(format!("{what}-start")), &format!("{start:#x}"))?;
                this.set(dir.join(format!("{what}-end")), &format!("{end:#x}"))?;
            }
        }
        this.set("/sys/kernel/debug/fail_page_alloc/min-order".into(), "0")?;
        Ok(this)
    }

    fn set(&mut self, path: PathBuf, value: &str) -> Result<()> {
        let before = file::read(&path)?;
        file::write(&path, value)?;
        self.0.push((path, before));
        Ok(())
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        for (path, value) in self.0.iter().rev() {
            if let Err(error) = file::write(path, value) {
                println!("# {error:#}");
            }
        }
    }
}

/// Where a function of the kernel stands in memory.
fn range_of(function: &str) -> Result<(u64, u64)> {
    let symbols = file::read(Path::new("/proc/kallsyms"))?;
    range_in(&symbols, function).with_context(|| format!("the kernel has no '{function}'"))
}

fn range_in(symbols: &str, function: &str) -> Option<(u64, u64)> {
    // "address type name [module]"
    let parse = |line: &str| {
        let mut words = line.split_whitespace();
        let address = u64::from_str_radix(words.next()?, 16).ok()?;
        Some((address, words.nth(1)? == function))
    };
    let all: Vec<_> = symbols.lines().filter_map(parse).collect();
    let start = all.iter().find(|(_, wanted)| *wanted)?.0;
    let after = all.iter().map(|(address, _)| *address);
    Some((start, after.filter(|address| *address > start).min()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_end_where_the_next_one_starts() {
        let symbols = "10 T a\n40 t c [m]\n20 t b\n20 t b_alias\n";
        assert_eq!(range_in(symbols, "b"), Some((0x20, 0x40)));
        assert_eq!(range_in(symbols, "a"), Some((0x10, 0x20)));
        assert_eq!(range_in(symbols, "c"), None);
        assert_eq!(range_in(symbols, "d"), None);
    }
}
