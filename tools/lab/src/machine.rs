// SPDX-License-Identifier: GPL-2.0

//! From options to QEMU's arguments and the kernel's parameters.

use crate::kernel::Kernel;
use crate::options::{Iommu, Options, Policy};
use anyhow::{Context, Result, bail};

/// File descriptors that QEMU inherits.
pub const FD_CONSOLE: i32 = 3;
pub const FD_CONTROL: i32 = 4;
pub const FD_QMP: i32 = 5;
pub const FD_INITRD: i32 = 6;
pub const FD_TRACE: i32 = 7;
pub const FD_FILES: i32 = 8;
/// Of a monitor beside the usual one.
pub const FD_LEADER: i32 = 9;
pub const FD_DISK0: i32 = 10;

/// Under this name a Debian system finds the files of this run.
const FILES: &str = "opt/rust-iommu/files";

/// The name of its file system: that of its disk depends on which one has a driver first.
const LABEL: &str = "rust-iommu";

/// Has a Debian system run the script once it is up, without any change to its disk. bash, as dash's
/// read knows no time limit.
fn system_params() -> String {
    let files = format!("/sys/firmware/qemu_fw_cfg/by_name/{FILES}/raw");
    let run = format!("modprobe qemu_fw_cfg && cd / && cpio -idu <{files} && . /vm/main");
    format!(
        "root=LABEL={LABEL} rw systemd.run_success_action=none systemd.run_failure_action=none \
         systemd.run=\"/bin/bash -c '{run}'\""
    )
}

fn iommu_device(o: &Options) -> Result<Option<String>> {
    let base = match o.iommu {
        Iommu::None if o.iommu_opt.is_empty() => return Ok(None),
        Iommu::None => bail!("--iommu-opt needs an IOMMU"),
        Iommu::Intel => "intel-iommu",
        // Its PCI function is where it moves no other device.
        Iommu::Amd => "amd-iommu,dma-remap=on,pci-id=iommu0",
        // So is this.
        Iommu::Virtio => "virtio-iommu-pci,addr=1d.0",
    };
    let mut device = base.to_string();
    for opt in &o.iommu_opt {
        if !opt.contains('=') {
            bail!("--iommu-opt wants KEY=VALUE, not '{opt}'");
        }
        device.push(',');
        device.push_str(opt);
    }
    Ok(Some(device))
}

/// The lines of the topology files, then the --device arguments.
fn extra_devices(o: &Options) -> Result<Vec<String>> {
    let mut devices = Vec::new();
    for file in &o.topology {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read {}", file.display()))?;
        let lines = text.lines().map(str::trim);
        devices.extend(
            lines
                .filter(|l| !l.is_empty() && !l.starts_with('#'))
                .map(String::from),
        );
    }
    devices.extend(o.device.iter().cloned());
    Ok(devices)
}

