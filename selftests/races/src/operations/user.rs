// SPDX-License-Identifier: GPL-2.0

//! Operations on a group that VFIO has.

use super::{Operation, IOVA, LIMIT};
use crate::file::wait_for;
use crate::raw::Map;
use crate::sysfs::Device;
use crate::testdev::{self, Ghost};
use crate::vfio::{Container, Group};
use anyhow::{bail, ensure, Context, Result};

const PAGE: usize = 4096;
/// Needs tables at all levels, of the last one three.
const LENGTH: usize = (2 << 20) + PAGE;
/// VFIO may allocate for each page that it lets go of: fewer are enough.
const SHORT: usize = 4 * PAGE;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Attach,
    Map,
    Unmap,
    Detach,
}

/// A group that is used through VFIO.
pub struct User {
    step: Step,
    ghost: Ghost,
    group: Group,
    memory: Map,
    length: usize,
    container: Option<Container>,
    /// How far the attach came.
    in_container: bool,
}

impl User {
    pub fn new(address: &str, step: Step) -> Result<User> {
        let device = Device::new(address);
        let bound = || device.driver().as_deref() == Some("vfio-pci");
        ensure!(wait_for(LIMIT, bound), "{address} is not bound to vfio-pci");
        Ok(User {
            step,
            ghost: Ghost::new(address)?,
            group: Group::open(device.group()?)?,
            memory: Map::pages(LENGTH)?,
            length: match step {
                Step::Unmap | Step::Detach => SHORT,
                _ => LENGTH,
            },
            container: None,
            in_container: false,
        })
    }

    fn container(&self) -> Result<&Container> {
        self.container.as_ref().context("no container")
    }

    fn attach(&mut self) -> Result<()> {
        if !self.in_container {
            self.group.set_container(self.container()?)?;
            self.in_container = true;
        }
        self.container()?.set_iommu()
    }

    fn map(&self) -> Result<()> {
        self.container()?
            .map(IOVA, &self.memory, self.length as u64)
    }

    fn unmap(&self) -> Result<()> {
        self.container()?.unmap(IOVA, self.length as u64)
    }

    fn detach(&mut self) -> Result<()> {
        self.group.unset_container()?;
        self.in_container = false;
        Ok(())
    }

    /// First and last page, and not beyond.
    fn reached(&self) -> Result<bool> {
        let last = self.length - PAGE;
        self.memory.write(0, 0);
        self.memory.write(last, 0);
        let first_done = self.ghost.write(IOVA)?;
        let last_done = self.ghost.write(IOVA + last as u64)?;
        let written = [self.memory.read(0), self.memory.read(last)];
        ensure!(
            !self.ghost.write(IOVA + self.length as u64)?,
            "reaches more than is mapped"
        );
        match (first_done, last_done) {
            (true, true) => ensure!(written == [testdev::WRITTEN; 2], "written elsewhere"),
            (false, false) => ensure!(written == [0; 2], "written in spite of an error"),
            _ => bail!("reaches one end only"),
        }
        Ok(first_done)
    }
}

impl Operation for User {
    fn prepare(&mut self) -> Result<()> {
        self.container = Some(Container::new()?);
        if self.step != Step::Attach {
            self.attach()?;
        }
        if matches!(self.step, Step::Unmap | Step::Detach) {
            self.map()?;
            ensure!(self.reached()?, "mapped, and out of reach");
        }
        Ok(())
    }

    fn run(&mut self) -> Result<()> {
        match self.step {
            Step::Attach => self.attach(),
            Step::Map => self.map(),
            Step::Unmap => self.unmap(),
            Step::Detach => self.detach(),
        }
    }

    fn repair(&mut self, result: Result<()>, _injected: bool) -> Result<()> {
        let failed = result.is_err();
        match self.step {
            Step::Attach | Step::Map => {
                ensure!(!failed || !self.reached()?, "reached in spite of an error");
                if failed {
                    self.run()?;
                }
                if self.step == Step::Attach {
                    self.map()?;
                }
                ensure!(self.reached()?, "mapped, and out of reach");
                self.unmap()?;
            }
            Step::Unmap if failed => self.unmap()?,
            Step::Detach if failed => self.detach()?,
            Step::Unmap | Step::Detach => {}
        }
        ensure!(!self.reached()?, "still reached");
        if self.in_container {
            self.detach()?;
        }
        self.container = None;
        Ok(())
    }
}
