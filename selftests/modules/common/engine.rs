// SPDX-License-Identifier: GPL-2.0

//! What the devices can do: write memory (both) and read memory (edu).

use iommu::dma::Buffer;
use kernel::{
    device::Bound,
    dma::DmaAddress,
    io::{
        poll::read_poll_timeout,
        Io, //
    },
    pci,
    prelude::*,
    sync::{
        atomic::Relaxed,
        Arc, //
    },
    time::Delta, //
};

/// Device id of iommu-testdev; the vendor is Red Hat.
pub(crate) const TESTDEV: u16 = 0x0005;
/// Vendor and device id of edu.
const EDU: (u16, u16) = (0x1234, 0x11e8);

/// Registers of iommu-testdev. It does DMA while TRIGGER is read.
mod testdev {
    pub(super) const TRIGGER: usize = 0x00;
    pub(super) const IOVA_LO: usize = 0x04;
    pub(super) const IOVA_HI: usize = 0x08;
    pub(super) const LEN: usize = 0x0c;
    pub(super) const RESULT: usize = 0x10;
    pub(super) const DOORBELL: usize = 0x14;
    /// Physical address at which it looks for what it wrote, past any IOMMU.
    pub(super) const PHYS_LO: usize = 0x1c;
    pub(super) const PHYS_HI: usize = 0x20;

    pub(super) const ARM: u32 = 1;
    pub(super) const OK: u32 = 0;
    pub(super) const TX_FAIL: u32 = 0xdead_0002;
}

/// Registers of edu. It moves data between memory and its buffer, 100 ms after
/// it was told.
mod edu {
    pub(super) const SOURCE: usize = 0x80;
    pub(super) const DESTINATION: usize = 0x88;
    pub(super) const COUNT: usize = 0x90;
    pub(super) const COMMAND: usize = 0x98;

    /// Where the buffer is in its own addresses.
    pub(super) const BUFFER: u64 = 0x4_0000;
    pub(super) const START: u64 = 1 << 0;
    pub(super) const TO_MEMORY: u64 = 1 << 1;
}

/// Size of the registers that are used.
const REGISTERS: usize = 0x1000;
/// The most that is moved at once.
const CHUNK: u32 = 4096;
/// What iommu-testdev writes.
pub(crate) const WRITTEN: u32 = 0x1234_5678;

/// The kind of device.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Model {
    Testdev,
    Edu,
}

impl Model {
    pub(crate) fn of(dev: &pci::Device) -> Option<Self> {
        let vendor = dev.vendor_id();
        if vendor == pci::Vendor::REDHAT && dev.device_id() == TESTDEV {
            return Some(Model::Testdev);
        }
        ((vendor.as_raw(), dev.device_id()) == EDU).then_some(Model::Edu)
    }
}

/// What came of a transfer, as far as the device can tell.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    /// Memory did not answer.
    TxFail,
    /// It is over; edu is not told more.
    Over,
    /// Another code of iommu-testdev.
    Code(u32),
}

pub(crate) struct Engine<'dev> {
    bar: pci::Bar<'dev, REGISTERS>,
    model: Model,
    /// Holds what iommu-testdev writes, so that its own comparison succeeds
    /// wherever the write went: tests look at memory themselves.
    sample: Arc<Buffer>,
}

impl<'dev> Engine<'dev> {
    pub(crate) fn new(dev: &'dev pci::Device<Bound>, model: Model) -> Result<Self> {
        let sample = Buffer::new(1)?;
        for word in sample.words() {
            word.store(WRITTEN, Relaxed);
        }
        Ok(Self {
            bar: dev.iomap_region_sized(0, c"rust_iommu test")?,
            model,
            sample,
        })
    }

    /// Writes `len` bytes to memory: a fixed pattern (iommu-testdev), or what was
    /// read last (edu).
    pub(crate) fn write(&self, iova: DmaAddress, len: u32) -> Result<Outcome> {
        check(len)?;
        match self.model {
            Model::Testdev => Ok(self.testdev_write(iova, len)),
            Model::Edu => self.edu(edu::BUFFER, iova, len, edu::START | edu::TO_MEMORY),
        }
    }

    /// Reads `len` bytes from memory.
    pub(crate) fn read(&self, iova: DmaAddress, len: u32) -> Result<Outcome> {
        check(len)?;
        match self.model {
            Model::Testdev => Err(EOPNOTSUPP),
            Model::Edu => self.edu(iova, edu::BUFFER, len, edu::START),
        }
    }

    fn testdev_write(&self, iova: DmaAddress, len: u32) -> Outcome {
        let bar = &self.bar;
        let phys = self.sample.phys();
        bar.write32(iova as u32, testdev::IOVA_LO);
        bar.write32((iova >> 32) as u32, testdev::IOVA_HI);
        bar.write32(phys as u32, testdev::PHYS_LO);
        bar.write32((phys >> 32) as u32, testdev::PHYS_HI);
        bar.write32(len, testdev::LEN);
        bar.write32(testdev::ARM, testdev::DOORBELL);
        bar.read32(testdev::TRIGGER);
        match bar.read32(testdev::RESULT) {
            testdev::OK => Outcome::Ok,
            testdev::TX_FAIL => Outcome::TxFail,
            code => Outcome::Code(code),
        }
    }

    fn edu(&self, source: u64, destination: u64, len: u32, command: u64) -> Result<Outcome> {
        let bar = &self.bar;
        bar.try_write64(source, edu::SOURCE)?;
        bar.try_write64(destination, edu::DESTINATION)?;
        bar.try_write64(len.into(), edu::COUNT)?;
        bar.try_write64(command, edu::COMMAND)?;
        read_poll_timeout(
            || bar.try_read64(edu::COMMAND),
            |command| command & edu::START == 0,
            Delta::from_millis(10),
            Delta::from_secs(5),
        )?;
        Ok(Outcome::Over)
    }
}

fn check(len: u32) -> Result {
    if len == 0 || len > CHUNK {
        return Err(EINVAL);
    }
    Ok(())
}
