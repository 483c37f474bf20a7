// SPDX-License-Identifier: GPL-2.0

//! The command line.

use crate::address::Address;
use crate::size;
use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use std::path::PathBuf;

const EXIT_STATUS: &str = "\
Exit status: 0, also where a device cannot be assigned; 1 for a failure; 2 for a wrong command line.
Documentation/iommu-info.rst explains the output.";

/// Show IOMMU units, groups and devices, and what user-space drivers need
#[derive(Debug, Parser)]
#[command(name = "iommu-info", version, after_help = EXIT_STATUS)]
pub struct Options {
    /// Print JSON: one object, or for watch one a line
    #[arg(long, global = true)]
    pub json: bool,

    /// Read DIR/sys, DIR/proc and DIR/dev
    #[arg(long, global = true, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,

    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Units, groups and devices, with driver, policy, owner and, where it is known, DMA window
    List,
    /// Why a device cannot be given to user space, and which commands would free it
    Explain {
        /// Its PCI address, such as 0000:01:00.0
        #[arg(value_name = "BDF")]
        device: Address,
    },
    /// The RLIMIT_MEMLOCK that a VMM needs for a set of groups; none is opened
    Memlock {
        /// Numbers of IOMMU groups
        #[arg(required = true, value_name = "GROUP")]
        groups: Vec<u32>,
        /// All memory that the VMM maps: RAM, video memory, ROMs (suffix K, M, G or T); without it, how
        /// often that counts
        #[arg(long, value_name = "SIZE", value_parser = size::parse)]
        memory: Option<u64>,
    },
    /// Invalidations, faults and live mappings of each unit and device per second
    Watch {
        /// Seconds between two looks
        #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
        interval: f64,
        /// How many lines to print of each; without it, until interrupted
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        count: Option<u64>,
    },
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(n) if (0.01..=86400.0).contains(&n) => Ok(n),
        _ => Err("not a number of seconds from 0.01 to 86400".into()),
    }
}

/// What clap says of a wrong command line, in one line.
pub fn one_line(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "a command is missing: list, explain, memlock or watch".into();
    }
    let text = error.render().to_string();
    let words: Vec<&str> = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"))
        .filter(|line| !line.is_empty())
        .collect();
    let text = words.join(" ");
    text.strip_prefix("error: ").unwrap_or(&text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn wrong_ones_have_one_line() {
        for bad in [
            &["iommu-info", "explain", "x"][..],
            &["iommu-info", "explain"],
            &["iommu-info", "memlock"],
            &["iommu-info", "memlock", "-1"],
            &["iommu-info", "memlock", "1", "--memory", "0"],
            &["iommu-info", "watch", "--interval", "0"],
            &["iommu-info", "watch", "--interval", "nan"],
            &["iommu-info", "watch", "--count", "0"],
            &["iommu-info", "unknown"],
            &["iommu-info"],
        ] {
            let error = Options::try_parse_from(bad).unwrap_err();
            let line = one_line(&error);
            assert!(error.use_stderr() && error.exit_code() == 2, "{bad:?}");
            assert!(!line.is_empty() && !line.contains('\n'), "{line}");
        }
    }
}
