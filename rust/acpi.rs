// SPDX-License-Identifier: GPL-2.0

//! ACPI tables, as bytes.
//!
//! C header: `include/acpi/acpixf.h`

pub mod structures;

use core::{
    ptr::{
        null_mut,
        NonNull, //
    },
    slice, //
};

use kernel::prelude::*;

use crate::bindings;

/// A reference to one of the firmware's tables.
///
/// The bytes are the firmware's: lengths and offsets in them are not to be trusted.
///
/// # Invariants
///
/// `header` points to a table that stays mapped, and that nobody writes, until
/// `acpi_put_table()`; `len` bytes of it are mapped.
pub struct Table {
    header: NonNull<bindings::acpi_table_header>,
    len: usize,
}

// SAFETY: The mapping is the whole system's and is only read; any thread may give it back.
unsafe impl Send for Table {}
// SAFETY: As above: shared references only read.
unsafe impl Sync for Table {}

impl Table {
    /// Looks for the first table with this signature. May sleep.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the firmware has no such table, `EINVAL` if it is shorter than
    /// its own header.
    pub fn get(signature: &[u8; 4]) -> Result<Self> {
        /// `AE_OK`, a cast expression in C.
        const AE_OK: bindings::acpi_status = 0;

        let mut table = null_mut();
        let name = signature.as_ptr().cast_mut();
        // SAFETY: ACPICA reads the four bytes of the name (never writes: the type
        // merely lacks a const) and writes one pointer to `table`.
        let status = unsafe { bindings::acpi_get_table(name.cast(), 1, &mut table) };
        let header = NonNull::new(table)
            .filter(|_| status == AE_OK)
            .ok_or(ENODEV)?;
        // SAFETY: ACPICA mapped the table, which starts with the header, for us.
        let len = unsafe { (*header.as_ptr()).length };
        // INVARIANT: ACPICA maps as much as the header says, and holds the mapping
        // until the reference is given back. CAST: u32 to usize, lossless.
        let table = Self {
            header,
            len: len as usize,
        };
        if table.len < size_of::<bindings::acpi_table_header>() {
            return Err(EINVAL);
        }
        Ok(table)
    }

    /// Returns the whole table, with the header that all ACPI tables begin with.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: mapped and not written to while `self` lives (type invariant).
        unsafe { slice::from_raw_parts(self.header.as_ptr().cast(), self.len) }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // SAFETY: `get()` took the reference; the slices of `bytes()` are gone.
        unsafe { bindings::acpi_put_table(self.header.as_ptr()) };
    }
}
