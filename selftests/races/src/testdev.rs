// SPDX-License-Identifier: GPL-2.0

//! QEMU's iommu-testdev, driven from here: it writes to memory when it is told.
//!
//! Its registers are reached through VFIO, or past the kernel, when that has let go of
//! the device: what it then can reach is what the IOMMU lets through.

use crate::raw::{ConfigPorts, Map};
use crate::vfio::Device;
use anyhow::{bail, ensure, Context, Result};
use std::fs::OpenOptions;

/// Bytes of registers that are used.
pub const REGISTERS: usize = 0x1000;

/// What it writes.
pub const WRITTEN: u32 = 0x1234_5678;

const PAGE: u64 = 4096;

const TRIGGER: usize = 0x00;
const IOVA_LO: usize = 0x04;
const IOVA_HI: usize = 0x08;
const LEN: usize = 0x0c;
const RESULT: usize = 0x10;
const DOORBELL: usize = 0x14;
const ARM: u32 = 1;
const TX_FAIL: u32 = 0xdead_0002;
const SAME: u32 = 0;
const MISMATCH: u32 = 0xdead_0004;

/// Tries to write four bytes at `iova`; whether memory took them.
///
/// The device then compares what it wrote with what is at the physical address that it was told
/// last, or 0: whether it finds a difference or not, the transfer was done.
pub fn write(registers: &Map, iova: u64) -> Result<bool> {
    registers.write(IOVA_LO, iova as u32);
    registers.write(IOVA_HI, (iova >> 32) as u32);
    registers.write(LEN, 4);
    registers.write(DOORBELL, ARM);
    registers.read(TRIGGER);
    match registers.read(RESULT) {
        TX_FAIL => Ok(false),
        MISMATCH | SAME => Ok(true),
        code => bail!("the test device does not answer ({code:#x})"),
    }
}

/// A device that is open with VFIO, and its registers.
pub struct Opened {
    device: Device,
    registers: Map,
}

impl Opened {
    /// Lets it do DMA.
    pub fn new(device: Device) -> Result<Opened> {
        device.set_master()?;
        let registers = device.registers(REGISTERS)?;
        Ok(Opened { device, registers })
    }

    /// As it was opened.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Whether it reaches the page that may be mapped at `iova`; and never the page after it.
    pub fn reaches(&self, iova: u64, page: &Map) -> Result<bool> {
        page.write(0, 0);
        let reached = write(&self.registers, iova)?;
        let written = page.read(0) == WRITTEN;
        ensure!(reached == written, "memory and device differ");
        let beyond = write(&self.registers, iova + PAGE)?;
        ensure!(!beyond, "what is not mapped is reached");
        Ok(reached)
    }
}

#[derive(clap::Args)]
pub struct Options {
    /// PCI address; the kernel need not have the device
    address: String,
    /// Decimal, or hexadecimal after 0x
    #[arg(value_parser = number)]
    iova: u64,
}

/// Decimal, or hexadecimal after 0x.
pub fn number(text: &str) -> Result<u64, std::num::ParseIntError> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    }
}

pub fn run(o: &Options) -> Result<()> {
    let reached = Ghost::new(&o.address)?.write(o.iova)?;
    println!("{}", if reached { "ok" } else { "tx_fail" });
    Ok(())
}

/// A device whose registers are reached though no driver has it.
pub struct Ghost {
    ports: ConfigPorts,
    device: u16,
    registers: u64,
}

const VENDOR: u32 = 0x0005_1b36;
const COMMAND: u8 = 0x04;
const BAR0: u8 = 0x10;
const BAR_TYPE: u32 = 6;
const BAR_64_BIT: u32 = 4;
const MEMORY_AND_MASTER: u32 = 6;

impl Ghost {
    /// `address` as in 0000:01:00.0; the device must be there now.
    pub fn new(address: &str) -> Result<Ghost> {
        let bad = || format!("'{address}' is no PCI address");
        let (rest, function) = address.rsplit_once('.').with_context(bad)?;
        let mut parts = rest.rsplit(':');
        let device = u16::from_str_radix(parts.next().with_context(bad)?, 16)?;
        let bus = u16::from_str_radix(parts.next().with_context(bad)?, 16)?;
        let device = (bus << 8) | (device << 3) | function.parse::<u16>()?;
        let ports = ConfigPorts::new().context("iopl")?;
        if ports.read(device, 0) != VENDOR {
            bail!("{address} is no iommu-testdev");
        }
        let low = ports.read(device, BAR0);
        let high = match low & BAR_TYPE {
            BAR_64_BIT => ports.read(device, BAR0 + 4),
            _ => 0,
        };
        let registers = (u64::from(high) << 32) | u64::from(low & !0xf);
        Ok(Ghost {
            ports,
            device,
            registers,
        })
    }

    /// As [`write`], with what a reset or a driver has switched off switched on for it.
    pub fn write(&self, iova: u64) -> Result<bool> {
        self.ports.write(self.device, BAR0, self.registers as u32);
        if self.registers > u64::from(u32::MAX) {
            let high = (self.registers >> 32) as u32;
            self.ports.write(self.device, BAR0 + 4, high);
        }
        let command = self.ports.read(self.device, COMMAND) & 0xffff;
        self.ports
            .write(self.device, COMMAND, command | MEMORY_AND_MASTER);
        let mut memory = OpenOptions::new();
        let memory = memory.read(true).write(true).open("/dev/mem")?;
        let map = Map::file(&memory, self.registers, REGISTERS).context("mapping /dev/mem")?;
        let wrote = write(&map, iova);
        drop(map);
        self.ports.write(self.device, COMMAND, command);
        wrote
    }
}