/// QEMU's arguments, without the console's, which depend on who reads it. `tsc_khz` is what the
/// guest is told of its clock, where it would have to find out by itself.
pub fn qemu_args(
    o: &Options,
    kernel: &Kernel,
    kvm: bool,
    tsc_khz: Option<u64>,
) -> Result<Vec<String>> {
    let mut args: Vec<String> = Vec::new();
    let mut arg = |name: &str, value: String| {
        args.push(name.into());
        if !value.is_empty() {
            args.push(value);
        }
    };
    arg("-nodefaults", String::new());
    arg("-no-user-config", String::new());
    arg("-no-reboot", String::new());
    // However this program ends, QEMU ends with it.
    arg("-run-with", "exit-with-parent=on".into());
    arg("-display", "none".into());
    if kvm {
        // Interrupt remapping needs the split irqchip.
        arg("-machine", "q35,kernel-irqchip=split".into());
        arg("-accel", "kvm".into());
    } else {
        arg("-machine", "q35".into());
        arg(
            "-accel",
            format!("tcg,thread={}", if o.icount { "single" } else { "multi" }),
        );
    }
    if o.icount {
        arg("-icount", "shift=0,sleep=off".into());
    }
    arg("-cpu", "max".into());
    arg("-smp", o.cpus.to_string());
    let usual = if kernel.name == "debug" { 1024 } else { 2048 };
    arg("-m", format!("{}M", o.mem.unwrap_or(usual)));
    let image = match &o.system {
        Some(system) => system.join("vmlinuz"),
        None => kernel.image(),
    };
    arg("-kernel", image.display().to_string());
    arg("-initrd", format!("/dev/fd/{FD_INITRD}"));
    let clock = tsc_khz.map_or(String::new(), |khz| format!(" tsc_early_khz={khz}"));
    let params = format!("{}{clock} {}", kernel_params(o), kernel.boot_args());
    arg("-append", params.trim_end().into());
    arg("-chardev", format!("socket,id=qmp,fd={FD_QMP}"));
    arg("-object", "monitor-qmp,id=qmp,chardev=qmp".into());

    // The IOMMU comes first: QEMU places the devices after it behind it.
    if o.iommu == Iommu::Amd {
        arg("-device", "AMDVI-PCI,id=iommu0,addr=1e.0".into());
    }
    if let Some(device) = iommu_device(o)? {
        arg("-device", device);
    }
    for n in 0..o.disk_count() {
        // What is written to the system's disk is lost with QEMU.
        let file = match &o.system {
            Some(system) if n == 0 => {
                format!("{}/../disk.img,snapshot=on", system.display())
            }
            _ => format!("/dev/fd/{}", FD_DISK0 + n as i32),
        };
        arg(
            "-drive",
            format!("if=none,id=disk{n},file={file},format=raw,cache=unsafe,aio=threads"),
        );
    }
    if o.system.is_some() {
        arg("-fw_cfg", format!("name={FILES},file=/dev/fd/{FD_FILES}"));
    }
    for n in 0..o.nvme {
        let slot = 100 + n;
        arg(
            "-device",
            format!("pcie-root-port,id=rp-nvme{n},chassis={slot},slot={slot}"),
        );
        arg(
            "-device",
            format!("nvme,id=nvme{n},bus=rp-nvme{n},drive=disk{n},serial=disk{n}"),
        );
    }
    for n in 0..o.testdev {
        arg("-device", format!("iommu-testdev,id=testdev{n}"));
    }
    for device in extra_devices(o)? {
        arg("-device", device);
    }
    for pattern in &o.trace {
        arg("-trace", format!("enable={pattern}"));
    }
    if !o.trace.is_empty() {
        arg("-D", format!("/dev/fd/{FD_TRACE}"));
    }
    for word in &o.qemu_arg {
        arg(word, String::new());
    }
    Ok(args)
}

