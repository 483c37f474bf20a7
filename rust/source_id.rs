// SPDX-License-Identifier: GPL-2.0

//! PCI requester ids, and the set of ids under which one device's DMA can arrive.
//!
//! An IOMMU sees the requester id in the transaction, not the device that started it. A bridge
//! between PCI Express and conventional PCI may replace the id of a device below it by its own, so
//! a device needs a table entry for each id in its [`AliasSet`].
//!
//! This file is pure: integers in, values out. It is also built and tested on the host.

use core::fmt;

/// Number of `devfn` values on one bus.
const DEVFNS: usize = 256;

/// Words of a bitmap with one bit for each `devfn` of a bus.
const DEVFN_WORDS: usize = DEVFNS / 64;

/// A bitmap over the 256 `devfn` values of one bus; bit `n` of word `w` is `devfn` `64 * w + n`.
pub type DevfnMask = [u64; DEVFN_WORDS];

/// Largest number of ids that bridges may add to an [`AliasSet`].
///
/// Only conventional bridges and bridges to conventional PCI add one. Eight such bridges in a row
/// are more than any known machine has; a longer chain is an error, never a shorter set.
pub const MAX_BRIDGE_ALIASES: usize = 8;

/// Segment, bus, device and function of a PCI requester.
///
/// Printed as `0000:00:03.0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId {
    segment: u16,
    requester_id: u16,
}

impl SourceId {
    /// From a segment, a bus number and a `devfn` (device in bits 7:3, function in bits 2:0).
    pub const fn new(segment: u16, bus: u8, devfn: u8) -> Self {
        // CAST: u8 to u16 is lossless; `u16::from` is not const.
        Self::from_requester_id(segment, ((bus as u16) << 8) | devfn as u16)
    }

    /// From the 16 bits that stand in a transaction: bus in bits 15:8, `devfn` in bits 7:0.
    pub const fn from_requester_id(segment: u16, requester_id: u16) -> Self {
        Self {
            segment,
            requester_id,
        }
    }

    /// The PCI segment ("domain" in Linux).
    pub const fn segment(self) -> u16 {
        self.segment
    }

    /// The bus number.
    pub const fn bus(self) -> u8 {
        self.requester_id.to_be_bytes()[0]
    }

    /// Device in bits 7:3 and function in bits 2:0.
    pub const fn devfn(self) -> u8 {
        self.requester_id.to_be_bytes()[1]
    }

    /// The device number, 0 to 31.
    pub const fn device(self) -> u8 {
        self.devfn() >> 3
    }

    /// The function number, 0 to 7.
    pub const fn function(self) -> u8 {
        self.devfn() & 7
    }

    /// The 16 bits that stand in a transaction: bus in bits 15:8, `devfn` in bits 7:0.
    pub const fn requester_id(self) -> u16 {
        self.requester_id
    }
}

impl fmt::Display for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:04x}:{:02x}:{:02x}.{}",
            self.segment(),
            self.bus(),
            self.device(),
            self.function()
        )
    }
}

/// What a bridge above a device is, as far as requester ids are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BridgeKind {
    /// A PCI Express root port or switch port: it passes ids on.
    ExpressPort,
    /// A PCI Express to PCI/PCI-X bridge: it may use its secondary bus number with `devfn` 0
    /// (PCI Express to PCI/PCI-X Bridge Specification 1.0, section 2.3).
    ExpressToPci,
    /// A PCI/PCI-X to PCI Express bridge: it uses its own id.
    PciToExpress,
    /// A bridge without a PCI Express capability: it uses its own id.
    Conventional,
    /// Any other PCI Express function in a bridge's place: it passes ids on.
    OtherExpress,
}

impl BridgeKind {
    /// From the Device/Port Type of the PCI Express capabilities register (bits 7:4), or `None`
    /// for a bridge without that capability.
    pub const fn from_port_type(port_type: Option<u8>) -> Self {
        match port_type {
            None => Self::Conventional,
            Some(0x4..=0x6) => Self::ExpressPort,
            Some(0x7) => Self::ExpressToPci,
            Some(0x8) => Self::PciToExpress,
            Some(_) => Self::OtherExpress,
        }
    }
}

/// One bridge on the way from a device up to its root bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// The bridge's own id.
    pub id: SourceId,
    /// Number of the bus right below it.
    pub secondary: u8,
    /// What it is.
    pub kind: BridgeKind,
    /// `PCI_DEV_FLAGS_PCI_BRIDGE_NO_ALIAS`: an [`BridgeKind::ExpressToPci`] bridge that is known
    /// to pass ids on.
    pub no_alias: bool,
    /// `PCI_DEV_FLAG_PCIE_BRIDGE_ALIAS`: a [`BridgeKind::Conventional`] bridge that is a PCI
    /// Express to PCI bridge without saying so.
    pub express_alias: bool,
    /// `PCI_DEV_FLAGS_BRIDGE_XLATE_ROOT`: the IOMMU sits at this bridge, so nothing above it
    /// changes what the IOMMU sees.
    pub translation_root: bool,
}

impl Bridge {
    /// A bridge without quirks.
    pub const fn new(id: SourceId, secondary: u8, kind: BridgeKind) -> Self {
        Self {
            id,
            secondary,
            kind,
            no_alias: false,
            express_alias: false,
            translation_root: false,
        }
    }

