// SPDX-License-Identifier: GPL-2.0

//! The MSI capability of a function that stands for an IOMMU.
//!
//! Such a function has no driver, and the PCI core's own way to its interrupt leaves resources with
//! the device that keep drivers from being bound later. The message comes from [`crate::irq`]; here is
//! only where the function keeps it.

use super::{
    Function,
    OwnedFunction, //
};
use crate::bindings;
use kernel::{
    ffi::c_int,
    prelude::*, //
};

/// The message of a function that no driver uses.
///
/// Dropping it switches the message off, and the line on if it was.
///
/// # Invariants
///
/// `position` is that of the function's MSI capability.
pub struct Message {
    function: OwnedFunction,
    position: c_int,
    wide: bool,
    /// The interrupt line was on before.
    line: bool,
}

impl Message {
    /// Finds the capability, and switches message and interrupt line off.
    ///
    /// Context: any. Errors: `ENODEV` if there is no such capability, `EBUSY` if somebody uses it, `EIO`.
    pub fn of(function: Function<'_>) -> Result<Self> {
        // SAFETY: The device is valid by the type invariant of `Function`.
        let position = unsafe {
            // CAST: A constant below 256.
            bindings::pci_find_capability(function.as_raw(), bindings::PCI_CAP_ID_MSI as c_int)
        };
        if position == 0 {
            return Err(ENODEV);
        }
        // SAFETY: As above; the PCI core sets it for whoever asks it for an interrupt.
        if unsafe { bindings::pci_dev::msi_enabled_raw(function.as_raw()) } != 0 {
            return Err(EBUSY);
        }
        let mut this = Self {
            function: function.to_owned(),
            // INVARIANT: Just found.
            position: position.into(),
            wide: false,
            line: false,
        };
        let flags = this.read(bindings::PCI_MSI_FLAGS)?;
        this.wide = flags & bindings::PCI_MSI_FLAGS_64BIT as u16 != 0;
        this.enable(false);
        let mut command = 0;
        // SAFETY: As above; `command` is for two bytes.
        let read = unsafe {
            // CAST: A constant below 256.
            bindings::pci_read_config_word(
                function.as_raw(),
                bindings::PCI_COMMAND as c_int,
                &mut command,
            )
        };
        // CAST: A bit of a register of 16.
        this.line = read == 0 && command & bindings::PCI_COMMAND_INTX_DISABLE as u16 == 0;
        this.set_line(false);
        Ok(this)
    }

    /// Sets the message. Context: any; `enable(false)` comes before it.
    pub fn write(&self, address: u64, data: u32) {
        let data_at = if self.wide {
            // CAST: The register takes the address in two halves.
            self.write32(bindings::PCI_MSI_ADDRESS_HI, (address >> 32) as u32);
            bindings::PCI_MSI_DATA_64
        } else {
            bindings::PCI_MSI_DATA_32
        };
        // CAST: As above.
        self.write32(bindings::PCI_MSI_ADDRESS_LO, address as u32);
        // CAST: Messages of x86 have 16 bits.
        self.write16(data_at, data as u16);
    }

    /// Switches the message on or off. Context: any.
    pub fn enable(&self, on: bool) {
        // CAST: A bit of a register of 16.
        let bit = bindings::PCI_MSI_FLAGS_ENABLE as u16;
        let Ok(flags) = self.read(bindings::PCI_MSI_FLAGS) else {
            return;
        };
        // One message, whatever was there.
        let one = flags & !(bindings::PCI_MSI_FLAGS_QSIZE as u16) & !bit;
        self.write16(bindings::PCI_MSI_FLAGS, if on { one | bit } else { one });
    }

    fn set_line(&self, on: bool) {
        if self.line {
            // SAFETY: The device is held; nobody else uses its command register.
            unsafe { bindings::pci_intx(self.function.get().as_raw(), on.into()) };
        }
    }

    /// CAST: Offsets within a capability.
    fn at(&self, register: u32) -> c_int {
        self.position + register as c_int
    }

    fn read(&self, register: u32) -> Result<u16> {
        let mut value = 0;
        let function = self.function.get().as_raw();
        // SAFETY: The device is held, and `value` is for two bytes.
        match unsafe { bindings::pci_read_config_word(function, self.at(register), &mut value) } {
            0 => Ok(value),
            _ => Err(EIO),
        }
    }

    fn write16(&self, register: u32, value: u16) {
        let function = self.function.get().as_raw();
        // SAFETY: The device is held; a register of its MSI capability, by the type invariant.
        unsafe { bindings::pci_write_config_word(function, self.at(register), value) };
    }

    fn write32(&self, register: u32, value: u32) {
        let function = self.function.get().as_raw();
        // SAFETY: As above.
        unsafe { bindings::pci_write_config_dword(function, self.at(register), value) };
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        self.enable(false);
        self.set_line(true);
    }
}
