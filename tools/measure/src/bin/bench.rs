// SPDX-License-Identifier: GPL-2.0

//! Measures; see `--help`.

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use measure::environment::{self, Environment};
use measure::guest::{self, Guest, Machine};
use measure::plan::{Extent, Iommu, POLICIES};
use measure::result::{Part, Results};
use measure::{count, progress, sweep, table, times};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Measure what mapping and I/O cost with our drivers and with the kernel's own
#[derive(Parser)]
#[command(name = "bench")]
struct Options {
    /// IOMMUs. The result file keeps what it has, but for what is measured anew
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "vtd,amd,virtio"
    )]
    iommu: Vec<Iommu>,

    /// Less of everything: at most 100 s an IOMMU
    #[arg(long)]
    quick: bool,

    /// Only these; all but times whatever other work the host has [default: all, with --quick no sweep]
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Step>,

    /// Only what has one of these in its name, such as "fio" or "4k read"; the sweep is not asked
    #[arg(long, value_delimiter = ',', value_name = "TEXT")]
    what: Vec<String>,

    /// Only these policies, by our names for them; the sweep is not asked
    #[arg(long, value_delimiter = ',', value_name = "POLICY", value_parser = POLICIES.map(|p| p.ours))]
    policies: Vec<String>,

    /// Times of all are compared with this policy of the kernel's driver, not with their like
    #[arg(long, value_name = "POLICY", value_parser = ["strict", "fq", "identity"], requires = "out")]
    against: Option<String>,

    /// For an IOMMU's times [default: what the rest leaves of 50, at least 39; with --quick of one and a half]
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

impl Step {
    fn name(self) -> &'static str {
        match self {
            Step::Counts => "counts",
            Step::Times => "times",
            Step::Sweep => "sweep",
        }
    }
}

impl Options {
    fn has(&self, step: Step) -> bool {
        match self.only.is_empty() {
            true => step != Step::Sweep || !self.quick,
            false => self.only.contains(&step),
        }
    }

    fn machine(&self, iommu: Iommu) -> Machine {
        Machine {
            iommu,
            modules: self.modules.clone(),
            logs: guest::logs(),
            disks: true,
            count: false,
            probe: None,
        }
    }

    /// What a part of this IOMMU is added to. What is of another commit or machine is not, but where everything is
    /// measured anew.
    fn beside(&self, results: &Results, iommu: Iommu, now: &Environment) -> Result<Results> {
        let mut beside = results.clone();
        let everything = self.only.is_empty() && self.what.is_empty() && self.policies.is_empty();
        let old = results.part(iommu.name());
        match old.map_or(Ok(()), |old| old.joins(now, self.quick)) {
            Err(_) if everything => beside.remove(iommu.name()),
            joins => joins?,
        }
        Ok(beside)
    }
}

/// The steps for one IOMMU. What is measured is saved whenever there is more of it.
struct Steps<'a> {
    o: &'a Options,
    extent: &'a Extent,
    machine: Machine,
    /// What the file has already
    beside: Results,
    out: &'a Path,
    part: Part,
    begin: Instant,
    well: bool,
}

