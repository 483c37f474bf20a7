// SPDX-License-Identifier: GPL-2.0

//! PCI functions, as an IOMMU driver looks at them: ids, bridges, topology.
//!
//! A [`Function`] is a borrowed `struct pci_dev`. Whoever can borrow one may also walk up from it:
//! a function holds its bus, a bus holds the bridge that it is behind, and so on up to the root
//! bus, also after the function was removed. Nothing here walks *down* (`pci_dev::subordinate`),
//! which hot-unplug would pull away.
//!
//! C header: `include/linux/pci.h`

use crate::{
    bindings,
    raw,
    source_id::{
        SourceId,
        TooManyAliases, //
    }, //
};
use core::ops::Deref;
use kernel::{
    container_of,
    device::Device,
    ffi::{
        c_int,
        c_void, //
    },
    fmt::{
        self,
        Display, //
    },
    prelude::*,
    sync::aref::ARef, //
};

pub mod acs;
mod alias;
pub mod hold;
pub mod managed;
pub(crate) mod merged;
pub mod msi;
pub mod notifier;
mod path;
pub mod ports;
mod rescan;

pub use self::path::{
    PathToRoot,
    Step, //
};

/// A PCI function that exists for at least `'a`.
///
/// # Invariants
///
/// The device is embedded in a `struct pci_dev`.
#[derive(Clone, Copy)]
pub struct Function<'a>(&'a Device);

impl<'a> Function<'a> {
    /// The PCI function that a device is, or `None` if it is on another bus.
    pub fn from_device(dev: &'a Device) -> Option<Self> {
        // SAFETY: The reference makes the pointer valid; `dev->bus` does not change.
        let is_pci = unsafe { bindings::dev_is_pci(raw::as_raw(dev)) };
        // INVARIANT: Devices on the PCI bus are all embedded in a `pci_dev`.
        is_pci.then_some(Self(dev))
    }

    /// # Safety
    ///
    /// `pdev` is a valid function, to which a reference is held during `'a`.
    unsafe fn from_raw(pdev: *mut bindings::pci_dev) -> Self {
        // SAFETY: `pdev` is valid; only the place is formed.
        let dev = unsafe { &raw mut (*pdev).dev };
        // SAFETY: It is embedded in `pdev`, which is referenced during `'a`, by the contract.
        // INVARIANT: For the same reason.
        Self(unsafe { raw::device(dev) })
    }

    fn as_raw(self) -> *mut bindings::pci_dev {
        // SAFETY: By the type invariant.
        unsafe { container_of!(raw::as_raw(self.0), bindings::pci_dev, dev) }
    }

