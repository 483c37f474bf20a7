// SPDX-License-Identifier: GPL-2.0

//! Runs one guest; see `--help`.

use clap::Parser;
use lab::options::Options;
use lab::run::{self, End, Outcome};
use std::process::ExitCode;
use std::time::Instant;

const TIMEOUT: u8 = 124;
const FAILED: u8 = 125;
const SPLAT: u8 = 126;
const DIED: u8 = 127;
const INTERRUPTED: u8 = 130;
/// The greatest status of a script that is passed on as it is.
const SCRIPT_MAX: i32 = 123;

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            // Fails only where nobody reads it.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { FAILED } else { 0 });
        }
    };
    let start = Instant::now();
    match run::run(&options, false) {
        Ok(outcome) => {
            let code = report(&outcome);
            if !options.shell {
                let boot = match outcome.boot {
                    Some(t) => format!("script started after {:.1} s, ", t.as_secs_f32()),
                    None => String::new(),
                };
                eprintln!(
                    "vm: {boot}all done after {:.1} s",
                    start.elapsed().as_secs_f32()
                );
            }
            ExitCode::from(code)
        }
        Err(error) => {
            eprintln!("vm: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

/// Says what went wrong and gives the exit status.
fn report(outcome: &Outcome) -> u8 {
    let code = match &outcome.end {
        End::Shell => 0,
        End::Script(status) => {
            if *status > SCRIPT_MAX {
                eprintln!("vm: the script's exit status was {status}");
            }
            u8::try_from((*status).min(SCRIPT_MAX)).unwrap_or(FAILED)
        }
        End::Timeout(why) => {
            eprintln!("vm: {why}; the guest was killed");
            TIMEOUT
        }
        End::Died(status) => {
            eprintln!("vm: the guest ended without a status of the script (QEMU: {status})");
            DIED
        }
        End::Interrupted => {
            eprintln!("vm: interrupted");
            return INTERRUPTED;
        }
    };
    let Some(first) = outcome.reports.first() else {
        return code;
    };
    eprintln!(
        "vm: the kernel reported {} problem(s); the first:",
        outcome.reports.len()
    );
    for line in &first.lines {
        eprintln!("vm: | {line}");
    }
    SPLAT
}
