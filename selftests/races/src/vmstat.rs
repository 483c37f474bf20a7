// SPDX-License-Identifier: GPL-2.0

//! The leak oracle: counters that a test leaves as it found them.

use crate::file;
use anyhow::{bail, Context, Result};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The modules of drivers; their folders in debugfs have the same names.
pub const DRIVERS: &[&str] = &["rust_vtd", "rust_amdvi", "rust_virtio_iommu"];

#[derive(clap::Args)]
pub struct Options {
    /// Fail unless all is as in this earlier output
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// How long it may take until it is
    #[arg(long, value_name = "N", default_value_t = 5)]
    seconds: u64,
}

type Counters = Vec<(String, String)>;

pub fn run(o: &Options) -> Result<()> {
    let Some(file) = &o.compare else {
        for (name, value) in counters()? {
            println!("{name} {value}");
        }
        return Ok(());
    };
    let before = Snapshot(parse(&file::read(file)?)?);
    before.compare(Duration::from_secs(o.seconds))
}

/// The counters at one time.
pub struct Snapshot(Counters);

impl Snapshot {
    pub fn new() -> Result<Snapshot> {
        counters().map(Snapshot)
    }

    /// Waits until the counters are as they were.
    pub fn compare(&self, limit: Duration) -> Result<()> {
        let mut now = counters()?;
        file::wait_for(limit, || {
            if let Ok(new) = counters() {
                now = new;
            }
            now == self.0
        });
        let lines = differences(&self.0, &now);
        for line in &lines {
            println!("# {line}");
        }
        if !lines.is_empty() {
            bail!("{} of the counters differ", lines.len());
        }
        Ok(())
    }
}

const TABLE_PAGES: &str = "nr_iommu_pages";

/// Pages that all IOMMUs' tables have.
pub fn table_pages() -> Result<u64> {
    // Folds in what the CPUs have counted for themselves. Absent without CONFIG_SMP.
    let _ = file::write(Path::new("/proc/sys/vm/stat_refresh"), "1");
    let vmstat = file::read(Path::new("/proc/vmstat"))?;
    let pages = value(&vmstat, TABLE_PAGES);
    let pages = pages.with_context(|| format!("/proc/vmstat has no {TABLE_PAGES}"))?;
    Ok(pages.parse()?)
}

fn counters() -> Result<Counters> {
    let mut counters = vec![(TABLE_PAGES.to_string(), table_pages()?.to_string())];
    for module in ["rust_iommu"].iter().chain(DRIVERS) {
        let refs = file::read(&Path::new("/sys/module").join(module).join("refcnt"));
        let refs = refs.unwrap_or_else(|_| "absent".into());
        counters.push((format!("{module}.refs"), refs));
    }
    let groups = std::fs::read_dir("/sys/kernel/iommu_groups").map_or(0, |d| d.count());
    counters.push(("iommu_groups".into(), groups.to_string()));
    Ok(counters)
}

fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let pairs = text.lines().filter_map(|l| l.split_once(' '));
    pairs.into_iter().find(|(n, _)| *n == name).map(|(_, v)| v)
}

fn parse(text: &str) -> Result<Counters> {
    let parse = |line: &str| {
        let (name, value) = line.split_once(' ').with_context(|| format!("'{line}'"))?;
        Ok((name.to_string(), value.to_string()))
    };
    text.lines().map(parse).collect()
}

fn differences(before: &Counters, now: &Counters) -> Vec<String> {
    let find = |list: &Counters, name: &str| {
        let found = list.iter().find(|(n, _)| n == name);
        found.map_or("absent".to_string(), |(_, value)| value.clone())
    };
    let only_now = now
        .iter()
        .filter(|(n, _)| !before.iter().any(|(b, _)| b == n));
    let names = before.iter().chain(only_now).map(|(name, _)| name);
    names
        .map(|name| (name, find(before, name), find(now, name)))
        .filter(|(_, old, new)| old != new)
        .map(|(name, old, new)| format!("{name}: was {old}, is {new}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn vmstat_lines() {
        let text = "nr_free_pages 12\nnr_iommu_pages 345\nnr_iommu_pages_x 1";
        assert_eq!(value(text, "nr_iommu_pages"), Some("345"));
        assert_eq!(value(text, "nr_iommu"), None);
    }

    #[test]
    fn differences_name_what_differs() {
        let before = parse("a 1\nb 2\nc 3").unwrap();
        assert!(differences(&before, &before).is_empty());
        let now = parse("a 1\nb 5\nd 4").unwrap();
        let wanted = [
            "b: was 2, is 5",
            "c: was 3, is absent",
            "d: was absent, is 4",
        ];
        assert_eq!(differences(&before, &now), wanted);
        assert!(parse("word").is_err());
    }

    #[test]
    fn a_file_that_differs_fails() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "nothing 7").unwrap();
        let o = Options {
            compare: Some(file.path().into()),
            seconds: 0,
        };
        assert!(run(&o).is_err());
    }
}
