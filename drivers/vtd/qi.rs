// SPDX-License-Identifier: GPL-2.0

//! The invalidation queue's registers and wait command.
//!
//! Specification: Intel Virtualization Technology for Directed I/O, sections 6.5.2
//! (Queued Invalidation Interface) and 6.5.2.11 (its errors).

use crate::{
    descriptor::{
        Descriptor,
        StatusAddress, //
    },
    registers::Registers,
    regs::{
        self,
        fsts,
        iq, //
    },
};
use iommu::queue::{
    QueueError,
    QueueHw, //
};
use kernel::{
    sync::Arc,
    time::Delta, //
};

/// How long the unit may take for what is submitted at once. A device that answers
/// no invalidation of its own cache holds the queue up for a second at most.
pub(crate) const TIMEOUT: Delta = Delta::from_secs(2);

/// log2 of the ring's pages: 256 descriptors.
pub(crate) const ORDER: u32 = 0;

/// Register access of the queue.
pub(crate) struct Qi(Arc<Registers>);

impl Qi {
    pub(crate) fn new(registers: Arc<Registers>) -> Self {
        Self(registers)
    }
}

impl QueueHw for Qi {
    fn ring(&self, tail: u32) {
        self.0
            .mmio()
            .write64(regs::IQT, u64::from(tail) << iq::POSITION_SHIFT);
    }

    fn wait_command(&self, status_phys: u64, token: u32) -> [u64; 2] {
        match StatusAddress::new(status_phys) {
            Ok(status) => Descriptor::wait(status, token).words(),
            // The queue keeps status words aligned. A descriptor of type 0 is one that
            // the unit refuses: better than a store to somewhere.
            Err(_) => [0; 2],
        }
    }

    fn error(&self) -> Option<QueueError> {
        let status = self.0.mmio().read32(regs::FSTS);
        if status & fsts::IQE != 0 {
            Some(QueueError::BadCommand { index: self.head() })
        } else if status & fsts::ITE != 0 {
            Some(QueueError::DeviceTimeout)
        } else if status & fsts::ICE != 0 {
            Some(QueueError::Completion)
        } else {
            None
        }
    }

    fn clear_error(&self, error: QueueError) {
        let bit = match error {
            QueueError::BadCommand { .. } => fsts::IQE,
            QueueError::DeviceTimeout => fsts::ITE,
            QueueError::Completion => fsts::ICE,
        };
        self.0.mmio().write32(regs::FSTS, bit);
    }

    fn head(&self) -> u32 {
        let position = self.0.mmio().read64(regs::IQH) >> iq::POSITION_SHIFT;
        // CAST: bits 18:4 of the register, at most 15 bits.
        (position & 0x7fff) as u32
    }
}
