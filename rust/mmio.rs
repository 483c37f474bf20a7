// SPDX-License-Identifier: GPL-2.0

//! Registers of a unit that no `struct device` stands for.
//!
//! The kernel's own register types want a bound device. An IOMMU that only an
//! ACPI table describes has none, so its registers are taken by address.
//!
//! This tree runs on x86-64 only: 64-bit accesses are one bus cycle.
//!
//! C headers: `include/linux/ioport.h`, `include/linux/io.h`

use core::ptr::NonNull;

use kernel::{
    prelude::*,
    sync::atomic::{
        AtomicFlag,
        Relaxed, //
    },
    time::{
        delay::udelay,
        Delta,
        Instant,
        Monotonic, //
    }, //
};

use crate::bindings;

/// A register region, owned for as long as the value lives.
///
/// Nobody else who asks the kernel for the region gets it: a driver of the same
/// unit in the kernel image that is active makes [`Mmio::request`] fail.
///
/// Accesses are checked against the length and must be naturally aligned. A
/// violation is a bug of the driver: it is reported once with a kernel warning, a
/// read then gives all ones (what absent hardware gives) and a write is dropped.
///
/// All accesses may be made in any context.
///
/// # Invariants
///
/// `base` is what `ioremap()` returned for `len` bytes at `phys`, is mapped until
/// drop, and the region `phys..phys + len` is ours until then.
pub struct Mmio {
    base: NonNull<c_void>,
    phys: u64,
    len: usize,
}

// SAFETY: the mapping belongs to the kernel's address space, not to a thread, and
// both the mapping and the region may be given up by any thread.
unsafe impl Send for Mmio {}

// SAFETY: `&Mmio` allows only single register accesses, which the bus serialises.
unsafe impl Sync for Mmio {}

impl Mmio {
    /// Takes the region of `len` bytes at physical address `phys` and maps it.
    ///
    /// The region appears in `/proc/iomem` under `name`. May sleep.
    ///
    /// # Errors
    ///
    /// `EINVAL` for an empty region or one that wraps around, `EBUSY` if somebody
    /// has (part of) it, `ENOMEM` if it cannot be mapped.
    pub fn request(phys: u64, len: usize, name: &'static CStr) -> Result<Self> {
        let size = u64::try_from(len)?;
        if len == 0 || phys.checked_add(size).is_none() {
            return Err(EINVAL);
        }
        // SAFETY: any range may be asked for; `name` lives for ever, as the
        // resource tree keeps the pointer.
        let region = unsafe { bindings::request_mem_region(phys, size, name.as_char_ptr()) };
        if region.is_null() {
            return Err(EBUSY);
        }
        // SAFETY: the range is not empty and does not wrap; it was just given to us.
        let base = unsafe { bindings::ioremap(phys, len) };
        let Some(base) = NonNull::new(base) else {
            // SAFETY: taken above with the same range.
            unsafe { bindings::release_mem_region(phys, size) };
            return Err(ENOMEM);
        };
        // INVARIANT: both steps succeeded for this range.
        Ok(Self { base, phys, len })
    }

    /// Returns the length of the region in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether the region is empty, which it never is.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns whether `len` bytes at `offset` lie within the region.
    #[inline]
    pub fn covers(&self, offset: usize, len: usize) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.len)
    }

    /// Reads the 32-bit register at `offset`.
    #[inline]
    pub fn read32(&self, offset: usize) -> u32 {
        match self.register::<u32>(offset) {
            // SAFETY: `register()` has checked that the access is in the mapping.
            Some(at) => unsafe { bindings::readl(at) },
            None => u32::MAX,
        }
    }

    /// Reads the 64-bit register at `offset`.
    #[inline]
    pub fn read64(&self, offset: usize) -> u64 {
        match self.register::<u64>(offset) {
            // SAFETY: `register()` has checked that the access is in the mapping.
            Some(at) => unsafe { bindings::readq(at) },
            None => u64::MAX,
        }
    }

    /// Writes `value` to the 32-bit register at `offset`.
    ///
    /// Stores to memory made before are visible to the hardware first.
    #[inline]
    pub fn write32(&self, offset: usize, value: u32) {
        if let Some(at) = self.register::<u32>(offset) {
            // SAFETY: `register()` has checked that the access is in the mapping.
            unsafe { bindings::writel(value, at) };
        }
    }

    /// Writes `value` to the 64-bit register at `offset`.
    ///
    /// Stores to memory made before are visible to the hardware first.
    #[inline]
    pub fn write64(&self, offset: usize, value: u64) {
        if let Some(at) = self.register::<u64>(offset) {
            // SAFETY: `register()` has checked that the access is in the mapping.
            unsafe { bindings::writeq(value, at) };
        }
    }

    /// Reads the 32-bit register at `offset` until `cond` holds for its value, and
    /// returns that value.
    ///
    /// Atomic: busy-waits, one microsecond between two reads.
    ///
    /// # Errors
    ///
    /// `ETIMEDOUT` if `cond` still failed on a read made after `timeout`.
    pub fn poll32(&self, offset: usize, timeout: Delta, cond: impl Fn(u32) -> bool) -> Result<u32> {
        poll(timeout, || self.read32(offset), cond)
    }

    /// Returns the address of the register of type `T` at `offset`, if it is inside.
    #[inline]
    fn register<T>(&self, offset: usize) -> Option<*mut c_void> {
        let size = size_of::<T>();
        if self.covers(offset, size) && offset % size == 0 {
            Some(self.base.as_ptr().wrapping_byte_add(offset))
        } else {
            self.refuse(offset);
            None
        }
    }

    /// Reports an access outside of the region, the first time.
    #[cold]
    #[inline(never)]
    fn refuse(&self, offset: usize) {
        static REPORTED: AtomicFlag = AtomicFlag::new(false);

        if !REPORTED.xchg(true, Relaxed) {
            pr_err!(
                "register access at {:#x}+{:#x} is outside of {:#x} bytes or misaligned\n",
                self.phys,
                offset,
                self.len
            );
            kernel::warn_on!(true);
        }
    }
}

impl Drop for Mmio {
    fn drop(&mut self) {
        // SAFETY: mapped by `request()` and, as `self` is exclusive, not in use.
        unsafe { bindings::iounmap(self.base.as_ptr()) };
        // SAFETY: taken by `request()` with the same range. CAST: usize is 64 bits.
        unsafe { bindings::release_mem_region(self.phys, self.len as u64) };
    }
}

/// Calls `read` until `cond` holds for what it returned.
fn poll<T: Copy>(timeout: Delta, read: impl Fn() -> T, cond: impl Fn(T) -> bool) -> Result<T> {
    const PAUSE: Delta = Delta::from_micros(1);

    let start = Instant::<Monotonic>::now();
    loop {
        // Looked at before the read: a CPU that was taken away in between (by an
        // interrupt or a hypervisor) must not turn a success into a timeout.
        let expired = start.elapsed() > timeout;
        let value = read();
        if cond(value) {
            return Ok(value);
        }
        if expired {
            return Err(ETIMEDOUT);
        }
        udelay(PAUSE);
    }
}
