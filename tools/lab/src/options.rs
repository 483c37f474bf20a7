// SPDX-License-Identifier: GPL-2.0

//! The command line of `vm`.

use clap::{Parser, ValueEnum};
use std::path::PathBuf;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Iommu {
    /// No IOMMU in the machine
    None,
    /// VT-d (-device intel-iommu)
    Intel,
    /// AMD-Vi (-device amd-iommu)
    Amd,
    /// virtio-iommu (-device virtio-iommu-pci)
    Virtio,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Policy {
    /// Translated, invalidation in every unmap (iommu.strict=1)
    Strict,
    /// Translated, invalidation deferred (iommu.strict=0)
    Lazy,
    /// Identity domains (iommu.passthrough=1)
    Identity,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Accel {
    /// KVM where a guest really runs under it (tried once per host kernel), else TCG
    Auto,
    Kvm,
    Tcg,
}

const EXIT_STATUS: &str = "\
Exit status:
  0..123  the script's own (a greater one becomes 123 and is named in a message)
  124     time limit: the guest was killed
  125     vm itself failed: wrong usage, QEMU did not start, a file is missing
  126     the kernel reported a problem (WARN, BUG, KASAN, lockdep, hung task, ...);
          the first report is quoted
  127     the guest ended without reporting the script's status
  130     interrupted

In the guest, files are at:
  /modules/*.ko            our modules (--modules)
  /selftests/lib.sh        helper functions for scripts, see selftests/lib.sh
  /usr/bin/races           program of selftests/races
  /usr/bin/iommu-info      program of tools/iommu-info
  modprobe NAME            loads the distribution's modules named by --load
Disk images are drives disk0, disk1, ... (see --disks); a port made by --nvme
is called rp-nvmeN, the disk behind it nvmeN.

Documentation/testing.rst explains more, with examples.";

/// Start a guest in QEMU, run a script or a shell in it, and judge the kernel's log
#[derive(Clone, Debug, Parser)]
#[command(name = "vm", after_help = EXIT_STATUS)]
pub struct Options {
    /// IOMMU of the machine
    #[arg(long, value_enum, default_value = "intel", help_heading = "Machine")]
    pub iommu: Iommu,

    /// Property of the IOMMU device, such as caching-mode=on or aw-bits=48
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Machine")]
    pub iommu_opt: Vec<String>,

    /// Let the kernel's own driver use the IOMMU (default: it is told to stay off)
    #[arg(long, help_heading = "Machine")]
    pub in_tree: bool,

    /// Leave interrupt remapping to the kernel even though its DMA driver is off
    #[arg(long, help_heading = "Machine")]
    pub intremap: bool,

    /// Default domain type of the guest (kernel parameters iommu.strict, iommu.passthrough)
    #[arg(long, value_enum, help_heading = "Machine")]
    pub policy: Option<Policy>,

    /// Kernel: stock, debug or a directory as printed by tools/kernel
    #[arg(long, default_value = "stock", help_heading = "Machine")]
    pub kernel: String,

    /// Boot a Debian system with what it would itself boot with: a kernel's folder of tools/system.
    /// Its disk is the first NVMe disk, and --kernel only says where helpers of scripts come from
    #[arg(long, value_name = "DIR", help_heading = "Machine")]
    #[arg(conflicts_with_all = ["shell", "modules", "inject", "load"])]
    pub system: Option<PathBuf>,

    /// Further kernel parameters
    #[arg(long, value_name = "PARAMS", help_heading = "Machine")]
    #[arg(allow_hyphen_values = true)]
    pub append: Vec<String>,

    /// Virtual CPUs
    #[arg(long, default_value_t = 2, help_heading = "Machine")]
    pub cpus: u32,

    /// Memory in MiB [default: 2048, on the debug kernel 1024, as kmemleak looks at each page]
    #[arg(long, value_name = "MIB", help_heading = "Machine")]
    pub mem: Option<u32>,

    /// Accelerator
    #[arg(long, value_enum, default_value = "auto", help_heading = "Machine")]
    pub accel: Accel,

    /// Guest time counts instructions, a nanosecond each, whatever the host does (TCG, one thread)
    #[arg(long, help_heading = "Machine")]
    pub icount: bool,

    /// NVMe disks, each behind a root port of its own
    #[arg(long, default_value_t = 2, value_name = "N", help_heading = "Devices")]
    pub nvme: u32,

    /// Disk images; those beyond --nvme are for --device and hotplug [default: as --nvme]
    #[arg(long, value_name = "N", help_heading = "Devices")]
    pub disks: Option<u32>,

    /// Size of each disk image, which lives in memory (suffix M or G)
    #[arg(
        long,
        default_value = "512M",
        value_name = "SIZE",
        help_heading = "Devices"
    )]
    #[arg(value_parser = parse_size)]
    pub disk_size: u64,

    /// iommu-testdev devices on the root bus (testdev0, testdev1, ...)
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        default_missing_value = "1"
    )]
    #[arg(num_args = 0..=1, require_equals = true, help_heading = "Devices")]
    pub testdev: u32,

    /// A QEMU -device argument, after the disks and test devices
    #[arg(long, value_name = "DRIVER,...", help_heading = "Devices")]
    pub device: Vec<String>,

    /// File of --device arguments, one a line; # starts a comment
    #[arg(long, value_name = "FILE", help_heading = "Devices")]
    pub topology: Vec<PathBuf>,

    /// Any other QEMU argument, one word each
    #[arg(
        long,
        value_name = "ARG",
        allow_hyphen_values = true,
        help_heading = "Devices"
    )]
    pub qemu_arg: Vec<String>,

    /// QEMU trace events (patterns); the guest can ask for them with vm_host trace
    #[arg(
        long,
        value_name = "EVENTS",
        value_delimiter = ',',
        help_heading = "Devices"
    )]
    pub trace: Vec<String>,

    /// Keep the trace events in this file
    #[arg(
        long,
        value_name = "FILE",
        requires = "trace",
        help_heading = "Devices"
    )]
    pub trace_file: Option<PathBuf>,

    /// What vm_host insns writes to: a line for each instruction executed, as QEMU's log has it. Not
    /// with KVM
    #[arg(long, value_name = "FILE", help_heading = "Devices")]
    pub insns: Option<PathBuf>,

    /// Run this script in the guest, with ARGS as its arguments
    #[arg(long, value_name = "FILE", help_heading = "Guest")]
    #[arg(required_unless_present = "shell", conflicts_with = "shell")]
    pub script: Option<PathBuf>,

    /// Interactive shell on the console; Ctrl-A x ends QEMU
    #[arg(long, help_heading = "Guest")]
    pub shell: bool,

    /// Directory with our modules [default: what `make` built for the kernel]
    #[arg(long, value_name = "DIR", help_heading = "Guest")]
    pub modules: Option<PathBuf>,

    /// Our modules with injection points (tools/build KERNEL INJECT=1)
    #[arg(long, conflicts_with = "modules", help_heading = "Guest")]
    pub inject: bool,

    /// A distribution module to have in the guest besides the usual ones
    #[arg(long, value_name = "MODULE", help_heading = "Guest")]
    pub load: Vec<String>,

    /// Copy a file or directory into the guest, to /SRC's-name or DST
    #[arg(long, value_name = "SRC[:DST]", help_heading = "Guest")]
    pub copy: Vec<String>,

    /// The kernel's own VFIO selftests (tools/kselftest), in /kselftest
    #[arg(long, help_heading = "Guest")]
    pub kselftest: bool,

    /// Print only what the script prints; the kernel's log is still judged and kept
    #[arg(long, help_heading = "Guest")]
    pub quiet: bool,

    /// Environment of the script
    #[arg(long, value_name = "NAME=VALUE", help_heading = "Guest")]
    pub env: Vec<String>,

    /// Time limit for the whole run, in seconds (no limit for --shell)
    #[arg(
        long,
        default_value_t = 300,
        value_name = "SECONDS",
        help_heading = "Guest"
    )]
    pub timeout: u64,

    /// Keep everything the guest printed in this file
    #[arg(long, value_name = "FILE", help_heading = "Guest")]
    pub log: Option<PathBuf>,

    /// Arguments of the script
    #[arg(last = true, value_name = "ARGS")]
    pub args: Vec<String>,
}

impl Options {
    pub fn disk_count(&self) -> u32 {
        self.disks.unwrap_or(self.nvme).max(self.nvme)
    }
}

fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.strip_suffix(['M', 'G']) {
        Some(d) if text.ends_with('G') => (d, 1 << 30),
        Some(d) => (d, 1 << 20),
        None => return Err("a number with suffix M or G is needed".into()),
    };
    match digits.parse::<u64>() {
        Ok(n) if n > 0 => n.checked_mul(unit).ok_or_else(|| "too large".into()),
        _ => Err(format!("'{digits}' is not a positive number")),
    }
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
    fn sizes() {
        assert_eq!(parse_size("512M"), Ok(512 << 20));
        assert_eq!(parse_size("2G"), Ok(2 << 30));
        for bad in ["", "5", "M", "0M", "-1M", "99999999999999G"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn testdev_count_is_optional() {
        let parse = |a: &[&str]| {
            let words = ["vm", "--shell"].iter().chain(a);
            Options::try_parse_from(words).unwrap().testdev
        };
        assert_eq!(parse(&[]), 0);
        assert_eq!(parse(&["--testdev"]), 1);
        assert_eq!(parse(&["--testdev=3"]), 3);
    }
}
