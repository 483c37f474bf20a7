// SPDX-License-Identifier: GPL-2.0

//! The operations of row A5. Files are opened before, so that nothing but the operation itself
//! is what fails.

use crate::file;
use crate::oracle::Oracle;
use crate::raw;
use crate::sysfs::{self, Device};
use crate::testdev::{self, Ghost};
use anyhow::{ensure, Context, Result};
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

mod user;
use user::{Step, User};

const IOVA: u64 = 0x1f_f000;
const LIMIT: Duration = Duration::from_secs(20);
const DRIVER: &str = "rust_testdev";

/// Something that is tried with failing allocations.
pub trait Operation {
    /// Leads to where it can be tried.
    fn prepare(&mut self) -> Result<()>;
    /// Is tried.
    fn run(&mut self) -> Result<()>;
    /// Checks that an error has changed nothing, then does without failures what did not
    /// succeed, and checks that all works. `injected`: an allocation failed.
    fn repair(&mut self, result: Result<()>, injected: bool) -> Result<()>;
}

#[derive(clap::Subcommand)]
pub enum Kind {
    /// The IOMMU core takes a device that is found on bus 0
    Probe { address: String },
    /// The type of a group's default domain changes
    Type {
        address: String,
        from: String,
        to: String,
    },
    /// A driver is bound, rust_testdev
    Bind { address: String },
    /// rust_testdev maps pages
    Map { address: String, pages: u32 },
    /// VFIO attaches a group
    Attach { address: String },
    /// VFIO maps 2 MB and a page
    UserMap { address: String },
    /// VFIO unmaps them
    UserUnmap { address: String },
    /// VFIO detaches a group
    Detach { address: String },
    /// A module is loaded while a driver has the device, which so is left alone
    Load { address: String, module: String },
}

impl Kind {
    pub fn start(&self) -> Result<Box<dyn Operation>> {
        Ok(match self {
            Kind::Probe { address } => Box::new(Probe::new(address)?),
            Kind::Type { address, from, to } => Box::new(Type::new(address, from, to)),
            Kind::Bind { address } => Box::new(Bind::new(address)?),
            Kind::Map { address, pages } => Box::new(Mapping::new(address, *pages)),
            Kind::Attach { address } => Box::new(User::new(address, Step::Attach)?),
            Kind::UserMap { address } => Box::new(User::new(address, Step::Map)?),
            Kind::UserUnmap { address } => Box::new(User::new(address, Step::Unmap)?),
            Kind::Detach { address } => Box::new(User::new(address, Step::Detach)?),
            Kind::Load { address, module } => Box::new(Load::new(address, module)?),
        })
    }
}

fn writable(path: &str) -> Result<File> {
    let file = OpenOptions::new().write(true).open(path);
    file.with_context(|| format!("opening {path}"))
}

fn oracle(address: &str) -> Oracle {
    Oracle::new(&format!("{DRIVER}-{address}"))
}

/// A page is mapped for the bound device, which writes to it, and cannot any more once it
/// is unmapped.
fn dma_works(address: &str, translated: bool) -> Result<()> {
    let oracle = oracle(address);
    let answer = oracle.run("map from")?;
    let word = |name| {
        let mut words = answer.split_whitespace();
        words.find(|w| *w == name);
        words.next().with_context(|| format!("'{answer}'"))
    };
    let (handle, iova) = (word("handle")?, word("iova")?);
    let dma = oracle.run(&format!("dma write {iova}"))?;
    ensure!(dma == "ok", "DMA write: {dma}");
    let check = oracle.run(&format!("check {handle} {:#x}", testdev::WRITTEN))?;
    ensure!(check == "match", "after DMA: {check}");
    let after = oracle.run(&format!("unmap {handle} then-write"))?;
    ensure!(!translated || after == "tx_fail", "after unmap: {after}");
    oracle.run(&format!("free {handle}"))?;
    Ok(())
}

fn unbind(device: &Device) -> Result<()> {
    match device.driver() {
        Some(_) => device.unbind(),
        None => Ok(()),
    }
}

/// Binds the driver, does DMA, and unbinds it again.
fn works_bound(device: &Device) -> Result<()> {
    device.bind(DRIVER)?;
    dma_works(device.address(), device.group_type()? == "DMA")?;
    device.unbind()
}

/// As [`works_bound`]. The core tells only the log when it cannot set up the DMA API for a
/// device: all DMA is refused then, until that is done `again`.
fn works_or_again(
    device: &Device,
    injected: bool,
    again: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let works = works_bound(device);
    if works.is_ok() || !injected {
        return works;
    }
    unbind(device)?;
    again()?;
    works_bound(device)
}

struct Probe {
    device: Device,
    rescan: File,
    kind: String,
    ghost: Ghost,
}

impl Probe {
    fn new(address: &str) -> Result<Probe> {
        let device = Device::new(address);
        unbind(&device)?;
        file::write(Path::new("/sys/bus/pci/drivers_autoprobe"), "0")?;
        Ok(Probe {
            rescan: writable("/sys/class/pci_bus/0000:00/rescan")?,
            kind: device.group_type()?,
            ghost: Ghost::new(address)?,
            device,
        })
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if let Err(error) = file::write(Path::new("/sys/bus/pci/drivers_autoprobe"), "1") {
            println!("# {error:#}");
        }
    }
}

impl Operation for Probe {
    fn prepare(&mut self) -> Result<()> {
        self.device.remove()
    }

    fn run(&mut self) -> Result<()> {
        Ok(self.rescan.write_all(b"1")?)
    }

