// SPDX-License-Identifier: GPL-2.0

//! Reads files of the kernel below a root directory; the only part that knows where they are.

mod device;
mod group;
mod machine;
mod process;
mod report;
mod unit;
mod uses;

pub use machine::read;
pub use unit::counters;

use anyhow::{Context, Result, bail};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Where `sys`, `proc` and `dev` are: `/`, or a tree made for a test.
#[derive(Clone, Debug)]
pub struct Root(PathBuf);

/// Why there is nothing to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// There is no such file.
    Missing,
    /// Only others may read it.
    Denied,
}

type Found<T> = std::result::Result<T, Absence>;

fn absence(error: std::io::Error) -> Absence {
    match error.kind() {
        ErrorKind::PermissionDenied => Absence::Denied,
        _ => Absence::Missing,
    }
}

impl Root {
    /// Errors: `path` is no directory.
    pub fn new(path: &Path) -> Result<Root> {
        let shown = path.display();
        let path = path
            .canonicalize()
            .with_context(|| format!("--root {shown}"))?;
        if !path.is_dir() {
            bail!("--root {shown}: not a directory");
        }
        Ok(Root(path))
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    /// A file as it is.
    fn bytes(&self, path: &str) -> Found<Vec<u8>> {
        std::fs::read(self.path(path)).map_err(absence)
    }

    /// A file of text, without white space around it.
    fn text(&self, path: &str) -> Found<String> {
        let bytes = self.bytes(path)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_string())
    }

    fn number(&self, path: &str) -> Option<u64> {
        self.text(path).ok()?.parse().ok()
    }

    fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// The names in a directory, sorted.
    fn names(&self, path: &str) -> Found<Vec<String>> {
        let entries = std::fs::read_dir(self.path(path)).map_err(absence)?;
        let name = |e: std::io::Result<std::fs::DirEntry>| e.ok()?.file_name().into_string().ok();
        let mut names: Vec<String> = entries.filter_map(name).collect();
        names.sort();
        Ok(names)
    }

    /// What a symbolic link says.
    fn link(&self, path: &str) -> Found<String> {
        let to = std::fs::read_link(self.path(path)).map_err(absence)?;
        Ok(to.to_string_lossy().into_owned())
    }

    /// The last component of what a symbolic link says.
    fn link_name(&self, path: &str) -> Option<String> {
        let to = self.link(path).ok()?;
        to.rsplit('/').next().map(String::from)
    }

    /// The names of the directories that a path leads through once links are followed.
    fn components(&self, path: &str) -> Vec<String> {
        let Ok(real) = self.path(path).canonicalize() else {
            return Vec::new();
        };
        let inside = real.strip_prefix(&self.0).unwrap_or(&real);
        inside
            .iter()
            .map(|name| name.to_string_lossy().into_owned())
            .collect()
    }
}
