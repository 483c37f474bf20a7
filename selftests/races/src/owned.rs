// SPDX-License-Identifier: GPL-2.0

//! Rows B7 and B27: VFIO owns a group, and lets go of it while vfio-pci stays bound.

use crate::file;
use crate::raw::Map;
use crate::sysfs::Device;
use crate::testdev::Ghost;
use crate::vfio::{Container, Group};
use crate::vmstat::DRIVERS;
use anyhow::{ensure, Context, Result};
use std::path::Path;
use std::time::Instant;

/// Where it is mapped for the device.
pub(crate) const IOVA: u64 = 0x10_0000;
/// Bytes of a page.
pub(crate) const PAGE: usize = 4096;
const EBUSY: i32 = 16;
/// The report on groups, of the driver that is loaded.
pub fn report() -> Result<String> {
    let mut files = DRIVERS
        .iter()
        .map(|driver| format!("/sys/kernel/debug/{driver}/groups"));
    let file = files.find(|file| Path::new(file).exists());
    file::read(Path::new(
        &file.context("no driver has a report on groups")?,
    ))
}

#[derive(clap::Args)]
pub struct Options {
    #[arg(long, default_value_t = 1)]
    rounds: u32,
    /// An iommu-testdev that is bound to vfio-pci
    address: String,
    /// Another one of its group, without a driver, that rust_kdma is bound to while VFIO owns
    /// the group
    sibling: Option<String>,
}

pub fn run(o: &Options) -> Result<()> {
    let start = Instant::now();
    let owner = Device::new(&o.address);
    let sibling = o.sibling.as_deref().map(Device::new);
    let ghost = Ghost::new(&o.address)?;
    let memory = Map::pages(PAGE)?;
    for round in 1..=o.rounds {
        run_once(&owner, sibling.as_ref(), &ghost, &memory)
            .with_context(|| format!("round {round}"))?;
    }
    println!(
        "# {} rounds, {:.1} s",
        o.rounds,
        start.elapsed().as_secs_f32()
    );
    Ok(())
}

/// Whether a write of the device at [`IOVA`] arrives in memory.
pub(crate) fn reaches(ghost: &Ghost, memory: &Map) -> Result<bool> {
    memory.write(0, 0);
    let done = ghost.write(IOVA)?;
    ensure!(done == (memory.read(0) != 0), "memory and device differ");
    Ok(done)
}

fn run_once(owner: &Device, sibling: Option<&Device>, ghost: &Ghost, memory: &Map) -> Result<()> {
    let group = Group::open(owner.group()?)?;
    let container = Container::new()?;
    group.set_container(&container)?;
    container.set_iommu()?;
    container.map(IOVA, memory, PAGE as u64)?;
    ensure!(
        reaches(ghost, memory)?,
        "the owner does not reach its memory"
    );
    if let Some(sibling) = sibling {
        refused(owner, sibling)?;
        ensure!(reaches(ghost, memory)?, "the owner was disturbed");
    }
    // Closed here, in this order.
    drop(container);
    drop(group);
    ensure!(owner.driver().as_deref() == Some("vfio-pci"), "not bound");
    ensure!(
        !reaches(ghost, memory)?,
        "the page is reached after the end"
    );
    Ok(())
}

/// A driver that uses the DMA API cannot be bound, and the report says why.
fn refused(owner: &Device, sibling: &Device) -> Result<()> {
    sibling.driver_override(Some("rust_kdma"))?;
    let errno = sibling
        .bind("rust_kdma")
        .err()
        .as_ref()
        .and_then(file::errno);
    ensure!(errno == Some(EBUSY), "the bind gives {errno:?}");
    ensure!(sibling.driver().is_none(), "bound");
    let Ok(report) = report() else {
        return Ok(());
    };
    let group = format!("group {}: claimed past this framework", owner.group()?);
    let holder = format!(
        "  {} driver vfio-pci, manages DMA itself, domain of its owner",
        owner.address()
    );
    for line in [&group, &holder] {
        ensure!(
            report.lines().any(|l| l == line),
            "not '{line}' in\n{report}"
        );
    }
    Ok(())
}
