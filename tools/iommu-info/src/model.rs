// SPDX-License-Identifier: GPL-2.0

//! What was read of the machine: plain data.

use crate::address::Address;
use crate::config::Config;
use crate::grouping::Merged;
use crate::window::{Range, Reserved};
use serde::{Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};

/// All that was read.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Machine {
    /// The IOMMUs that a driver has registered.
    pub units: Vec<Unit>,
    /// The IOMMU groups, by number.
    #[serde(serialize_with = "list_of_groups")]
    pub groups: BTreeMap<u32, Group>,
    /// The PCI functions.
    #[serde(serialize_with = "list_of_devices")]
    pub devices: BTreeMap<Address, Device>,
    /// What is true for the whole machine.
    pub platform: Platform,
    /// Whether there may be processes whose open files were not seen.
    pub hidden_processes: bool,
    /// What could not be read, or is not there with these drivers; a sentence each.
    pub missing: BTreeSet<String>,
}

fn list_of_devices<S: Serializer>(
    map: &BTreeMap<Address, Device>,
    to: S,
) -> Result<S::Ok, S::Error> {
    to.collect_seq(map.values())
}

/// A group with its number.
#[derive(Serialize)]
struct Numbered<'a> {
    number: u32,
    #[serde(flatten)]
    group: &'a Group,
}

fn list_of_groups<S: Serializer>(map: &BTreeMap<u32, Group>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(map.iter().map(|(number, group)| Numbered {
        number: *number,
        group,
    }))
}

/// One remapping unit.
#[derive(Clone, Debug, Serialize)]
pub struct Unit {
    /// Its name in `/sys/class/iommu`.
    pub name: String,
    /// `rust_vtd` and the like, `intel-iommu` or `amd-iommu`; for others the driver of the device that the
    /// unit is, such as `virtio_iommu`, or `unknown`.
    pub driver: String,
    /// Whether that is a driver of this project.
    pub ours: bool,
    /// Bits of the IOVAs that it translates, where that is known.
    pub bits: Option<u8>,
    /// Whether the kernel's own driver may use first-stage tables, of another width that it tells nobody.
    pub first_stage: bool,
    /// The devices behind it, by name.
    pub devices: Vec<String>,
}

/// One IOMMU group.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Group {
    /// The type of its default domain: `DMA`, `DMA-FQ`, `identity` or `blocked`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// What its devices cannot use as IOVA.
    pub reserved: Vec<Reserved>,
    /// Its PCI functions.
    pub devices: BTreeSet<Address>,
    /// Its other devices.
    pub others: Vec<Other>,
    /// The IOVAs that a user of VFIO can map; absent where the unit's width is not known.
    pub window: Option<Vec<Range>>,
    /// Bits of the unit's IOVAs, where our driver does not say what each device's are.
    pub bits: Option<u8>,
    /// What our driver says of who has it.
    pub claim: Option<String>,
    /// Processes that have it, or a device of it, open.
    pub holders: BTreeSet<Holder>,
    /// Who decides about its DMA.
    pub owner: Owner,
}

/// A device of a group that is not on PCI.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Other {
    /// Its name.
    pub name: String,
    /// The driver that is bound.
    pub driver: Option<String>,
}

/// Who decides about a group's DMA.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "by")]
pub enum Owner {
    /// Nobody.
    #[default]
    Nobody,
    /// Drivers that use the DMA API, by name.
    Kernel(BTreeSet<String>),
    /// Processes, through VFIO.
    User(BTreeSet<Holder>),
    /// Somebody who claimed it past the DMA API, as our driver says.
    Claimed(String),
}

/// A process that has a file of VFIO open.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Holder {
    /// The process.
    pub pid: u32,
    /// Its name (`/proc/PID/comm`).
    pub name: String,
    /// What it has open.
    pub file: String,
}

