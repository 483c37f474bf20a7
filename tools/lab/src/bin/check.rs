// SPDX-License-Identifier: GPL-2.0

//! Runs the tests and prints KTAP; the last line is the count.

use anyhow::{Result, bail};
use clap::Parser;
use lab::coverage::Skipped;
use lab::guest_test::{self, GuestRun, Selection};
use lab::host_test::{self, HostTest};
use lab::kernel::{self, Kernel};
use lab::ktap::{Point, Verdict};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::Instant;

/// Run the tests: on the host, and in guests on the stock and the debug kernel
#[derive(Parser)]
#[command(name = "check")]
struct Options {
    /// What to run: TEST, TEST/VARIANT, TEST/VARIANT/KERNEL, host or host/NAME [default: all]
    tests: Vec<String>,

    /// Print the names and stop
    #[arg(long)]
    list: bool,

    /// Tests at a time
    #[arg(long, default_value_t = default_jobs(), value_name = "N")]
    jobs: usize,

    /// Kernels to run guest tests on
    #[arg(long, value_delimiter = ',', default_value = "stock,debug")]
    kernels: Vec<String>,

    /// Also what takes many minutes
    #[arg(long)]
    long: bool,

    /// Also what others test nearly as well, and controls with the in-tree drivers
    #[arg(long)]
    extra: bool,

    /// The tests of the Debian package instead, on the system that tools/system has made
    #[arg(long)]
    package: bool,

    /// Where the logs go [default: results/ in the cache]
    #[arg(long, value_name = "DIR")]
    results: Option<PathBuf>,
}

enum Job {
    Host(&'static HostTest),
    Guest(GuestRun),
    Skipped(Skipped),
}

impl Job {
    fn name(&self) -> String {
        match self {
            Job::Host(test) => format!("host/{}", test.name),
            Job::Guest(run) => run.name.clone(),
            Job::Skipped(test) => test.name.clone(),
        }
    }

    fn is_on_debug_kernel(&self) -> bool {
        matches!(self, Job::Guest(run) if run.kernel() == "debug")
    }

