// SPDX-License-Identifier: GPL-2.0

//! How many pages of IOMMU tables it takes to map huge pages with VFIO: a page that is cut up takes more.

use crate::raw::Map;
use crate::vfio::{Container, Group};
use crate::vmstat;
use anyhow::Result;

/// Aligned to all sizes of pages.
const IOVA: u64 = 1 << 32;

#[derive(clap::Args)]
pub struct Options {
    /// Size of a page in bytes, of which enough are reserved
    #[arg(long)]
    page: u64,
    /// How many pages
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Map them so many bytes beyond where they fit
    #[arg(long, default_value_t = 0)]
    shift: u64,
    /// A group whose devices have vfio-pci
    group: u32,
}

/// Prints how many pages the tables grew by.
pub fn run(o: &Options) -> Result<()> {
    let container = Container::new()?;
    let group = Group::open(o.group)?;
    group.set_container(&container)?;
    container.set_iommu()?;
    let length = o.page * o.count;
    let memory = Map::huge_pages(o.page, length as usize)?;
    let before = vmstat::table_pages()?;
    container.map(IOVA + o.shift, &memory, length)?;
    println!("{}", vmstat::table_pages()?.saturating_sub(before));
    Ok(())
}
