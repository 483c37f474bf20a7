// SPDX-License-Identifier: GPL-2.0

//! Rows C2, C7 and C8: what VFIO lets a process map, and how much it lets it lock.

use crate::file;
use crate::raw::{self, Map};
use crate::vfio::{Container, Group};
use anyhow::Result;
use std::io::Read;

const IOVA: u64 = 0x10_0000;
const PAGE: u64 = 4096;
const ENOMEM: i32 = 12;

#[derive(clap::Args)]
pub struct Options {
    /// How much to map, in whole pages
    #[arg(long, default_value_t = PAGE)]
    bytes: u64,
    /// Map as a user without privileges, who may lock so many bytes
    #[arg(long)]
    limit: Option<u64>,
    /// A container for each group
    #[arg(long)]
    each: bool,
    /// Print the IOVAs that can be mapped
    #[arg(long)]
    ranges: bool,
    /// Print whether the IOMMU has all DMA snoop the CPU's caches
    #[arg(long)]
    coherency: bool,
    /// Keep all open until the end of the input
    #[arg(long)]
    hold: bool,
    /// Groups whose devices have vfio-pci
    #[arg(required = true)]
    groups: Vec<u32>,
}

/// A container with groups in it, and these.
fn open(groups: &[u32]) -> Result<(Container, Vec<Group>)> {
    let container = Container::new()?;
    let mut opened = Vec::new();
    for number in groups {
        let group = Group::open(*number)?;
        group.set_container(&container)?;
        opened.push(group);
    }
    container.set_iommu()?;
    Ok((container, opened))
}

/// Prints `mapped`, or `ENOMEM` where the limit was reached.
pub fn run(o: &Options) -> Result<()> {
    let sets: Vec<&[u32]> = match o.each {
        true => o.groups.chunks(1).collect(),
        false => vec![&o.groups],
    };
    let spaces: Vec<_> = sets.into_iter().map(open).collect::<Result<_>>()?;
    let bytes = o.bytes.next_multiple_of(PAGE);
    let memory = Map::pages(bytes as usize)?;
    if let Some(limit) = o.limit {
        raw::limit_locked_memory(limit)?;
        raw::drop_privileges()?;
    }
    for (container, _) in &spaces {
        if let Err(error) = container.map(IOVA, &memory, bytes) {
            if file::errno(&error) == Some(ENOMEM) {
                println!("ENOMEM");
                return Ok(());
            }
            return Err(error);
        }
        if o.ranges {
            let ranges = container.ranges()?;
            let range = |(start, last): &(u64, u64)| format!("{start:#x}-{last:#x}");
            let ranges: Vec<String> = ranges.iter().map(range).collect();
            println!("{}", ranges.join(" "));
        }
    }
    if o.coherency {
        for (container, _) in &spaces {
            println!(
                "{}",
                if container.is_coherent()? {
                    "enforced"
                } else {
                    "not enforced"
                }
            );
        }
    }
    println!("mapped");
    if o.hold {
        std::io::stdin().read_to_end(&mut Vec::new())?;
    }
    Ok(())
}
