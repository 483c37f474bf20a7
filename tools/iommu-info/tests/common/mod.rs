// SPDX-License-Identifier: GPL-2.0

//! Trees of files such as sysfs has, made in temporary directories.

#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod explaining;
pub mod program;

use iommu_info::address::Address;
use iommu_info::model::Machine;
use iommu_info::sysfs::{self, Root};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Kinds of PCI Express functions.
pub const ENDPOINT: u8 = 0;
pub const ROOT_PORT: u8 = 4;
pub const UPSTREAM: u8 = 5;
pub const DOWNSTREAM: u8 = 6;
pub const TO_PCI_BRIDGE: u8 = 7;
pub const INTEGRATED: u8 = 9;

/// A PCI function to be made.
#[derive(Clone, Debug)]
pub struct Function {
    pub address: Address,
    /// The kind; `None` is conventional PCI.
    pub express: Option<u8>,
    pub multifunction: bool,
    /// The ACS capability and its control register.
    pub acs: Option<(u16, u16)>,
    /// The bridges above it, from the root.
    pub path: Vec<Address>,
    pub group: Option<u32>,
    pub driver: Option<&'static str>,
}

/// An address.
pub fn at(text: &str) -> Address {
    text.parse().unwrap()
}

/// ACS with everything that isolates, switched on.
pub const ISOLATES: Option<(u16, u16)> = Some((0x5f, 0x1d));

/// An endpoint in a group of its own number, behind `path`.
pub fn endpoint(address: &str, path: &[&str], group: u32) -> Function {
    Function {
        address: at(address),
        express: Some(ENDPOINT),
        multifunction: false,
        acs: None,
        path: path.iter().map(|p| at(p)).collect(),
        group: Some(group),
        driver: None,
    }
}

impl Function {
    pub fn kind(mut self, kind: Option<u8>) -> Function {
        self.express = kind;
        self
    }

    pub fn acs(mut self, acs: Option<(u16, u16)>) -> Function {
        self.acs = acs;
        self
    }

    pub fn multifunction(mut self) -> Function {
        self.multifunction = true;
        self
    }

    pub fn driver(mut self, name: &'static str) -> Function {
        self.driver = Some(name);
        self
    }

    pub fn without_group(mut self) -> Function {
        self.group = None;
        self
    }

    fn is_bridge(&self) -> bool {
        matches!(self.express, Some(4..=8))
    }

    /// Its configuration space.
    pub fn config(&self) -> Vec<u8> {
        let mut bytes = vec![0; if self.express.is_some() { 4096 } else { 256 }];
        bytes[0x0e] = u8::from(self.is_bridge()) | (u8::from(self.multifunction) << 7);
        let Some(kind) = self.express else {
            return bytes;
        };
        // A capability of another kind comes first.
        bytes[0x06] = 1 << 4;
        bytes[0x34] = 0x40;
        bytes[0x40..0x42].copy_from_slice(&[0x05, 0x60]);
        bytes[0x60..0x64].copy_from_slice(&[0x10, 0x00, 0x02 | (kind << 4), 0x00]);
        let Some((offered, on)) = self.acs else {
            return bytes;
        };
        bytes[0x100..0x104].copy_from_slice(&0x1501_0001u32.to_le_bytes());
        bytes[0x150..0x154].copy_from_slice(&0x0001_000du32.to_le_bytes());
        bytes[0x154..0x156].copy_from_slice(&offered.to_le_bytes());
        bytes[0x156..0x158].copy_from_slice(&on.to_le_bytes());
        bytes
    }
}

/// A tree.
pub struct Tree(pub TempDir);

