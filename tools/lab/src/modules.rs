// SPDX-License-Identifier: GPL-2.0

//! Which files of a kernel's loadable modules a guest needs.

use crate::kernel::Kernel;
use anyhow::{Context, Result, bail};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What tests commonly use. A kernel may lack some of these.
pub const USUAL: &[&str] = &[
    "nvme",
    "ahci",
    "sd_mod",
    "sr_mod",
    "e1000e",
    "igb",
    "igbvf",
    "xhci_pci",
    "ehci_pci",
    "usb_storage",
    "uas",
    "vfio",
    "vfio_iommu_type1",
    "vfio_pci",
    "iommufd",
    "virtio_blk",
    "virtio_net",
    "virtio_scsi",
    "virtio_rng",
    "virtio_iommu",
    "virtio_balloon",
    "vhost_net",
    "ext4",
    "loop",
    "brd",
    "null_blk",
    "dm_mod",
    "edu",
    "pci_endpoint_test",
    "dma_map_benchmark",
    "pci_stub",
    "crc32c",
    "crc32c_generic",
    "crc32c_intel",
];

/// The dependency lists that depmod makes.
pub struct Database {
    /// Module name to its path and the paths it depends on, relative to `root`.
    files: HashMap<String, Vec<PathBuf>>,
    builtin: HashSet<String>,
}

fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

impl Database {
    /// Debian's package holds no modules.dep, so it is made once, in `cache`.
    pub fn load(kernel: &Kernel, cache: &Path) -> Result<Database> {
        let name = kernel.dir.file_name().unwrap_or_default();
        let out = cache.join("depmod").join(name);
        let dep = out
            .join("lib/modules")
            .join(&kernel.release)
            .join("modules.dep");
        if !dep.exists() {
            eprintln!("vm: listing the modules of {} (once)", kernel.release);
            run_depmod(kernel, &out)?;
        }
        let text = std::fs::read_to_string(&dep)
            .with_context(|| format!("cannot read {}", dep.display()))?;
        let builtin = kernel.modules().join("modules.builtin");
        let builtin = std::fs::read_to_string(builtin).unwrap_or_default();
        Ok(Database::parse(&text, &builtin))
    }

    fn parse(dep: &str, builtin: &str) -> Database {
        let mut files = HashMap::new();
        for line in dep.lines() {
            if let Some((path, needs)) = line.split_once(':') {
                let all = std::iter::once(path).chain(needs.split_whitespace());
                files.insert(module_name(path), all.map(PathBuf::from).collect());
            }
        }
        Database {
            files,
            builtin: builtin.lines().map(module_name).collect(),
        }
    }

    /// The files of `wanted`, which must exist, and of `usual`, which may not.
    pub fn closure(&self, wanted: &[String], usual: &[&str]) -> Result<BTreeSet<PathBuf>> {
        let mut set = BTreeSet::new();
        for name in wanted {
            let name = module_name(name);
            match self.files.get(&name) {
                Some(files) => set.extend(files.iter().cloned()),
                None if self.builtin.contains(&name) => {}
                None => bail!("this kernel has no module '{name}'"),
            }
        }
        for name in usual {
            set.extend(self.files.get(*name).into_iter().flatten().cloned());
        }
        Ok(set)
    }
}

fn run_depmod(kernel: &Kernel, out: &Path) -> Result<()> {
    // depmod wants the modules below lib/modules of some directory.
    let base = tempfile::tempdir()?;
    std::fs::create_dir(base.path().join("lib"))?;
    std::os::unix::fs::symlink(kernel.dir.join("modules"), base.path().join("lib/modules"))?;
    let tmp = tempfile::tempdir_in(out.ancestors().nth(2).context("no parent")?)?;
    let done = Command::new("depmod")
        .arg("-b")
        .arg(base.path())
        .arg("-o")
        .arg(tmp.path())
        .arg(&kernel.release)
        .output()
        .context("cannot run depmod")?;
    if !done.status.success() {
        let reason = String::from_utf8_lossy(&done.stderr).into_owned();
        bail!("depmod failed for {}: {reason}", kernel.modules().display());
    }
    std::fs::create_dir_all(out.parent().context("no parent")?)?;
    match std::fs::rename(tmp.path(), out) {
        // Somebody else was faster.
        Err(_) if out.exists() => Ok(()),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database() -> Database {
        Database::parse(
            "kernel/a/nvme.ko.xz: kernel/a/nvme-core.ko.xz kernel/b/auth.ko.xz\n\
             kernel/a/nvme-core.ko.xz: kernel/b/auth.ko.xz\n\
             kernel/b/auth.ko.xz:\n",
            "kernel/c/virtio-pci.ko\n",
        )
    }

    #[test]
    fn dependencies_come_along() {
        let files = database().closure(&["nvme".into()], &[]).unwrap();
        assert_eq!(files.len(), 3);
        assert!(files.contains(Path::new("kernel/a/nvme-core.ko.xz")));
    }

    #[test]
    fn dash_and_underscore_are_the_same() {
        for name in ["nvme-core", "nvme_core"] {
            assert_eq!(database().closure(&[name.into()], &[]).unwrap().len(), 2);
        }
    }

    #[test]
    fn built_in_is_no_file_and_missing_is_an_error() {
        let db = database();
        assert!(db.closure(&["virtio_pci".into()], &[]).unwrap().is_empty());
        assert!(db.closure(&["none".into()], &[]).is_err());
        assert!(db.closure(&[], &["none"]).unwrap().is_empty());
    }
}