pub fn kernel_params(o: &Options) -> String {
    let mut params = vec!["console=ttyS0,115200", "printk.time=1", "panic=-1"];
    // On a loaded host an emulated CPU may be late; then the kernel's checks of
    // timer interrupt and clock against each other fail, up to a panic at boot.
    params.extend(["no_timer_check", "tsc=nowatchdog"]);
    if !o.shell {
        // A test's kernel must not limp on, and a hang must show within the time limit.
        params.extend(["oops=panic", "sysctl.kernel.hung_task_timeout_secs=40"]);
    }
    match (o.iommu, o.in_tree) {
        (Iommu::None | Iommu::Virtio, _) => {}
        (Iommu::Intel, true) => params.push("intel_iommu=on"),
        (Iommu::Amd, true) => params.push("amd_iommu=on"),
        (Iommu::Amd, false) => params.push("amd_iommu=off"),
        (Iommu::Intel, false) => {
            params.push("intel_iommu=off");
            if !o.intremap {
                params.push("intremap=off");
            }
        }
    }
    match o.policy {
        None => {}
        Some(Policy::Strict) => params.push("iommu.strict=1"),
        Some(Policy::Lazy) => params.push("iommu.strict=0"),
        Some(Policy::Identity) => params.push("iommu.passthrough=1"),
    }
    let system = o.system.as_ref().map(|_| system_params());
    params.extend(system.as_deref());
    params.extend(o.append.iter().map(String::as_str));
    params.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::path::PathBuf;

    fn options(words: &[&str]) -> Options {
        Options::try_parse_from(["vm", "--script", "x"].iter().chain(words)).unwrap()
    }

    fn args(words: &[&str]) -> Vec<String> {
        let kernel = Kernel {
            name: "k".into(),
            dir: PathBuf::from("/k"),
            release: "1".into(),
        };
        qemu_args(&options(words), &kernel, false, Some(2000)).unwrap()
    }

    fn devices(words: &[&str]) -> Vec<String> {
        let args = args(words);
        let pairs = args.windows(2).filter(|w| w[0] == "-device");
        pairs.map(|w| w[1].clone()).collect()
    }

    #[test]
    fn iommu_is_the_first_device() {
        let d = devices(&[
            "--iommu-opt",
            "aw-bits=39",
            "--testdev",
            "--device",
            "edu,id=e",
        ]);
        assert_eq!(d[0], "intel-iommu,aw-bits=39");
        assert_eq!(d[2], "nvme,id=nvme0,bus=rp-nvme0,drive=disk0,serial=disk0");
        assert_eq!(d[5..], ["iommu-testdev,id=testdev0", "edu,id=e"]);
        assert!(devices(&["--iommu", "none", "--nvme", "0"]).is_empty());
    }

    #[test]
    fn amds_function_comes_before_its_iommu() {
        let d = devices(&["--iommu", "amd", "--nvme", "0", "--testdev"]);
        assert_eq!(d[0], "AMDVI-PCI,id=iommu0,addr=1e.0");
        assert_eq!(d[1], "amd-iommu,dma-remap=on,pci-id=iommu0");
        assert_eq!(d[2], "iommu-testdev,id=testdev0");
    }

    #[test]
    fn disks_beyond_nvme_have_no_device() {
        let words = ["--nvme", "1", "--disks", "3"];
        assert_eq!(args(&words).iter().filter(|a| *a == "-drive").count(), 3);
        assert_eq!(devices(&words).len(), 3);
    }

    #[test]
    fn events_are_patterns_between_commas() {
        let args = args(&["--trace", "vtd_inv_desc_*,vtd_fault*"]);
        let count = |a: &str| args.iter().filter(|b| *b == a).count();
        assert_eq!(count("enable=vtd_inv_desc_*"), 1);
        assert_eq!((count("-trace"), count("-D")), (2, 1));
    }

    #[test]
    fn the_guest_is_told_of_its_clock() {
        let args = args(&[]);
        let append = args.iter().position(|a| a == "-append").unwrap();
        assert!(args[append + 1].ends_with(" tsc_early_khz=2000"));
    }

    #[test]
    fn instructions_are_counted_on_request() {
        let has = |words: &[&str], arg: &str| args(words).iter().any(|a| a == arg);
        assert!(has(&[], "tcg,thread=multi") && !has(&[], "-icount"));
        assert!(has(&["--icount"], "tcg,thread=single") && has(&["--icount"], "-icount"));
    }

    #[test]
    fn a_system_has_its_disk_first() {
        let args = args(&["--system", "s/new", "--nvme", "2"]);
        let has = |part: &str| args.iter().filter(|a| a.contains(part)).count();
        assert_eq!(has("s/new/vmlinuz"), 1);
        assert_eq!(has("id=disk0,file=s/new/../disk.img,snapshot=on,"), 1);
        assert_eq!(has("id=disk1,file=/dev/fd/"), 1);
        // systemd runs what QEMU has the files for.
        assert_eq!(
            (
                has("name=opt/rust-iommu/files"),
                has(&format!("by_name/{FILES}/raw"))
            ),
            (1, 1)
        );
    }

    #[test]
    fn bad_iommu_options_are_refused() {
        for words in [
            &["--iommu-opt", "aw-bits"][..],
            &["--iommu", "none", "--iommu-opt", "a=b"],
        ] {
            assert!(iommu_device(&options(words)).is_err());
        }
    }

    #[test]
    fn parameters_follow_the_options() {
        let has = |words: &[&str], param: &str| {
            let params = kernel_params(&options(words));
            params.split(' ').any(|p| p == param)
        };
        assert!(has(&[], "intel_iommu=off") && has(&[], "intremap=off"));
        assert!(!has(&["--intremap"], "intremap=off"));
        assert!(has(&["--in-tree"], "intel_iommu=on"));
        assert!(!has(&["--in-tree"], "intremap=off"));
        assert!(has(&["--iommu", "amd"], "amd_iommu=off"));
        assert!(!has(&["--iommu", "none"], "intel_iommu=off"));
        assert!(has(&["--policy", "lazy"], "iommu.strict=0"));
        assert!(has(&["--append", "a=1 b"], "b"));
        assert!(has(&["--system", "s"], "root=LABEL=rust-iommu") && !has(&[], "rw"));
    }
}