/// One PCI function.
#[derive(Clone, Debug, Serialize)]
pub struct Device {
    /// Its address.
    pub address: Address,
    /// The bridges above it, from the root.
    pub path: Vec<Address>,
    /// The class code: base class, subclass and interface in 24 bits.
    pub class: u32,
    /// The driver that is bound.
    pub driver: Option<String>,
    /// `driver_override`.
    pub driver_override: Option<String>,
    /// Whether that driver leaves the DMA API to others, as our driver says.
    pub manages_dma: Option<bool>,
    /// Its IOMMU group.
    pub group: Option<u32>,
    /// The unit it is behind.
    pub unit: Option<String>,
    /// When its unmapped memory is out of reach.
    pub policy: Option<Policy>,
    /// The IOVAs that can be mapped for it, as our driver says.
    pub aperture: Option<Range>,
    /// Whether devices of other groups are kept from the domains that it is on, as our driver says.
    pub sealed: Option<bool>,
    /// What our driver says has merged its group.
    pub merged_by: Vec<Merged>,
    /// Bits of the addresses that its driver asks the DMA API for.
    pub mask_bits: Option<u8>,
    /// Bytes of its memory regions (BARs).
    pub memory: u64,
    /// Its name in `/dev/vfio/devices`.
    pub vfio: Option<String>,
    /// The physical function, where this is a virtual one.
    pub physical: Option<Address>,
    /// What this machine itself has on it, or on what is behind it, that is in use; in words.
    pub uses: Vec<String>,
    /// What its configuration space says.
    #[serde(skip)]
    pub config: Option<Config>,
}

/// The policy of a device, and where that was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Policy {
    /// `strict`, `fq`, `fq-single`, `lazy` or `identity`.
    pub name: String,
    /// For how long unmapped memory stays in reach at most under `lazy`, in milliseconds.
    pub max_age_ms: Option<u64>,
    /// Whether our driver said so; else it was derived from the group's type.
    pub attribute: bool,
}

/// What is true for the whole machine.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Platform {
    /// Tables of the firmware that describe an IOMMU: `DMAR`, `IVRS`, `VIOT`.
    pub tables: Vec<String>,
    /// Modules of this project that are loaded.
    pub modules: Vec<String>,
    /// Whether `vfio-pci` is there to be bound.
    pub vfio_pci: bool,
    /// `allow_unsafe_interrupts` of `vfio_iommu_type1`; absent while that is not loaded.
    pub unsafe_interrupts: Option<bool>,
    /// `allow_unsafe_interrupts` of `iommufd`; absent while that is not there.
    pub iommufd_unsafe_interrupts: Option<bool>,
    /// `dma_entry_limit` of `vfio_iommu_type1`.
    pub dma_entry_limit: Option<u32>,
    /// Whether the kernel remaps interrupts; absent where it does not say.
    pub remaps_interrupts: Option<bool>,
    /// Whether `/dev/iommu` is there.
    pub iommufd: bool,
}

impl Platform {
    /// Whether VFIO was told to do without remapped interrupts, in one of its two ways.
    pub fn may_do_without_remapping(&self) -> bool {
        let told = [self.unsafe_interrupts, self.iommufd_unsafe_interrupts];
        told.contains(&Some(true))
    }
}

impl Holder {
    /// Its name as it can be printed: a process names itself, also with line feeds and with what a terminal obeys.
    pub fn shown_name(&self) -> String {
        self.name.escape_default().to_string()
    }
}

impl Device {
    /// Whether it is a bridge, which no user-space driver can have.
    pub fn is_bridge(&self) -> bool {
        match &self.config {
            Some(config) => config.layout != 0,
            None => self.class >> 8 == 0x0604,
        }
    }

    /// Whether its driver is one of VFIO's.
    pub fn has_vfio(&self) -> bool {
        self.driver.as_deref().is_some_and(|d| d.contains("vfio"))
    }

    /// Whether its driver keeps others from owning the group: all drivers do, but for those that manage
    /// DMA themselves (`driver_managed_dma` in the kernel).
    pub fn uses_dma_api(&self) -> bool {
        let Some(driver) = &self.driver else {
            return false;
        };
        let managed = self.has_vfio() || ["pcieport", "pci-stub"].contains(&driver.as_str());
        !self.manages_dma.unwrap_or(managed)
    }
}
