// SPDX-License-Identifier: GPL-2.0

//! The program; `--help` says what it does.

#![forbid(unsafe_code)]

use clap::Parser;
use iommu_info::cli::{self, Options};
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

/// Whether it came from a reader that went away, as `head` does.
fn reader_left(error: &anyhow::Error) -> bool {
    let is = |e: &io::Error| e.kind() == ErrorKind::BrokenPipe;
    error.chain().any(|cause| {
        let json = cause.downcast_ref::<serde_json::Error>();
        cause.downcast_ref().is_some_and(is)
            || json.is_some_and(|e| e.io_error_kind() == Some(ErrorKind::BrokenPipe))
    })
}

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) if error.use_stderr() => {
            // Fails only where nobody reads it.
            let _ = writeln!(io::stderr(), "iommu-info: {}", cli::one_line(&error));
            return ExitCode::from(2);
        }
        Err(help) => {
            let _ = help.print();
            return ExitCode::SUCCESS;
        }
    };
    let mut out = io::BufWriter::new(io::stdout().lock());
    match iommu_info::run::run(&options, &mut out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if reader_left(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "iommu-info: {error:#}");
            ExitCode::FAILURE
        }
    }
}
