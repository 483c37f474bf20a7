// SPDX-License-Identifier: GPL-2.0

//! Measures; see `--help`.

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use measure::environment::{self, Environment};
use measure::guest::{self, Machine};
use measure::plan::{Extent, Iommu, POLICIES};
use measure::result::{Part, Results};
use measure::{count, sweep, table, times};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Measure what mapping and I/O cost with our drivers and with the kernel's own
#[derive(Parser)]
#[command(name = "bench")]
struct Options {
    /// IOMMUs; of the others the result file keeps what it has
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "vtd,amd,virtio"
    )]
    iommu: Vec<Iommu>,

    /// Less of everything: made for 90 s an IOMMU, where the host has nothing else to do
    #[arg(long)]
    quick: bool,

    /// Only these; all but times whatever other work the host has [default: all, with --quick no sweep]
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Step>,

    /// Only what has this in its name, such as "fio" or "4k read"; the sweep is not asked
    #[arg(long, default_value_t, value_name = "TEXT")]
    what: String,

    /// Only these policies, by our names for them; the sweep is not asked
    #[arg(long, value_delimiter = ',', value_name = "POLICY", value_parser = POLICIES.map(|p| p.ours))]
    policies: Vec<String>,

    /// For an IOMMU's times, whatever the rest has taken [default: 15, with --quick a half]
    #[arg(long)]
    minutes: Option<u64>,

    /// The result file [default: build/bench/result.json, or quick.json]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Directory with our modules [default: what `make` built]
    #[arg(long, value_name = "DIR")]
    modules: Option<PathBuf>,
}

/// A load from which on times suffer. What has just built modules is still in it.
const BUSY: f64 = 1.5;

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Step {
    /// Instructions, commands, pages
    Counts,
    /// Time of pairs, and of I/O
    Times,
    /// Where an invalidation costs more
    Sweep,
}

impl Options {
    fn has(&self, step: Step) -> bool {
        match self.only.is_empty() {
            true => step != Step::Sweep || !self.quick,
            false => self.only.contains(&step),
        }
    }
}

/// Measures, and has the part saved whenever there is more of it.
fn measure(
    iommu: Iommu,
    o: &Options,
    extent: &Extent,
    mut save: impl FnMut(&Part) -> Result<()>,
) -> Result<Part> {
    let begin = Instant::now();
    let machine = Machine {
        iommu,
        modules: o.modules.clone(),
        logs: guest::logs(),
        disks: true,
        count: false,
        probe: None,
    };
    let mut part = Part {
        iommu: iommu.name().into(),
        quick: extent.quick,
        seconds: 0.0,
        environment: Environment::of(&machine.options(true)?)?,
        rows: Vec::new(),
        sweep: None,
    };
    let mut done = |part: &mut Part| {
        part.seconds = begin.elapsed().as_secs_f64();
        part.environment.load[1] = environment::load();
        save(part)
    };
    // The host's other work changes no count: so these can boot meanwhile.
    let guests = match o.has(Step::Times) {
        true => Some(times::start(&machine)?),
        false => None,
    };
    if o.has(Step::Counts) {
        part.rows = count::run(&machine, extent)?;
        done(&mut part)?;
    }
    if o.has(Step::Sweep) {
        part.sweep = Some(sweep::run(&machine)?);
        done(&mut part)?;
    }
    if let Some(guests) = guests {
        let end = match o.minutes {
            Some(minutes) => Instant::now() + Duration::from_secs(minutes * 60),
            None => {
                let end = begin + Duration::from_secs(extent.seconds);
                end.max(Instant::now() + Duration::from_secs(extent.times))
            }
        };
        part.rows.extend(times::run(&machine, guests, extent, end)?);
        done(&mut part)?;
    }
    Ok(part)
}

fn run(o: &Options) -> Result<()> {
    let logs = guest::logs();
    std::fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
    let name = if o.quick { "quick.json" } else { "result.json" };
    let out = o.out.clone().unwrap_or_else(|| logs.join(name));
    let mut results = if out.exists() {
        Results::read(&out)?
    } else {
        Results::new()
    };
    let mut extent = Extent::new(o.quick);
    extent.what.clone_from(&o.what);
    extent.policies.clone_from(&o.policies);
    let load = environment::load();
    if o.has(Step::Times) && load > BUSY {
        eprintln!("bench: the host is not idle (load {load}): more of the times will be not known");
    }
    for iommu in &o.iommu {
        let save = |part: &Part| {
            results.join(part.clone());
            results.write(&out)
        };
        let part = measure(*iommu, o, &extent, save).with_context(|| iommu.name().to_string())?;
        println!("{}", table::part(&part));
    }
    eprintln!(
        "bench: results are in {}, logs in {}",
        out.display(),
        logs.display()
    );
    Ok(())
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