impl Tree {
    /// A machine without anything.
    pub fn new() -> Tree {
        let tree = Tree(tempfile::tempdir().unwrap());
        for dir in ["sys/bus/pci/devices", "sys/class/iommu", "proc", "dev"] {
            fs::create_dir_all(tree.path(dir)).unwrap();
        }
        tree
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    pub fn file(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn dir(&self, path: &str) {
        fs::create_dir_all(self.path(path)).unwrap();
    }

    pub fn link(&self, path: &str, to: impl AsRef<Path>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(to, path).unwrap();
    }

    pub fn remove(&self, path: &str) {
        let path = self.path(path);
        if path.is_dir() && !path.is_symlink() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
    }

    /// Where a function's directory is.
    pub fn device(&self, address: &str) -> String {
        format!("sys/bus/pci/devices/{}", at(address))
    }

    /// The directory of a function.
    pub fn directory(f: &Function) -> String {
        let mut dir = format!("sys/devices/pci{:04x}:00", f.address.segment);
        for name in f.path.iter().chain([&f.address]) {
            dir += &format!("/{name}");
        }
        dir
    }

    /// A function, with its group where it has one.
    pub fn add(&self, f: &Function) {
        let address = f.address;
        let dir = Self::directory(f);
        self.file(&format!("{dir}/config"), f.config());
        let class = if f.is_bridge() {
            "0x060400"
        } else {
            "0x010802"
        };
        self.file(&format!("{dir}/class"), format!("{class}\n"));
        self.file(&format!("{dir}/driver_override"), "(null)\n");
        self.file(&format!("{dir}/dma_mask_bits"), "64\n");
        self.file(
            &format!("{dir}/resource"),
            "0x00000000fe000000 0x00000000fe003fff 0x0000000000140204\n",
        );
        if let Some(driver) = f.driver {
            self.dir(&format!("sys/bus/pci/drivers/{driver}"));
            self.link(
                &format!("{dir}/driver"),
                format!("/sys/bus/pci/drivers/{driver}"),
            );
        }
        self.link(
            &format!("sys/bus/pci/devices/{address}"),
            format!("../../../../{dir}"),
        );
        if let Some(group) = f.group {
            let group_dir = format!("sys/kernel/iommu_groups/{group}");
            self.link(&format!("{dir}/iommu_group"), format!("/{group_dir}"));
            self.link(&format!("{dir}/iommu"), "/sys/class/iommu/vtd0");
            self.link(&format!("{group_dir}/devices/{address}"), format!("/{dir}"));
            self.file(&format!("{group_dir}/type"), "DMA\n");
            self.file(
                &format!("{group_dir}/reserved_regions"),
                "0x00000000fee00000 0x00000000feefffff msi\n",
            );
        }
    }

    /// Our driver, with one unit, and VFIO ready.
    pub fn ours(&self) {
        self.dir("sys/class/iommu/vtd0/devices");
        for module in ["rust_iommu", "rust_vtd"] {
            self.dir(&format!("sys/module/{module}"));
        }
        self.counters(0, 0);
        self.groups("");
        self.file("sys/kernel/irq/1/chip_name", "IO-APIC\n");
        self.file("dev/iommu", "");
        self.dir("sys/bus/pci/drivers/vfio-pci");
        self.file(
            "sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts",
            "Y\n",
        );
        self.file(
            "sys/module/vfio_iommu_type1/parameters/dma_entry_limit",
            "65535\n",
        );
    }

    /// The counters of our unit.
    pub fn counters(&self, invalidations: u64, faults: u64) {
        let dir = "sys/class/iommu/vtd0/rust_iommu";
        self.file(
            &format!("{dir}/invalidations"),
            format!("{invalidations}\n"),
        );
        self.file(&format!("{dir}/faults"), format!("{faults}\n"));
        self.dir("sys/kernel/debug/rust_vtd/vtd0");
    }

    /// What our driver says that a device can use.
    pub fn aperture(&self, address: &str, first: u64, last: u64) {
        self.file(
            &format!("{}/rust_iommu/aperture", self.device(address)),
            format!("{first:#018x} {last:#018x}\n"),
        );
    }

    /// That our driver keeps others from a device's domains.
    pub fn seal(&self, address: &str, sealed: bool) {
        let file = format!("{}/rust_iommu/sealed", self.device(address));
        self.file(&file, format!("{}\n", u8::from(sealed)));
    }

    /// A block device with its number in a directory of a function.
    pub fn block(&self, name: &str, number: &str, dir: &str) {
        self.file(&format!("{dir}/{name}/dev"), format!("{number}\n"));
        self.dir(&format!("{dir}/{name}/holders"));
        self.link(
            &format!("sys/class/block/{name}"),
            format!("../../../{dir}/{name}"),
        );
    }

    /// What is mounted: lines of number, place, kind, source and options.
    pub fn mounts(&self, lines: &[[&str; 5]]) {
        let line = |[number, at, kind, source, options]: &[&str; 5]| {
            format!("22 1 {number} / {at} rw,relatime shared:1 - {kind} {source} {options}\n")
        };
        let text: String = lines.iter().map(line).collect();
        self.file("proc/self/mountinfo", text);
    }

    /// A network interface of the function in a directory.
    pub fn interface(&self, name: &str, state: &str, dir: &str) {
        self.file(&format!("{dir}/net/{name}/operstate"), format!("{state}\n"));
        self.link(
            &format!("sys/class/net/{name}"),
            format!("../../../{dir}/net/{name}"),
        );
    }

    /// Makes a function that is there a virtual one.
    pub fn make_virtual(&self, address: &str, physical: &str) {
        let link = format!("{}/physfn", self.device(address));
        self.link(&link, format!("../{}", at(physical)));
    }

    /// The report of our driver.
    pub fn groups(&self, text: &str) {
        self.file("sys/kernel/debug/rust_vtd/groups", text);
    }

    /// The kernel's own driver, with one unit of VT-d.
    pub fn in_tree(&self) {
        self.dir("sys/class/iommu/vtd0/devices");
        self.file("sys/class/iommu/vtd0/intel-iommu/cap", "80d2008c22260206\n");
        self.file("sys/kernel/irq/1/chip_name", "IR-IO-APIC\n");
        self.dir("sys/kernel/debug");
    }

    /// A process that has a file open.
    pub fn process(&self, pid: u32, name: impl AsRef<[u8]>, file: &str) {
        self.file(&format!("proc/{pid}/comm"), [name.as_ref(), b"\n"].concat());
        self.link(&format!("proc/{pid}/fd/0"), "/dev/null");
        self.link(&format!("proc/{pid}/fd/7"), file);
    }

    pub fn root(&self) -> Root {
        Root::new(self.0.path()).unwrap()
    }

    pub fn read(&self) -> Machine {
        sysfs::read(&self.root())
    }
}
