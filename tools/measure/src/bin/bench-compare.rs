// SPDX-License-Identifier: GPL-2.0

//! Compares two results of `bench`; see `--help`.

use anyhow::{Result, bail};
use clap::Parser;
use measure::compare::{self, Change, Compared};
use measure::result::Results;
use std::path::PathBuf;
use std::process::ExitCode;

/// Say what became better or worse between two result files of `make bench`
///
/// Counts are compared as they are, times as ratios to the kernel's own driver, which was measured at the same time.
#[derive(Parser)]
#[command(name = "bench-compare")]
#[command(
    after_help = "Exit status: 0 nothing is worse, 1 something is, 2 the files cannot be compared"
)]
struct Options {
    /// Before
    old: PathBuf,
    /// After
    new: PathBuf,
    /// Also rows that are the same or not known
    #[arg(long)]
    all: bool,
}

fn run(o: &Options) -> Result<bool> {
    let (old, new) = (Results::read(&o.old)?, Results::read(&o.new)?);
    let warnings = compare::warnings(&old, &new);
    warnings
        .iter()
        .for_each(|w| eprintln!("bench-compare: {w}"));
    let all = compare::compare(&old, &new);
    if all.is_empty() {
        bail!("the files have nothing in common");
    }
    let count = |is: fn(&Change) -> bool| all.iter().filter(|c| is(&c.change)).count();
    let dull = |c: &Compared| matches!(c.change, Change::Same | Change::NotKnown(_));
    all.iter()
        .filter(|c| o.all || !dull(c))
        .for_each(|c| println!("{c}"));
    let worse = count(|c| *c == Change::Worse);
    println!(
        "{} better, {worse} worse, {} the same, {} not known, {} only in one file",
        count(|c| *c == Change::Better),
        count(|c| *c == Change::Same),
        count(|c| matches!(c, Change::NotKnown(_))),
        count(|c| matches!(c, Change::New | Change::Gone)),
    );
    Ok(worse > 0)
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(worse) => ExitCode::from(u8::from(worse)),
        Err(error) => {
            eprintln!("bench-compare: {error:#}");
            ExitCode::from(2)
        }
    }
}
