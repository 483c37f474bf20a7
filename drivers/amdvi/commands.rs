// SPDX-License-Identifier: GPL-2.0

//! The command buffer's registers and wait command (specification, section 2.4).

use crate::{
    command::Command,
    registers::Registers,
    regs::{
        self,
        status, //
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

/// How long the IOMMU may take for what is submitted at once.
pub(crate) const TIMEOUT: Delta = Delta::from_secs(2);

/// log2 of the ring's pages: 256 commands, the fewest there can be.
pub(crate) const ORDER: u32 = 0;
const ENTRIES: u32 = 256;

/// Register access of the queue.
pub(crate) struct Commands(Arc<Registers>);

impl Commands {
    pub(crate) fn new(registers: Arc<Registers>) -> Self {
        Self(registers)
    }
}

impl QueueHw for Commands {
    fn ring(&self, tail: u32) {
        self.0
            .mmio()
            .write64(regs::COMMAND_TAIL, regs::position(tail));
    }

    fn wait_command(&self, status_phys: u64, token: u32) -> [u64; 2] {
        Command::wait(status_phys, token.into()).words()
    }

    fn error(&self) -> Option<QueueError> {
        // After a command that is not a possible one, or that could not be read, none is fetched: the
        // head stays at it, and the run bit goes. No bit says that there was an error, so a unit that
        // is to stand still must not be asked.
        let stopped =
            self.0.is_running() && self.0.mmio().read32(regs::STATUS) & status::COMMANDS_RUN == 0;
        stopped.then(|| QueueError::BadCommand { index: self.head() })
    }

    fn clear_error(&self, _error: QueueError) {
        self.0.restart_commands();
    }

    fn head(&self) -> u32 {
        regs::index(self.0.mmio().read64(regs::COMMAND_HEAD), ENTRIES)
    }
}
