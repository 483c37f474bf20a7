// SPDX-License-Identifier: GPL-2.0

//! A guest that measures what it is told to, with our driver or with the kernel's own.

use crate::plan::{Iommu, POLICIES};
use anyhow::{Context, Result, bail};
use clap::Parser;
use lab::kernel;
use lab::lead::{self, Leader, Lost};
use lab::monitor::Monitor;
use lab::options::Options;
use lab::run::{self, Outcome};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

/// An order takes seconds. A loaded host may make that a minute.
const SILENCE: Duration = Duration::from_secs(180);

/// What kind of guest.
#[derive(Clone)]
pub struct Machine {
    /// Its IOMMU
    pub iommu: Iommu,
    /// Of our modules, where it is not the usual one
    pub modules: Option<PathBuf>,
    /// Where guests write what they print
    pub logs: PathBuf,
    /// With disks
    pub disks: bool,
    /// Time is instructions, and there is one CPU and QEMU's trace
    pub count: bool,
    /// The functions that are delayed: ours, the kernel's
    pub probe: Option<[&'static str; 2]>,
}

impl Machine {
    /// Options of tools/vm.
    pub fn options(&self, ours: bool) -> Result<Options> {
        let iommu = self.iommu;
        let policies: Vec<&str> = POLICIES
            .iter()
            .map(|p| if ours { p.ours } else { p.in_tree })
            .collect();
        let mut words: Vec<String> = [
            "vm",
            "--quiet",
            "--timeout",
            "7200",
            "--policy",
            "strict",
            "--mem",
            "1536",
        ]
        .map(String::from)
        .into();
        let mut option = |name: &str, value: String| words.extend([name.to_string(), value]);
        option(
            "--nvme",
            if self.disks { POLICIES.len() } else { 0 }.to_string(),
        );
        option("--disk-size", "128M".into());
        for _ in POLICIES {
            option("--device", "edu".into());
        }
        option("--env", format!("POLICIES={}", policies.join(",")));
        option("--env", format!("OURS={}", if ours { "1" } else { "" }));
        if let Some([of_ours, of_theirs]) = self.probe {
            option(
                "--env",
                format!("PROBE={}", if ours { of_ours } else { of_theirs }),
            );
        }
        if self.count {
            option("--cpus", "1".into());
            option("--trace", iommu.events().into());
        }
        if let Some(modules) = &self.modules {
            option("--modules", modules.display().to_string());
        }
        let script = kernel::tree().join("selftests/bench/serve.sh");
        option("--script", script.display().to_string());
        option(
            "--log",
            self.logs.join(self.log(ours)).display().to_string(),
        );
        words.extend(iommu.options().iter().map(|o| o.to_string()));
        words.extend((!ours).then(|| "--in-tree".to_string()));
        words.extend(self.count.then(|| "--icount".to_string()));
        Options::try_parse_from(words).context("options of a guest")
    }

    fn log(&self, ours: bool) -> String {
        let driver = if ours { "ours" } else { "in-tree" };
        let what = match (self.probe.is_some(), self.count) {
            (true, _) => "sweep",
            (_, true) => "count",
            (_, false) => "times",
        };
        format!("{}-{what}-{driver}.log", self.iommu.name())
    }

    /// Starts one; it boots while this returns.
    pub fn start(&self, ours: bool) -> Result<Guest> {
        let options = self.options(ours)?;
        let log = self.logs.join(self.log(ours));
        let (led, leader, monitor) = lead::pair().context("a connection to a guest")?;
        let thread = std::thread::spawn(move || run::run_led(&options, true, Some(led)));
        Ok(Guest {
            leader,
            monitor: Some(monitor),
            thread,
            log,
        })
    }
}

/// One that runs.
pub struct Guest {
    leader: Leader,
    monitor: Option<Monitor>,
    thread: JoinHandle<Result<Outcome>>,
    log: PathBuf,
}

impl Guest {
    /// Waits until it has booted and can be told something.
    pub fn ready(&self) -> Result<()> {
        self.answer(self.leader.wait(SILENCE)).map(drop)
    }

    /// Has it do something; what it printed.
    pub fn order(&self, order: &str) -> Result<Vec<String>> {
        let answer = self.leader.order(order, SILENCE);
        self.answer(answer)
            .with_context(|| format!("order \"{order}\""))
    }

    /// What holds it; once.
    pub fn monitor(&mut self) -> Result<Monitor> {
        self.monitor.take().context("it is held by somebody")
    }

    fn answer(&self, answer: Result<Vec<String>, Lost>) -> Result<Vec<String>> {
        let log = self.log.display();
        match answer {
            Ok(lines) => Ok(lines),
            Err(Lost::Late) => bail!("a guest has been silent for {SILENCE:?}; its log is {log}"),
            Err(Lost::Ended(lines)) => {
                bail!("a guest ended; its log is {log}\n{}", lines.join("\n"))
            }
        }
    }

    /// Ends it. A report of its kernel is an error.
    pub fn end(self) -> Result<()> {
        // The script ends without asking again.
        match self.leader.order("end", SILENCE) {
            Err(Lost::Ended(_)) => {}
            other => bail!("a guest did not end: {other:?}"),
        }
        let Ok(outcome) = self.thread.join() else {
            bail!("the thread of a guest panicked");
        };
        let outcome = outcome?;
        if let Some(report) = outcome.reports.first() {
            bail!(
                "the kernel of a guest reported ({}):\n{}",
                self.log.display(),
                report.lines.join("\n")
            );
        }
        match outcome.end {
            run::End::Script(0) => Ok(()),
            other => bail!(
                "a guest ended with {other:?}; its log is {}",
                self.log.display()
            ),
        }
    }
}

/// What follows a word in an answer such as "ns 700 loop 20 pairs 100".
pub fn number(word: &str, lines: &[String]) -> Result<f64> {
    let words: Vec<&str> = lines.iter().flat_map(|l| l.split_whitespace()).collect();
    let after = words.windows(2).find(|w| w[0] == word).map(|w| w[1]);
    let number = after.and_then(|w| w.parse().ok());
    number.with_context(|| format!("no number after '{word}' in \"{}\"", lines.join(" ")))
}

/// The same of a run of rust_bench; None where some maps failed, and what was measured is something else.
pub fn of_pairs(word: &str, lines: &[String]) -> Result<Option<f64>> {
    let number = number(word, lines)?;
    Ok((self::number("failed", lines)? == 0.0).then_some(number))
}

/// The events in an answer, "EVENT NUMBER" a line.
pub fn events(lines: &[String]) -> BTreeMap<&str, f64> {
    lines
        .iter()
        .filter_map(|l| l.split_once(' '))
        .filter_map(|(e, n)| Some((e, n.parse().ok()?)))
        .collect()
}

/// Where logs go by themselves.
pub fn logs() -> PathBuf {
    Path::new("build").join("bench")
}
