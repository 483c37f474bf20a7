// SPDX-License-Identifier: GPL-2.0

//! What of a function's configuration space decides its group. Pure.

/// Kinds of PCI Express functions, of the PCI Express Capabilities Register (PCI Express Base
/// Specification, 7.5.3.2).
mod kind {
    pub const ENDPOINT: u8 = 0;
    pub const LEGACY_ENDPOINT: u8 = 1;
    pub const ROOT_PORT: u8 = 4;
    pub const UPSTREAM: u8 = 5;
    pub const DOWNSTREAM: u8 = 6;
    pub const TO_PCI_BRIDGE: u8 = 7;
    pub const FROM_PCI_BRIDGE: u8 = 8;
    pub const INTEGRATED_ENDPOINT: u8 = 9;
    pub const EVENT_COLLECTOR: u8 = 10;
}

/// The controls of ACS without which the kernel takes functions for not isolated (`REQ_ACS_FLAGS` in
/// drivers/iommu/iommu.c), with their bits in the capability and its control register.
const CONTROLS: [(u16, &str); 4] = [
    (1 << 0, "source validation"),
    (1 << 2, "request redirect"),
    (1 << 3, "completion redirect"),
    (1 << 4, "upstream forwarding"),
];

/// What was found in a configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The layout: 0 of a device, 1 of a bridge.
    pub layout: u8,
    /// Whether the device says that it has several functions.
    pub multifunction: bool,
    express: Express,
    acs: Acs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Express {
    /// Conventional PCI.
    No,
    /// Of this kind.
    Kind(u8),
    /// Who reads may not see it.
    Unreadable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Acs {
    None,
    Capability { offered: u16, on: u16 },
    Unreadable,
}

/// What ACS says of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Its peers cannot reach each other past the IOMMU.
    Isolated,
    /// They can, for this reason.
    Open(String),
    /// Only root can read that.
    Unknown,
}

/// What a bridge does with the requester id of what is behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bridge {
    /// It passes them on.
    Port,
    /// It replaces them by its own; what its kind is called, with the article.
    Replaces(&'static str),
    /// Only root can read that.
    Unknown,
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_le_bytes(bytes.try_into().ok()?))
}

fn express(bytes: &[u8]) -> Express {
    let has_list = word(bytes, 6).is_some_and(|status| status & (1 << 4) != 0);
    if !has_list {
        return Express::No;
    }
    let mut at = usize::from(bytes.get(0x34).copied().unwrap_or(0) & !3);
    // A list has at most as many members as there is room for; a damaged one may be a circle.
    for _ in 0..48 {
        if at < 0x40 {
            return Express::No;
        }
        let (Some(id), Some(flags)) = (word(bytes, at), word(bytes, at + 2)) else {
            return Express::Unreadable;
        };
        if id & 0xff == 0x10 {
            return Express::Kind(((flags >> 4) & 0xf) as u8);
        }
        at = usize::from((id >> 8) & !3);
    }
    Express::No
}

fn acs(bytes: &[u8]) -> Acs {
    let mut at = 0x100;
    for _ in 0..960 {
        let (Some(id), Some(next)) = (word(bytes, at), word(bytes, at + 2)) else {
            // A function without extended space has 256 bytes, and root reads all of these.
            let all = bytes.len() == 256;
            return if all { Acs::None } else { Acs::Unreadable };
        };
        if id == 0x000d {
            return match (word(bytes, at + 4), word(bytes, at + 6)) {
                (Some(offered), Some(on)) => Acs::Capability { offered, on },
                _ => Acs::Unreadable,
            };
        }
        at = usize::from((next >> 4) & !3);
        if at < 0x100 {
            return Acs::None;
        }
    }
    Acs::None
}

impl Config {
    /// Reads the file `config` of a function. It may be cut off: who is not root sees 64 bytes. `None`
    /// without a header, and for a function that does not answer: all of its bits are ones.
    pub fn parse(bytes: &[u8]) -> Option<Config> {
        let header = *bytes.get(0x0e)?;
        // The ids alone decide nothing: those of virtual functions are ones too.
        if bytes.get(..0x40)?.iter().all(|byte| *byte == 0xff) {
            return None;
        }
        Some(Config {
            layout: header & 0x7f,
            multifunction: header & 0x80 != 0,
            express: express(bytes),
            acs: acs(bytes),
        })
    }

    fn controls(&self) -> Isolation {
        match self.acs {
            Acs::Unreadable => Isolation::Unknown,
            Acs::None => Isolation::Open("no ACS capability".into()),
            Acs::Capability { offered, on } => {
                // What is not offered is hard-wired to what isolates (`pci_acs_flags_enabled`).
                let off = |(bit, _): &(u16, _)| offered & bit != 0 && on & bit == 0;
                let names: Vec<&str> = CONTROLS.into_iter().filter(off).map(|c| c.1).collect();
                if names.is_empty() {
                    return Isolation::Isolated;
                }
                Isolation::Open(format!("ACS is off: {}", names.join(", ")))
            }
        }
    }

    /// What `pci_acs_enabled` in drivers/pci/pci.c makes of it, but for its quirks of single chipsets.
    pub fn isolation(&self) -> Isolation {
        match self.express {
            Express::Unreadable => Isolation::Unknown,
            Express::No => Isolation::Open("conventional PCI has no ACS".into()),
            Express::Kind(kind::TO_PCI_BRIDGE | kind::FROM_PCI_BRIDGE | kind::EVENT_COLLECTOR) => {
                Isolation::Open("this kind of function has no ACS".into())
            }
            Express::Kind(kind::ROOT_PORT | kind::DOWNSTREAM) => self.controls(),
            Express::Kind(
                kind::ENDPOINT | kind::LEGACY_ENDPOINT | kind::UPSTREAM | kind::INTEGRATED_ENDPOINT,
            ) if self.multifunction => self.controls(),
            Express::Kind(_) => Isolation::Isolated,
        }
    }

    /// What it does as a bridge (`pci_for_each_dma_alias` in drivers/pci/search.c).
    pub fn bridge(&self) -> Bridge {
        match self.express {
            Express::Unreadable => Bridge::Unknown,
            Express::No => Bridge::Replaces("a conventional PCI bridge"),
            Express::Kind(kind::TO_PCI_BRIDGE) => Bridge::Replaces("a bridge to conventional PCI"),
            Express::Kind(kind::FROM_PCI_BRIDGE) => {
                Bridge::Replaces("a bridge from conventional PCI")
            }
            Express::Kind(_) => Bridge::Port,
        }
    }

    /// What a port is called, with its article; "a bridge" where that is not known.
    pub fn name(&self) -> &'static str {
        match self.express {
            Express::Kind(kind::ROOT_PORT) => "a root port",
            Express::Kind(kind::UPSTREAM) => "an upstream port",
            Express::Kind(kind::DOWNSTREAM) => "a downstream port",
            _ => "a bridge",
        }
    }
}
