// SPDX-License-Identifier: GPL-2.0

//! Makes Documentation/performance.rst and its plots; see `--help`.

use clap::Parser;
use measure::docs;
use measure::result::Results;
use std::path::PathBuf;
use std::process::ExitCode;

/// Make performance.rst and its plots from a result file of `make bench`
#[derive(Parser)]
#[command(name = "bench-docs")]
struct Options {
    /// The result file
    #[arg(default_value = "Documentation/performance/result.json")]
    results: PathBuf,
    /// Where performance.rst goes; plots go to the folder performance in it
    #[arg(long, default_value = "Documentation", value_name = "DIR")]
    folder: PathBuf,
}

fn main() -> ExitCode {
    let o = Options::parse();
    match Results::read(&o.results).and_then(|results| docs::write(&results, &o.folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-docs: {error:#}");
            ExitCode::FAILURE
        }
    }
}
