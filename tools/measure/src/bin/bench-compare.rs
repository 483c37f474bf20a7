// SPDX-License-Identifier: GPL-2.0

//! Compares two results of `bench`; see `--help`.

use anyhow::{Result, bail};
use clap::Parser;
use measure::compare::{self, Change, Compared, Count};
use measure::result::Results;
use std::path::PathBuf;
use std::process::ExitCode;

/// Say what became better or worse between two result files of `make bench`
///
/// Counts are compared as they are, times as ratios to the kernel's own driver, which was measured at the same time.
#[derive(Parser)]
#[command(name = "bench-compare")]
#[command(
    after_help = "Exit status: 0 nothing is worse (--same: nothing differs), 1 something is, 2 the files cannot be compared"
)]
struct Options {
    /// Before
    old: PathBuf,
    /// After
    new: PathBuf,
    /// Also rows that are the same or not known
    #[arg(long)]
    all: bool,
    /// The two are of the same code: nothing may be better, worse, or only in one file
    #[arg(long)]
    same: bool,
}

/// Whether it is as it should be.
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
    let dull = |c: &Compared| matches!(c.change, Change::Same | Change::NotKnown(_));
    all.iter()
        .filter(|c| o.all || !dull(c))
        .for_each(|c| println!("{c}"));
    let count = Count::of(&all);
    println!("{count}");
    if !o.same {
        return Ok(count.worse == 0);
    }
    if count.known() == 0 {
        bail!("nothing is known in both files");
    }
    // A warning: they are of different machines, or an IOMMU is only in one.
    let agree = count.agree() && warnings.is_empty();
    let verdict = if agree {
        "they agree"
    } else {
        "they do not agree"
    };
    println!(
        "{} rows, {} known in both: {verdict}",
        all.len(),
        count.known()
    );
    Ok(agree)
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(well) => ExitCode::from(u8::from(!well)),
        Err(error) => {
            eprintln!("bench-compare: {error:#}");
            ExitCode::from(2)
        }
    }
}