    fn repair(&mut self, result: Result<()>, injected: bool) -> Result<()> {
        result?;
        // The bus does not hear of what failed.
        if self.device.group().is_err() {
            ensure!(!self.ghost.write(IOVA)?, "DMA without a group");
            self.device.remove()?;
            sysfs::rescan()?;
        }
        works_or_again(&self.device, injected, || {
            self.device.remove()?;
            sysfs::rescan()
        })?;
        ensure!(self.device.group_type()? == self.kind, "another type");
        Ok(())
    }
}

struct Type {
    device: Device,
    from: String,
    to: String,
    file: Option<File>,
}

impl Type {
    fn new(address: &str, from: &str, to: &str) -> Type {
        Type {
            device: Device::new(address),
            from: from.to_string(),
            to: to.to_string(),
            file: None,
        }
    }
}

impl Operation for Type {
    fn prepare(&mut self) -> Result<()> {
        unbind(&self.device)?;
        self.device.set_group_type(&self.from)?;
        let address = self.device.address();
        let file = writable(&format!("/sys/bus/pci/devices/{address}/iommu_group/type"))?;
        self.file = Some(file);
        Ok(())
    }

    fn run(&mut self) -> Result<()> {
        let file = self.file.as_mut().context("not opened")?;
        Ok(file.write_all(self.to.as_bytes())?)
    }

    fn repair(&mut self, result: Result<()>, injected: bool) -> Result<()> {
        if result.is_err() {
            ensure!(self.device.group_type()? == self.from, "type changed");
            works_bound(&self.device)?;
            self.device.set_group_type(&self.to)?;
        }
        ensure!(self.device.group_type()? == self.to, "type not changed");
        works_or_again(&self.device, injected, || {
            self.device.set_group_type(&self.from)?;
            self.device.set_group_type(&self.to)
        })?;
        self.device.set_group_type(&self.from)
    }
}

struct Bind {
    device: Device,
    file: File,
}

impl Bind {
    fn new(address: &str) -> Result<Bind> {
        let device = Device::new(address);
        unbind(&device)?;
        let file = writable(&format!("/sys/bus/pci/drivers/{DRIVER}/bind"))?;
        Ok(Bind { device, file })
    }
}

impl Operation for Bind {
    fn prepare(&mut self) -> Result<()> {
        Ok(())
    }

    fn run(&mut self) -> Result<()> {
        Ok(self.file.write_all(self.device.address().as_bytes())?)
    }

    fn repair(&mut self, result: Result<()>, injected: bool) -> Result<()> {
        if result.is_err() {
            ensure!(self.device.driver().is_none(), "bound in spite of an error");
            // Nobody owns what a failed probe has let go of.
            let kind = self.device.group_type()?;
            self.device.set_group_type("identity")?;
            self.device.set_group_type(&kind)?;
            self.device.bind(DRIVER)?;
        }
        if injected && dma_works(self.device.address(), true).is_err() {
            // debugfs does not tell that it made no file.
            self.device.unbind()?;
            self.device.bind(DRIVER)?;
        }
        dma_works(self.device.address(), true)?;
        self.device.unbind()
    }
}

struct Mapping {
    device: Device,
    file: Option<File>,
    command: String,
}

impl Mapping {
    fn new(address: &str, pages: u32) -> Mapping {
        Mapping {
            device: Device::new(address),
            file: None,
            command: format!("map from {pages}"),
        }
    }
}

impl Operation for Mapping {
    // A new domain, without tables.
    fn prepare(&mut self) -> Result<()> {
        unbind(&self.device)?;
        let kind = self.device.group_type()?;
        self.device.set_group_type("identity")?;
        self.device.set_group_type(&kind)?;
        self.device.bind(DRIVER)?;
        let address = self.device.address();
        let file = format!("/sys/kernel/debug/{DRIVER}-{address}/cmd");
        self.file = Some(writable(&file)?);
        Ok(())
    }

    fn run(&mut self) -> Result<()> {
        let file = self.file.as_mut().context("not opened")?;
        Ok(file.write_all(self.command.as_bytes())?)
    }

    fn repair(&mut self, _result: Result<()>, _injected: bool) -> Result<()> {
        let oracle = oracle(self.device.address());
        let iova = oracle.number(&self.command, "iova")?;
        let dma = oracle.run(&format!("dma write {iova:#x}"))?;
        ensure!(dma == "ok", "DMA write: {dma}");
        dma_works(self.device.address(), true)?;
        self.file = None;
        // Frees what was mapped, also where the number of it was lost to a failure.
        self.device.unbind()
    }
}

struct Load {
    device: Device,
    name: CString,
    file: File,
}

impl Load {
    fn new(address: &str, path: &str) -> Result<Load> {
        let name = Path::new(path).file_stem().and_then(|n| n.to_str());
        Ok(Load {
            device: Device::new(address),
            name: CString::new(name.context("no name")?)?,
            file: File::open(path).with_context(|| format!("opening {path}"))?,
        })
    }

    fn parameter(&self, name: &str) -> String {
        format!(
            "/sys/module/{}/parameters/{name}",
            self.name.to_string_lossy()
        )
    }
}

impl Operation for Load {
    fn prepare(&mut self) -> Result<()> {
        dma_works(self.device.address(), false)
    }

    fn run(&mut self) -> Result<()> {
        Ok(raw::load_module(&self.file, c"")?)
    }

    fn repair(&mut self, result: Result<()>, _injected: bool) -> Result<()> {
        let address = self.device.address();
        dma_works(address, false).context("the device that is bound")?;
        if result.is_err() {
            raw::load_module(&self.file, c"").context("loading again")?;
            dma_works(address, false).context("with the module")?;
        }
        self.device.unbind()?;
        file::write(Path::new(&self.parameter("shutdown")), "1")?;
        raw::unload_module(&self.name)?;
        self.device.bind(DRIVER)
    }
}