    /// The device, to put messages or references on.
    pub fn as_device(self) -> &'a Device {
        self.0
    }

    /// Keeps the function in memory (not on its bus, nor bound).
    pub fn to_owned(self) -> OwnedFunction {
        // INVARIANT: That of `self`.
        OwnedFunction(self.0.into())
    }

    /// The bus that the function is on.
    fn bus(self) -> *mut bindings::pci_bus {
        // SAFETY: Valid by the type invariant; set before the device is added, never changed, and
        // the function holds a reference to it.
        unsafe { (*self.as_raw()).bus }
    }

    /// Segment, bus, device and function.
    ///
    /// Of what Linux calls the function; its DMA can carry other ids, see
    /// [`aliases`](Self::aliases). Segments that software made up and that do not fit into the 16
    /// bits of firmware tables (those below an Intel VMD) are given as `0xffff`.
    pub fn source_id(self) -> SourceId {
        // SAFETY: The bus is valid, see `bus`; its number is set when it is made.
        let bus = unsafe { (*self.bus()).number };
        // SAFETY: Valid by the type invariant; written before the device is added only.
        let devfn = unsafe { (*self.as_raw()).devfn };
        // CAST: A devfn has eight bits.
        SourceId::new(self.segment(), bus, devfn as u8)
    }

    /// The PCI segment ("domain" in Linux), limited as in [`source_id`](Self::source_id).
    pub fn segment(self) -> u16 {
        // SAFETY: The bus is valid, see `bus`.
        let domain = unsafe { bindings::rust_iommu_pci_domain_nr(self.bus()) };
        u16::try_from(domain).unwrap_or(u16::MAX)
    }

    /// The class code: base class in bits 23:16, sub-class, programming interface.
    pub fn class(self) -> u32 {
        // SAFETY: Valid by the type invariant; written before the device is added only.
        unsafe { (*self.as_raw()).class }
    }

    /// Whether a driver is bound, or being bound.
    ///
    /// A snapshot, unless the caller keeps drivers from coming and going: the core's probe and
    /// release callbacks alone do not.
    pub fn has_driver(self) -> bool {
        !raw::driver(self.0).is_null()
    }

    /// Whether firmware says that the function is outside of the machine's case (Thunderbolt), so
    /// that it may be hostile.
    pub fn is_untrusted(self) -> bool {
        // SAFETY: Valid by the type invariant. The bit is set before the device is added only.
        unsafe { bindings::pci_dev::untrusted_raw(self.as_raw()) != 0 }
    }

    /// The function that really does this one's DMA: an Intel VMD for those in the segment behind
    /// it, else the function itself. Firmware tables know only that one.
    pub fn dma_function(self) -> Function<'a> {
        // SAFETY: Valid by the type invariant.
        let real = unsafe { bindings::rust_iommu_pci_real_dma_dev(self.as_raw()) };
        // SAFETY: Not null; it is `self`, or the VMD, whose driver removes everything behind it
        // before it lets go of it.
        unsafe { Self::from_raw(real) }
    }

    /// The physical function of a virtual one (SR-IOV), else the function itself. Firmware tables
    /// do not name virtual functions: they belong where their physical function does.
    pub fn physical_function(self) -> Function<'a> {
        // SAFETY: Valid by the type invariant.
        let physical = unsafe { bindings::rust_iommu_pci_physfn(self.as_raw()) };
        // SAFETY: Not null; it is `self`, or the physical function, to which the virtual one holds
        // a reference.
        unsafe { Self::from_raw(physical) }
    }

    /// The bridge that the function is behind, or `None` on a root bus.
    ///
    /// Buses without a bridge (those that SR-IOV adds) are passed over.
    pub fn upstream(self) -> Option<Function<'a>> {
        self.upstream_bus().map(|(bridge, _)| bridge)
    }

    /// The bridge that the function is behind, and the number of the bus right below it.
    fn upstream_bus(self) -> Option<(Function<'a>, u8)> {
        let mut bus = self.bus();
        loop {
            // SAFETY: Buses up to the root bus are held by the function, see the module's text.
            // This and the next two are set when a bus is made.
            let bridge = unsafe { (*bus).self_ };
            // SAFETY: As above.
            let parent = unsafe { (*bus).parent };
            // SAFETY: As above.
            let number = unsafe { (*bus).number };
            if parent.is_null() {
                return None;
            }
            if !bridge.is_null() {
                // SAFETY: The bus holds the bridge, and the function holds the bus, during `'a`.
                return Some((unsafe { Self::from_raw(bridge) }, number));
            }
            bus = parent;
        }
    }

    /// A register of the configuration space; `offset` is a multiple of 4. Errors: `EIO`.
    ///
    /// Context: any.
    pub fn config32(self, offset: u16) -> Result<u32> {
        let mut value = 0;
        // SAFETY: The device is valid by the type invariant, and `value` is for four bytes.
        match unsafe { bindings::pci_read_config_dword(self.as_raw(), offset.into(), &mut value) } {
            0 => Ok(value),
            _ => Err(EIO),
        }
    }

    /// Whether it has Address Translation Services, whoever uses them.
    pub(crate) fn supports_ats(self) -> bool {
        // SAFETY: Valid by the type invariant; the capability is looked for before the device is added.
        unsafe { bindings::rust_iommu_pci_ats_supported(self.as_raw()) }
    }

    /// Whether the function has this quirk: one of `PCI_DEV_FLAGS_*`.
    fn has_quirk(self, flag: bindings::pci_dev_flags) -> bool {
        // SAFETY: Valid by the type invariant; quirks run before the device is added.
        let flags = unsafe { (*self.as_raw()).dev_flags };
        u32::from(flags) & flag != 0
    }

    /// The Device/Port Type of PCI Express, or `None` for conventional PCI.
    fn port_type(self) -> Option<u8> {
        // SAFETY: Valid by the type invariant; written before the device is added only.
        let cap = unsafe { (*self.as_raw()).pcie_cap };
        // SAFETY: As above.
        let flags = unsafe { (*self.as_raw()).pcie_flags_reg };
        // CAST: Four bits.
        (cap != 0).then_some(((u32::from(flags) & bindings::PCI_EXP_FLAGS_TYPE) >> 4) as u8)
    }
}

/// `0000:00:03.0`
impl Display for Function<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(&self.source_id(), f)
    }
}

// The kernel's messages have a `Display` of their own, which pure files do not know.

impl Display for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        core::fmt::Display::fmt(self, f)
    }
}

impl Display for TooManyAliases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        core::fmt::Display::fmt(self, f)
    }
}

/// A counted reference to a PCI function.
///
/// # Invariants
///
/// The device is embedded in a `struct pci_dev`.
pub struct OwnedFunction(ARef<Device>);

impl OwnedFunction {
    /// Borrows the function.
    pub fn get(&self) -> Function<'_> {
        // INVARIANT: That of `self`.
        Function(self.0.deref())
    }
}

/// The function with this name, if it is there. Context: may sleep.
pub fn find(id: SourceId) -> Option<OwnedFunction> {
    let mut found = None;
    // The visitor never stops the walk.
    let _ = for_each_function(|function| {
        if function.source_id() == id {
            found = Some(function.to_owned());
        }
        Ok(())
    });
    found
}

struct Visit<F> {
    visitor: F,
    result: Result,
}

/// Calls `visitor` for every PCI function there is, until it returns an error, which is passed on.
///
/// Functions that come or go meanwhile may be missed. The visitor runs without locks, and keeps
/// the function from being freed only.
///
/// Context: may sleep.
pub fn for_each_function<F: FnMut(Function<'_>) -> Result>(visitor: F) -> Result {
    let mut visit = Visit {
        visitor,
        result: Ok(()),
    };
    // SAFETY: The bus is registered and static; `visit` is what `visit_callback` of the same type
    // expects, and outlives the call.
    unsafe {
        bindings::bus_for_each_dev(
            &raw const bindings::pci_bus_type,
            core::ptr::null_mut(),
            (&raw mut visit).cast(),
            Some(visit_callback::<F>),
        )
    };
    visit.result
}

/// # Safety
///
/// `dev` is a PCI device with a reference held over the call; `data` is a `Visit<F>` that nobody
/// else uses.
unsafe extern "C" fn visit_callback<F: FnMut(Function<'_>) -> Result>(
    dev: *mut bindings::device,
    data: *mut c_void,
) -> c_int {
    // SAFETY: By the contract.
    let visit = unsafe { &mut *data.cast::<Visit<F>>() };
    // SAFETY: By the contract.
    let Some(function) = Function::from_device(unsafe { raw::device(dev) }) else {
        return 0;
    };
    visit.result = (visit.visitor)(function);
    visit.result.is_err().into()
}