    fn run(&self, logs: &Path) -> (Vec<Point>, Vec<String>) {
        let outcome = match self {
            Job::Guest(run) => run.run(logs).map(|r| (r.points, r.quote)),
            Job::Host(test) => test.run(logs).map(|(passed, quote)| {
                let verdict = if passed { Verdict::Pass } else { Verdict::Fail };
                (vec![Point::of_all(verdict, "")], quote)
            }),
            Job::Skipped(test) => Ok((vec![Point::of_all(Verdict::Skip, &test.reason)], vec![])),
        };
        outcome.unwrap_or_else(|error| failure(&format!("{error:#}")))
    }
}

/// What there is of a test that could not be run.
fn failure(error: &str) -> (Vec<Point>, Vec<String>) {
    let point = Point {
        verdict: Verdict::Fail,
        name: error.to_string(),
        reason: String::new(),
    };
    (vec![point], Vec::new())
}

/// Whether `name` is what the user named, or lies below it.
fn selected(name: &str, wanted: &[String]) -> bool {
    let matches = |w: &String| {
        let w = w.trim_end_matches('/');
        name == w || name.strip_prefix(w).is_some_and(|r| r.starts_with('/'))
    };
    wanted.is_empty() || wanted.iter().any(matches)
}

/// The output, one test at a time whichever guest is done first.
#[derive(Default)]
struct Tally {
    number: usize,
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Tally {
    fn report(&mut self, name: &str, points: &[Point], quote: &[String]) {
        for line in quote {
            println!("#   {}", line.trim_start_matches("# "));
        }
        for point in points {
            self.number += 1;
            let (word, directive) = match point.verdict {
                Verdict::Pass => ("ok", String::new()),
                Verdict::Fail => ("not ok", String::new()),
                Verdict::Skip => ("ok", format!(" # SKIP {}", point.reason)),
            };
            match point.verdict {
                Verdict::Pass => self.passed += 1,
                Verdict::Fail => self.failed += 1,
                Verdict::Skip => self.skipped += 1,
            }
            let colon = if point.name.is_empty() { "" } else { ": " };
            println!(
                "{word} {} {name}{colon}{}{}",
                self.number,
                point.name,
                directive.trim_end()
            );
        }
    }

    fn finish(&self) -> ExitCode {
        println!("1..{}", self.number);
        let skipped = match self.skipped {
            0 => String::new(),
            n => format!(", {n} skipped"),
        };
        println!("{} passed, {} failed{skipped}", self.passed, self.failed);
        let good = self.failed == 0 && self.passed > 0;
        if good {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

fn jobs(o: &Options) -> Result<Vec<Job>> {
    let (host, folders) = match o.package {
        true => (host_test::PACKAGE, guest_test::PACKAGE),
        false => (host_test::TESTS, guest_test::FOLDERS),
    };
    let host = host.iter().map(Job::Host);
    let folders = folders.iter().map(|f| kernel::tree().join(f));
    let folders: Vec<PathBuf> = folders.filter(|f| f.is_dir()).collect();
    let selection = Selection {
        kernels: o.kernels.clone(),
        long: o.long,
        extra: o.extra,
    };
    let found = guest_test::find(&folders, &selection)?;
    let guest = found.runs.into_iter().map(Job::Guest);
    let skipped = found.skipped.into_iter().map(Job::Skipped);
    let all: Vec<Job> = host.chain(guest).chain(skipped).collect();
    for wanted in &o.tests {
        if !all
            .iter()
            .any(|j| selected(&j.name(), std::slice::from_ref(wanted)))
        {
            bail!(
                "there is no test '{wanted}' (--list prints all; --extra, --long and --package have more)"
            );
        }
    }
    let chosen = all.into_iter().filter(|j| selected(&j.name(), &o.tests));
    Ok(chosen.collect())
}

/// Guests have two virtual CPUs, and wait for something most of the time.
fn default_jobs() -> usize {
    thread::available_parallelism().map_or(2, |n| (n.get() / 2).max(2))
}

fn run(o: &Options) -> Result<ExitCode> {
    let jobs = jobs(o)?;
    if o.list {
        for job in &jobs {
            match job {
                Job::Skipped(test) => println!("{} # SKIP {}", test.name, test.reason),
                _ => println!("{}", job.name()),
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    let logs = match &o.results {
        // Not made: one that is not of the host would be the toolbox's own, and nobody would find it.
        Some(dir) if !dir.is_dir() => bail!(
            "no directory {}: the toolbox has the checkout, the cache and /tmp",
            dir.display()
        ),
        Some(dir) => dir.clone(),
        None => {
            let dir = kernel::cache()?.join("results");
            std::fs::create_dir_all(&dir)?;
            dir
        }
    };

    println!("KTAP version 1");
    let (skipped, jobs): (Vec<Job>, Vec<Job>) =
        jobs.into_iter().partition(|j| matches!(j, Job::Skipped(_)));
    let mut tally = Tally::default();
    for job in skipped {
        let (points, quote) = job.run(&logs);
        tally.report(&job.name(), &points, &quote);
    }
    // What is made while the others run comes last.
    let (debug, mut jobs): (Vec<Job>, Vec<Job>) =
        jobs.into_iter().partition(Job::is_on_debug_kernel);
    Kernels::of(&jobs, o.package).make()?;
    let kernels = Kernels::of(&debug, o.package);
    jobs.extend(debug);
    let tally = Mutex::new(tally);
    thread::scope(|scope| {
        // A quarter of an hour, the first time.
        scope.spawn(|| kernels.ready());
        work(jobs, o.jobs.max(1), &kernels, &logs, &tally);
    });
    let tally = tally.into_inner().unwrap_or_else(|e| e.into_inner());
    Ok(tally.finish())
}

/// The kernels of some guests, and the modules that these are given, made once.
struct Kernels {
    /// Name, and whether the modules have injection points.
    needed: BTreeSet<(String, bool)>,
    /// A Debian system has its modules from a package.
    with_modules: bool,
    made: OnceLock<Result<(), String>>,
}

impl Kernels {
    fn of(jobs: &[Job], package: bool) -> Kernels {
        let guests = jobs.iter().filter_map(|j| match j {
            Job::Guest(run) => Some((run.kernel().to_string(), run.inject())),
            Job::Host(_) | Job::Skipped(_) => None,
        });
        Kernels {
            needed: guests.collect(),
            with_modules: !package,
            made: OnceLock::new(),
        }
    }

    /// Whoever comes first makes them, others wait.
    fn ready(&self) -> Result<(), &String> {
        let make = || self.make().map_err(|e| format!("{e:#}"));
        self.made.get_or_init(make).as_ref().copied()
    }

    fn make(&self) -> Result<()> {
        for (name, inject) in self.needed.iter().filter(|_| self.with_modules) {
            Kernel::build_modules(name, *inject)?;
        }
        let names: BTreeSet<&String> = self.needed.iter().map(|(name, _)| name).collect();
        for name in names {
            println!("# kernel {name}: {}", Kernel::find(name)?.release);
        }
        Ok(())
    }
}

/// Does the jobs in order, `workers` of them at a time; those on the debug kernel once that is there.
fn work(jobs: Vec<Job>, workers: usize, debug: &Kernels, logs: &Path, tally: &Mutex<Tally>) {
    let queue = Mutex::new(jobs.into_iter());
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    // Bound first: the guard of a `while let` would live through the body.
                    let next = queue.lock().ok().and_then(|mut q| q.next());
                    let Some(job) = next else { return };
                    let name = job.name();
                    let ready = match job.is_on_debug_kernel() {
                        true => debug.ready(),
                        false => Ok(()),
                    };
                    println!("# {name} ...");
                    let start = Instant::now();
                    let (points, quote) = match ready {
                        Ok(()) => job.run(logs),
                        Err(error) => failure(error),
                    };
                    if let Ok(mut tally) = tally.lock() {
                        tally.report(&name, &points, &quote);
                        println!("# {name}: {:.1} s", start.elapsed().as_secs_f32());
                    }
                }
            });
        }
    });
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("check: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_chosen_by_whole_names() {
        let chosen = |w: &str| selected("smoke/none/stock", &[w.to_string()]);
        assert!(chosen("smoke") && chosen("smoke/none") && chosen("smoke/none/stock"));
        assert!(!chosen("smo") && !chosen("smoke/no") && !chosen("none"));
        assert!(selected("anything", &[]));
    }

    #[test]
    fn nothing_run_is_a_failure() {
        let code = |passed, failed| {
            let tally = Tally {
                number: 0,
                passed,
                failed,
                skipped: 1,
            };
            format!("{:?}", tally.finish())
        };
        let failure = format!("{:?}", ExitCode::FAILURE);
        assert_eq!(code(0, 0), failure);
        assert_eq!(code(5, 1), failure);
        assert_ne!(code(5, 0), failure);
    }
}
