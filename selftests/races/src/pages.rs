// SPDX-License-Identifier: GPL-2.0

//! Rows E8 and E10: so many pages, each mapped by itself, that a domain without a table makes few runs of
//! them; what a device reaches is compared with a list of all pages.

use crate::raw::Map;
use crate::sysfs::Device;
use crate::testdev::{self, WRITTEN};
use crate::vfio::{Container, Group};
use crate::walk::model::Random;
use anyhow::{ensure, Context, Result};

const IOVA: u64 = 1 << 32;
const PAGE: usize = 4096;
const HUGE: u64 = 2 << 20;
/// Tries of each look at what the device reaches.
const TRIES: usize = 500;

#[derive(clap::Args)]
pub struct Options {
    /// How many pages; so much memory is taken as reserved huge pages, that neighbours are neighbours there
    #[arg(long, default_value_t = 10240)]
    pages: usize,
    /// PCI address of an iommu-testdev that has vfio-pci
    address: String,
}

struct Space {
    container: Container,
    registers: Map,
    memory: Map,
    /// Where each page leads: to which one of the memory.
    mapped: Vec<Option<usize>>,
    device: Device,
    random: Random,
}

fn iova(page: usize) -> u64 {
    IOVA + (page * PAGE) as u64
}

impl Space {
    fn map(&mut self, page: usize, to: usize) -> Result<()> {
        let mapped = self
            .container
            .map_part(iova(page), &self.memory, to * PAGE, PAGE);
        mapped.with_context(|| format!("page {page} to {to}"))?;
        self.mapped[page] = Some(to);
        Ok(())
    }

    fn unmap(&mut self, first: usize, count: usize) -> Result<()> {
        let unmapped = self.container.unmap(iova(first), (count * PAGE) as u64);
        unmapped.with_context(|| format!("{count} pages from {first} on"))?;
        self.mapped[first..first + count].fill(None);
        Ok(())
    }

    /// Has the device write to pages at random; each write is to be where the page leads, or nowhere. And
    /// there are to be as many mappings as pages.
    fn look(&mut self, when: &str) -> Result<()> {
        for _ in 0..TRIES {
            let page = self.random.below(self.mapped.len());
            let place = self.mapped[page].unwrap_or(page) * PAGE;
            self.memory.write(place, 0);
            let reached = testdev::write(&self.registers, iova(page))?;
            let found = self.memory.read(place) == WRITTEN;
            let wanted = self.mapped[page].is_some();
            ensure!(
                reached == wanted && found == wanted,
                "{when}: page {page} leads to {:?}: done {reached}, found {found}",
                self.mapped[page]
            );
        }
        let wanted = self.mapped.iter().flatten().count();
        if let Some(count) = self.device.mappings()? {
            ensure!(count == wanted, "{when}: {count} mappings, not {wanted}");
        }
        Ok(())
    }
}

pub fn run(o: &Options) -> Result<()> {
    let device = Device::new(&o.address);
    let container = Container::new()?;
    let group = Group::open(device.group()?)?;
    group.set_container(&container)?;
    container.set_iommu()?;
    let opened = group.device(&o.address)?;
    opened.set_master()?;
    let mut space = Space {
        container,
        registers: opened.registers(testdev::REGISTERS)?,
        memory: Map::huge_pages(HUGE, (o.pages * PAGE).next_multiple_of(HUGE as usize))?,
        mapped: vec![None; o.pages],
        device,
        random: Random::new(1),
    };
    for page in 0..o.pages {
        space.map(page, page)?;
    }
    space.look("mapped one by one")?;
    // The last ones are one run: holes are made in it.
    let holes: Vec<usize> = (0..o.pages)
        .filter(|_| space.random.below(3) == 0)
        .collect();
    for page in &holes {
        space.unmap(*page, 1)?;
    }
    space.look("with holes")?;
    // Half of them are filled as before, and half with what lies elsewhere.
    for page in holes {
        let to = [page, o.pages - 1 - page][space.random.below(2)];
        space.map(page, to)?;
    }
    space.look("filled")?;
    for page in (0..o.pages).rev().step_by(2) {
        space.unmap(page, 1)?;
    }
    space.look("every second one unmapped")?;
    space.unmap(0, o.pages)?;
    space.look("all unmapped")
}
