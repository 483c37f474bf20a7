// SPDX-License-Identifier: GPL-2.0

//! Where things are: the checkout, the cache and the kernels prepared in it.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The checkout: the directory that holds `tools/lab`.
pub fn tree() -> PathBuf {
    let lab = Path::new(env!("CARGO_MANIFEST_DIR"));
    lab.ancestors().nth(2).unwrap_or(lab).to_path_buf()
}

/// The cache directory, which the toolbox always names in the environment.
pub fn cache() -> Result<PathBuf> {
    std::env::var_os("RUST_IOMMU_CACHE")
        .map(PathBuf::from)
        .context("RUST_IOMMU_CACHE is not set: run this through tools/vm")
}

/// One of the guest's own programs, which tools/vm builds next to this one.
pub fn guest_program(name: &str) -> Result<PathBuf> {
    std::env::var_os("CARGO_TARGET_DIR")
        .map(|dir| PathBuf::from(dir).join("release").join(name))
        .context("CARGO_TARGET_DIR is not set: run this through tools/vm")
}

/// Runs a program of tools/ that makes something in the cache and prints where.
fn made_by(program: &str, args: &[&str]) -> Result<PathBuf> {
    let out = Command::new(tree().join("tools").join(program))
        .args(args)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run tools/{program}"))?;
    if !out.status.success() {
        bail!("tools/{program} {} failed", args.join(" "));
    }
    Ok(PathBuf::from(String::from_utf8(out.stdout)?.trim()))
}

/// The folder with the kernel's own selftests of VFIO.
pub fn selftests() -> Result<PathBuf> {
    made_by("kselftest", &[])
}

/// A kernel prepared by `tools/kernel`.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// `stock`, `debug` or, for any other, the name of its directory.
    pub name: String,
    pub dir: PathBuf,
    pub release: String,
}

impl Kernel {
    /// `name` is what `tools/kernel` knows (`stock`, `debug`) or a directory
    /// laid out as that program prints it.
    pub fn find(name: &str) -> Result<Kernel> {
        let dir = if name.contains('/') {
            PathBuf::from(name)
        } else {
            made_by("kernel", &[name]).with_context(|| format!("there is no kernel '{name}'"))?
        };
        let release = std::fs::read_to_string(dir.join("release"))
            .with_context(|| format!("{} is not a prepared kernel", dir.display()))?
            .trim()
            .to_string();
        let file_name = dir.file_name().unwrap_or_default().to_string_lossy();
        let name = if name.contains('/') { &file_name } else { name };
        Ok(Kernel {
            name: name.to_string(),
            dir,
            release,
        })
    }

    /// Builds this checkout's modules for the kernel `name`, and before that the kernel, if there is none yet. It
    /// leaves the processors to whoever else wants them.
    pub fn build_modules(name: &str, inject: bool) -> Result<()> {
        let mut build = Command::new("nice");
        build.arg(tree().join("tools/build")).arg(name);
        if inject {
            build.arg("INJECT=1");
        }
        // What is printed here is KTAP.
        let status = build
            .stdin(Stdio::null())
            .stdout(std::io::stderr())
            .status()
            .context("cannot run nice")?;
        if !status.success() {
            bail!("no modules for the kernel '{name}'");
        }
        Ok(())
    }

    pub fn image(&self) -> PathBuf {
        self.dir.join("vmlinuz")
    }

    pub fn modules(&self) -> PathBuf {
        self.dir.join("modules").join(&self.release)
    }

    /// Parameters that this kernel cannot do without.
    pub fn boot_args(&self) -> String {
        let args = std::fs::read_to_string(self.dir.join("boot-args"));
        args.unwrap_or_default().trim().to_string()
    }

    pub fn source(&self) -> PathBuf {
        self.dir.join("src")
    }

    /// Where `tools/build` puts this checkout's modules for this kernel; `inject`
    /// is for those with injection points.
    pub fn our_modules(&self, inject: bool) -> PathBuf {
        let suffix = if inject { "-inject" } else { "" };
        tree().join("build").join(format!("{}{suffix}", self.name))
    }
}