impl Steps<'_> {
    fn save(&mut self) -> Result<()> {
        self.part.seconds = self.begin.elapsed().as_secs_f64();
        self.part.environment.load[1] = environment::load();
        let mut all = self.beside.clone();
        all.join(self.part.clone())?;
        all.write(self.out)
    }

    /// A step that fails keeps nobody from the next.
    fn step(&mut self, step: Step, make: impl FnOnce(&mut Self) -> Result<()>) {
        if !self.o.has(step) {
            return;
        }
        if let Err(error) = make(self) {
            eprintln!("bench: {}: {}: {error:#}", self.part.iommu, step.name());
            self.well = false;
        }
    }

    fn all(&mut self) {
        // The host's other work changes no count: so these can boot meanwhile.
        let guests = self.o.has(Step::Times).then(|| times::start(&self.machine));
        self.step(Step::Counts, |s| {
            s.part.rows = count::run(&s.machine, s.extent)?;
            s.save()
        });
        self.step(Step::Sweep, |s| {
            s.part.sweep = Some(sweep::run(&s.machine)?);
            s.save()
        });
        if let Some(guests) = guests {
            self.step(Step::Times, |s| s.times(guests?));
        }
    }

    fn times(&mut self, guests: [Guest; 2]) -> Result<()> {
        let end = match self.o.minutes {
            Some(minutes) => Instant::now() + Duration::from_secs(minutes * 60),
            None => {
                let end = self.begin + Duration::from_secs(self.extent.seconds);
                end.max(Instant::now() + Duration::from_secs(self.extent.times))
            }
        };
        let fio = fio_file(self.out, self.machine.iommu);
        let counts = self.part.rows.len();
        let (machine, extent) = (self.machine.clone(), self.extent);
        times::run(&machine, guests, extent, end, &fio, |rows| {
            self.part.rows.truncate(counts);
            self.part.rows.extend_from_slice(rows);
            self.save()
        })
    }
}

/// Beside the result file, and named after it, what fio said.
fn fio_file(out: &Path, iommu: Iommu) -> PathBuf {
    let stem = out.file_stem().unwrap_or_default().to_string_lossy();
    out.with_file_name(format!("{stem}-{}-fio.jsonl", iommu.name()))
}

/// Measures; whether everything went well.
fn run(o: &Options) -> Result<bool> {
    let logs = guest::logs();
    let name = if o.quick { "quick.json" } else { "result.json" };
    let out = o.out.clone().unwrap_or_else(|| logs.join(name));
    std::fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
    // Not made: one that is not of the host would be the toolbox's own, and the results lost.
    let folder = out.parent().filter(|folder| *folder != Path::new(""));
    ensure!(
        folder.is_none_or(Path::is_dir),
        "no directory for {}: the toolbox has the checkout, the cache and /tmp",
        out.display()
    );
    let mut results = if out.exists() {
        Results::read(&out)?
    } else {
        Results::new()
    };
    let mut extent = Extent::new(o.quick);
    extent.what.clone_from(&o.what);
    extent.policies.clone_from(&o.policies);
    extent.against.clone_from(&o.against);
    let begin = |iommu: Iommu, results: &Results| {
        let machine = o.machine(iommu);
        let environment = Environment::of(&machine.options(true)?)?;
        let beside = o.beside(results, iommu, &environment);
        let beside = beside.with_context(|| format!("{} cannot take more", out.display()))?;
        anyhow::Ok((machine, environment, beside))
    };
    // Rather now than when it has been measured.
    o.iommu
        .iter()
        .try_for_each(|iommu| begin(*iommu, &results).map(drop))?;
    let load = environment::load();
    if o.has(Step::Times) && load > BUSY {
        eprintln!("bench: the host is not idle (load {load}): more of the times will be not known");
    }
    let mut well = true;
    for (n, iommu) in o.iommu.iter().enumerate() {
        let (machine, environment, beside) = begin(*iommu, &results)?;
        if o.has(Step::Times) && o.minutes.is_none() {
            // CAST: three at most.
            let left = extent.seconds * (o.iommu.len() - n) as u64;
            let of = format!("{} of {}", n + 1, o.iommu.len());
            eprintln!(
                "bench: {}, {of}: about {} left for all",
                iommu.name(),
                progress::span(left as f64)
            );
        }
        let mut steps = Steps {
            o,
            extent: &extent,
            machine,
            beside,
            out: &out,
            part: Part {
                iommu: iommu.name().into(),
                quick: o.quick,
                seconds: 0.0,
                environment,
                rows: Vec::new(),
                sweep: None,
            },
            begin: Instant::now(),
            well: true,
        };
        steps.all();
        println!("{}", table::part(&steps.part));
        well &= steps.well;
        if out.exists() {
            results = Results::read(&out)?;
        }
    }
    eprintln!(
        "bench: results are in {}, logs in {}",
        out.display(),
        logs.display()
    );
    Ok(well)
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("bench: not everything was measured: see above");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
