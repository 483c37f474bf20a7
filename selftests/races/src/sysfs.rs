// SPDX-License-Identifier: GPL-2.0

//! PCI devices and their groups in sysfs.

use crate::file;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Options {
    /// PCI address, such as 0000:01:00.0
    address: String,
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Bind a driver
    Bind { driver: String },
    /// Unbind the driver
    Unbind,
    /// Only this driver may have the device; without one, any may again
    Override { driver: Option<String> },
    /// Take the device away
    Remove,
    /// Find devices that were taken away
    Rescan,
    /// Print driver, group and type of the group's default domain
    Show,
    /// Change the type of the group's default domain
    Type { name: String },
}

pub fn run(o: &Options) -> Result<()> {
    let device = Device::new(&o.address);
    match &o.action {
        Action::Bind { driver } => device.bind(driver),
        Action::Unbind => device.unbind(),
        Action::Override { driver } => device.driver_override(driver.as_deref()),
        Action::Remove => device.remove(),
        Action::Rescan => rescan(),
        Action::Type { name } => device.set_group_type(name),
        Action::Show => {
            let none = || "none".to_string();
            println!("driver {}", device.driver().unwrap_or_else(none));
            println!(
                "group {}",
                device.group().map_or_else(|_| none(), |g| g.to_string())
            );
            println!("type {}", device.group_type().unwrap_or_else(|_| none()));
            Ok(())
        }
    }
}

/// Looks for new devices on all buses.
pub fn rescan() -> Result<()> {
    file::write(Path::new("/sys/bus/pci/rescan"), "1")
}

/// Looks for new devices on the bus of `address` only, which must be there.
pub fn rescan_bus(address: &str) -> Result<()> {
    let (bus, _) = address.rsplit_once(':').context("no PCI address")?;
    let file = Path::new("/sys/class/pci_bus").join(bus).join("rescan");
    file::write(&file, "1")
}

/// A PCI device, which may come and go.
#[derive(Clone, Debug)]
pub struct Device {
    address: String,
}

impl Device {
    pub fn new(address: &str) -> Device {
        Device {
            address: address.to_string(),
        }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new("/sys/bus/pci/devices")
            .join(&self.address)
            .join(name)
    }

    pub fn exists(&self) -> bool {
        self.path("").exists()
    }

    /// The driver that has the device.
    pub fn driver(&self) -> Option<String> {
        last_of_link(&self.path("driver"))
    }

    pub fn bind(&self, driver: &str) -> Result<()> {
        let file = Path::new("/sys/bus/pci/drivers").join(driver).join("bind");
        file::write(&file, &self.address)
    }

    pub fn unbind(&self) -> Result<()> {
        file::write(&self.path("driver/unbind"), &self.address)
    }

    pub fn driver_override(&self, driver: Option<&str>) -> Result<()> {
        let text = format!("{}\n", driver.unwrap_or(""));
        file::write(&self.path("driver_override"), &text)
    }

    pub fn remove(&self) -> Result<()> {
        file::write(&self.path("remove"), "1")
    }

    /// Number of its group.
    pub fn group(&self) -> Result<u32> {
        let link = self.path("iommu_group");
        let name = last_of_link(&link);
        let number = name.and_then(|n| n.parse().ok());
        number.with_context(|| format!("{} is in no group", self.address))
    }

    /// Name of its node in /dev/vfio/devices, while vfio-pci has it.
    pub fn vfio_name(&self) -> Result<String> {
        let mut entries = std::fs::read_dir(self.path("vfio-dev"))?;
        let entry = entries.next().context("no vfio device")??;
        Ok(entry.file_name().to_string_lossy().into_owned())
    }

    /// How much is mapped in the domain that it is on; `None` with the kernel's own driver.
    pub fn mappings(&self) -> Result<Option<usize>> {
        let file = self.path("rust_iommu/mappings");
        if !file.exists() {
            return Ok(None);
        }
        let count = file::read(&file)?.parse();
        Ok(Some(count.with_context(|| format!("{file:?}"))?))
    }

    /// One of our driver's attributes of it.
    pub fn attribute(&self, name: &str) -> Result<String> {
        file::read(&self.path("rust_iommu").join(name))
    }

    pub fn set_attribute(&self, name: &str, value: &str) -> Result<()> {
        file::write(&self.path("rust_iommu").join(name), value)
    }

    pub fn reset(&self) -> Result<()> {
        file::write(&self.path("reset"), "1")
    }

    /// Type of its group's default domain, such as "DMA-FQ".
    pub fn group_type(&self) -> Result<String> {
        file::read(&self.path("iommu_group/type"))
    }

    pub fn set_group_type(&self, name: &str) -> Result<()> {
        file::write(&self.path("iommu_group/type"), name)
    }
}

fn last_of_link(link: &Path) -> Option<String> {
    let target = std::fs::read_link(link).ok()?;
    Some(target.file_name()?.to_str()?.to_string())
}