    /// The id this bridge puts in the place of those below it, if it may do so.
    pub fn alias(&self) -> Option<SourceId> {
        let secondary = SourceId::new(self.id.segment(), self.secondary, 0);
        match self.kind {
            BridgeKind::ExpressPort | BridgeKind::OtherExpress => None,
            BridgeKind::ExpressToPci if self.no_alias => None,
            BridgeKind::ExpressToPci => Some(secondary),
            BridgeKind::Conventional if self.express_alias => Some(secondary),
            BridgeKind::Conventional | BridgeKind::PciToExpress => Some(self.id),
        }
    }
}

/// More than [`MAX_BRIDGE_ALIASES`] bridges above this device change its requester id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyAliases(pub SourceId);

impl fmt::Display for TooManyAliases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: more than {MAX_BRIDGE_ALIASES} bridges above it replace its requester id",
            self.0
        )
    }
}

/// All ids under which the DMA of one device can arrive: its own, those of its quirks on the same
/// bus, and those of bridges above it.
///
/// # Invariants
///
/// No id occurs twice, and `bridge_count <= MAX_BRIDGE_ALIASES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AliasSet {
    own: SourceId,
    /// Other ids on the bus of `own`; the bit of `own` is clear.
    on_bus: DevfnMask,
    bridges: [u16; MAX_BRIDGE_ALIASES],
    bridge_count: usize,
}

impl AliasSet {
    /// The set that holds only the device's own id.
    pub const fn single(own: SourceId) -> Self {
        // INVARIANT: one id, no bridges.
        Self {
            own,
            on_bus: [0; DEVFN_WORDS],
            bridges: [0; MAX_BRIDGE_ALIASES],
            bridge_count: 0,
        }
    }

    /// Walks from a device to its root bus and collects the ids its DMA can carry.
    ///
    /// `device` is the function that really does the DMA (`pci_real_dma_dev()`), `alias_mask` its
    /// `dma_alias_mask` (all zero when it has none), and `bridges` the bridges above it, the
    /// nearest first. Virtual buses without a bridge are left out by the caller.
    ///
    /// The result is the set `pci_for_each_dma_alias()` visits.
    ///
    /// # Errors
    ///
    /// [`TooManyAliases`]: the set would be incomplete, so the device cannot be handled.
    pub fn walk(
        device: SourceId,
        alias_mask: &DevfnMask,
        bridges: impl IntoIterator<Item = Bridge>,
    ) -> Result<Self, TooManyAliases> {
        let mut set = Self::single(device);
        for devfn in 0..=u8::MAX {
            if mask_has(alias_mask, devfn) {
                set.insert(SourceId::new(device.segment(), device.bus(), devfn))?;
            }
        }
        for bridge in bridges {
            if bridge.translation_root {
                break;
            }
            if let Some(alias) = bridge.alias() {
                set.insert(alias)?;
            }
        }
        Ok(set)
    }

    /// The same set with one more id: firmware may know of one.
    ///
    /// # Errors
    ///
    /// [`TooManyAliases`], as for [`walk`](Self::walk).
    pub fn with(mut self, id: SourceId) -> Result<Self, TooManyAliases> {
        self.insert(id)?;
        Ok(self)
    }

    fn insert(&mut self, id: SourceId) -> Result<(), TooManyAliases> {
        if self.contains(id) {
            return Ok(());
        }
        // INVARIANT: `id` is new in either store, and the array is not written past its end.
        if id.bus() == self.own.bus() {
            let devfn = usize::from(id.devfn());
            if let Some(word) = self.on_bus.get_mut(devfn / 64) {
                *word |= 1 << (devfn % 64);
            }
            return Ok(());
        }
        let slot = self
            .bridges
            .get_mut(self.bridge_count)
            .ok_or(TooManyAliases(self.own))?;
        *slot = id.requester_id();
        self.bridge_count += 1;
        Ok(())
    }

    /// The device's own id.
    pub const fn own(&self) -> SourceId {
        self.own
    }

    /// Whether DMA of the device can carry this id.
    pub fn contains(&self, id: SourceId) -> bool {
        self.iter().any(|known| known == id)
    }

    /// Number of ids, at least 1.
    pub fn count(&self) -> usize {
        self.iter().count()
    }

    /// All ids: the device's own first, then those on its bus by `devfn`, then those of bridges
    /// from the device upwards.
    pub fn iter(&self) -> impl Iterator<Item = SourceId> + '_ {
        let own = self.own;
        let on_bus = (0..=u8::MAX)
            .filter(|devfn| mask_has(&self.on_bus, *devfn))
            .map(move |devfn| SourceId::new(own.segment(), own.bus(), devfn));
        let bridges = self
            .bridges
            .iter()
            .take(self.bridge_count)
            .map(move |id| SourceId::from_requester_id(own.segment(), *id));
        core::iter::once(own).chain(on_bus).chain(bridges)
    }
}

/// Whether a bitmap has the bit of `devfn`.
pub fn mask_has(mask: &DevfnMask, devfn: u8) -> bool {
    let devfn = usize::from(devfn);
    mask.get(devfn / 64)
        .is_some_and(|word| (word >> (devfn % 64)) & 1 != 0)
}
