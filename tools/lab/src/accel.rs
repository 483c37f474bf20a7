// SPDX-License-Identifier: GPL-2.0

//! KVM or TCG. /dev/kvm can exist and yet run no guest, so the first time on a
//! host kernel a small guest is tried; the answer is kept in the cache.

use crate::kernel;
use crate::options::{Accel, Options};
use crate::run::{self, End};
use anyhow::Result;
use clap::Parser;
use std::fs;

/// A guest under a working KVM takes two seconds.
const PROBE_SECONDS: &str = "20";

pub fn use_kvm(o: &Options) -> Result<bool> {
    match o.accel {
        Accel::Kvm => return Ok(true),
        Accel::Tcg => return Ok(false),
        // Only TCG can count.
        Accel::Auto if o.icount => return Ok(false),
        Accel::Auto => {}
    }
    let node = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm");
    if node.is_err() {
        return Ok(false);
    }
    let host = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let answer = kernel::cache()?.join(format!("accel-{}", host.trim()));
    if let Ok(text) = fs::read_to_string(&answer) {
        return Ok(text.trim() == "kvm");
    }
    eprintln!("vm: trying whether a guest runs under KVM (once, up to {PROBE_SECONDS} s)");
    let works = probe()?;
    let name = if works { "kvm" } else { "tcg" };
    eprintln!(
        "vm: using {name} on this host from now on ({})",
        answer.display()
    );
    fs::write(&answer, name)?;
    Ok(works)
}

fn probe() -> Result<bool> {
    let script = tempfile::NamedTempFile::new()?;
    fs::write(&script, "exit 42\n")?;
    let path = script.path().display().to_string();
    let words = [
        "vm",
        "--accel",
        "kvm",
        "--iommu",
        "none",
        "--nvme",
        "0",
        "--mem",
        "1024",
        "--timeout",
        PROBE_SECONDS,
        "--script",
        &path,
    ];
    let outcome = run::run(&Options::try_parse_from(words)?, true)?;
    Ok(matches!(outcome.end, End::Script(42)))
}
