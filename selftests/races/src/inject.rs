// SPDX-License-Identifier: GPL-2.0

//! Injection points of the framework (rust/inject.rs).

use crate::file;
use anyhow::{bail, Context, Result};
use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

const FILE: &str = "/sys/kernel/debug/rust_iommu/inject";

#[derive(clap::Args)]
pub struct Options {
    words: Vec<String>,
}

pub fn run(o: &Options) -> Result<()> {
    if o.words.is_empty() {
        let text = file::read(Path::new(FILE))?;
        if !text.is_empty() {
            println!("{text}");
        }
        return Ok(());
    }
    command(&o.words.join(" "))
}

/// Runs one command. [`file::errno`] of an error is what the kernel said.
pub fn command(line: &str) -> Result<()> {
    file::write(Path::new(FILE), line)
}

/// One rule, as the file shows it.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    pub point: String,
    pub kind: String,
    /// `hits`, `waiting`, and what the rule was armed with
    pub fields: HashMap<String, String>,
}

impl Rule {
    fn parse(line: &str) -> Option<Rule> {
        let mut words = line.split_whitespace().map(String::from);
        let (point, kind) = (words.next()?, words.next()?);
        let mut fields = HashMap::new();
        while let Some(name) = words.next() {
            fields.insert(name, words.next()?);
        }
        Some(Rule {
            point,
            kind,
            fields,
        })
    }

    pub fn number(&self, field: &str) -> Option<u64> {
        self.fields.get(field)?.parse().ok()
    }
}

/// All rules.
pub fn rules() -> Result<Vec<Rule>> {
    let text = file::read(Path::new(FILE))?;
    let parse = |line| Rule::parse(line).with_context(|| format!("'{line}' is no rule"));
    text.lines().map(parse).collect()
}

/// The rule of a point, without regard to its device.
pub fn rule(point: &str, kind: &str) -> Result<Option<Rule>> {
    let mut rules = rules()?.into_iter();
    Ok(rules.find(|r| r.point == point && r.kind == kind))
}

/// Forgets all rules when dropped, so that nobody stays at a gate.
pub struct Points(());

impl Points {
    /// Forgets what was armed before, too.
    pub fn new() -> Result<Points> {
        command("clear")?;
        Ok(Points(()))
    }

    /// Holds the arrival after `skip` others at `point`, for one device or for any.
    pub fn gate(&self, point: &str, device: Option<&str>, skip: u32) -> Result<()> {
        command(&format!("gate {point} {} {skip}", device.unwrap_or("")))
    }

    pub fn open(&self, point: &str) -> Result<()> {
        command(&format!("open {point}"))
    }

    /// Waits until somebody is held.
    pub fn wait(&self, point: &str, limit: Duration) -> Result<()> {
        command(&format!("wait {point} {}", limit.as_secs()))
    }

    /// Has the `at`-th arrival from now fail, counted from 1.
    pub fn fail(&self, point: &str, device: Option<&str>, errno: i32, at: u32) -> Result<()> {
        command(&format!(
            "fail {point} {errno} {at} {}",
            device.unwrap_or("")
        ))
    }

    pub fn delay(&self, point: &str, by: Duration) -> Result<()> {
        command(&format!("delay {point} {}", by.as_micros()))
    }

    pub fn count(&self, point: &str) -> Result<()> {
        command(&format!("count {point}"))
    }

    /// Arrivals at `point` since its rule of this kind was armed.
    pub fn hits(&self, point: &str, kind: &str) -> Result<u64> {
        match rule(point, kind)?.and_then(|r| r.number("hits")) {
            Some(hits) => Ok(hits),
            None => bail!("there is no rule '{point} {kind}'"),
        }
    }
}

impl Drop for Points {
    fn drop(&mut self) {
        if let Err(error) = command("clear") {
            println!("# {error:#}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read() {
        let rule =
            Rule::parse("a.b fail hits 3 waiting 0 errno 12 at 2 fired 1 device 0:1.0").unwrap();
        assert_eq!((rule.point.as_str(), rule.kind.as_str()), ("a.b", "fail"));
        assert_eq!(rule.number("hits"), Some(3));
        assert_eq!(rule.fields["device"], "0:1.0");
        for bad in ["", "p", "p gate hits"] {
            assert_eq!(Rule::parse(bad), None);
        }
    }
}
