// SPDX-License-Identifier: GPL-2.0

//! Loading a module in one try. The guest's insmod makes a second one where the first fails, for
//! which an injected failure is used up.

use crate::raw;
use anyhow::{Context, Result};
use std::fs::File;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Options {
    file: PathBuf,
}

pub fn run(o: &Options) -> Result<()> {
    let file = File::open(&o.file).with_context(|| format!("opening {}", o.file.display()))?;
    raw::load_module(&file, c"").with_context(|| format!("loading {}", o.file.display()))
}
