// SPDX-License-Identifier: GPL-2.0

//! How much memory a VMM has to be allowed to lock (`RLIMIT_MEMLOCK`) for a set of groups. Pure.
//!
//! From the kernel's source: drivers/vfio/vfio_iommu_type1.c counts pages when they are mapped
//! (`vfio_pin_pages_remote`, `vfio_lock_acct`), drivers/iommu/iommufd/pages.c when they are pinned
//! (`iopt_pages_update_pinned`).

use crate::model::{Group, Machine};
use crate::size::PAGE;
use crate::window::Range;
use serde::Serialize;

/// What is computed for a set of groups.
#[derive(Clone, Debug, Serialize)]
pub struct Memlock {
    /// The groups.
    pub groups: Vec<u32>,
    /// Bytes of all memory that is mapped, in whole pages; absent where none were named.
    pub memory: Option<u64>,
    /// A figure for each way to use the groups.
    pub figures: Vec<Figure>,
    /// Memory regions (BARs) of the groups' devices in bytes, of which none count.
    pub device_memory: u64,
    /// What one address space with all groups can map; absent where a group's window is not known.
    pub window: Option<Vec<Range>>,
    /// What else matters.
    pub notes: Vec<String>,
}

/// The limit for one way to use the groups.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// For programs.
    pub layout: Layout,
    /// How often the guest's memory counts.
    pub times: u64,
    /// The least limit in bytes; absent where the guest's memory was not named.
    pub bytes: Option<u64>,
    /// Against what is counted.
    pub counted_for: Scope,
    /// The reason in words.
    pub reason: String,
}

/// Ways to use several groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// VFIO type1, one container with all groups.
    Type1Shared,
    /// VFIO type1, a container for each group.
    Type1Each,
    /// iommufd, one IOAS with all devices.
    IommufdShared,
    /// iommufd, an IOAS for each group, filled with `IOMMU_IOAS_COPY`.
    IommufdCopied,
    /// iommufd, an IOAS for each group, each filled with `IOMMU_IOAS_MAP`.
    IommufdEach,
}

/// Whose locked pages are added up before they are compared with the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Those of the process (`locked_vm` of its `mm`, `VmLck` in `/proc/PID/status`).
    Process,
    /// Those of all processes of its user.
    User,
}

impl Layout {
    /// All of them.
    pub const ALL: [Layout; 5] = [
        Layout::Type1Shared,
        Layout::Type1Each,
        Layout::IommufdShared,
        Layout::IommufdCopied,
        Layout::IommufdEach,
    ];

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Layout::Type1Shared => "VFIO type1, one container",
            Layout::Type1Each => "VFIO type1, a container each",
            Layout::IommufdShared => "iommufd, one IOAS",
            Layout::IommufdCopied => "iommufd, an IOAS each, copied",
            Layout::IommufdEach => "iommufd, an IOAS each, mapped",
        }
    }

    /// How often memory counts that is mapped for `groups` groups.
    pub fn times(self, groups: u64) -> u64 {
        match self {
            Layout::Type1Shared | Layout::IommufdShared | Layout::IommufdCopied => 1,
            Layout::Type1Each | Layout::IommufdEach => groups,
        }
    }

    /// Against what is counted, unless `IOMMU_OPTION_RLIMIT_MODE` of iommufd says otherwise.
    pub fn scope(self) -> Scope {
        match self {
            Layout::Type1Shared | Layout::Type1Each => Scope::Process,
            _ => Scope::User,
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Layout::Type1Shared => {
                "a container counts a page when it is mapped, once for all groups in it, whether they share \
                 an IOMMU domain or not"
            }
            Layout::Type1Each => {
                "containers know nothing of each other, so each counts the page again; a guest with a vIOMMU \
                 is run like this"
            }
            Layout::IommufdShared => "an IOAS pins a page once for all devices attached to it",
            Layout::IommufdCopied => {
                "copies share what was pinned for the first IOAS, and it is counted once"
            }
            Layout::IommufdEach => "each call of IOMMU_IOAS_MAP pins and counts the page again",
        }
    }
}

/// `bytes` in whole pages. `None` beyond 64 bits.
fn pages(bytes: u64) -> Option<u64> {
    bytes.div_ceil(PAGE).checked_mul(PAGE)
}

fn intersection(a: &[Range], b: &[Range]) -> Vec<Range> {
    let both = |x: &Range, y: &Range| {
        let (start, last) = (x.start.max(y.start), x.last.min(y.last));
        (start <= last).then_some(Range { start, last })
    };
    a.iter()
        .flat_map(|x| b.iter().filter_map(move |y| both(x, y)))
        .collect()
}

fn notes(machine: &Machine, groups: &[(u32, &Group)], memory: Option<u64>) -> Vec<String> {
    let mut notes = vec![
        "M is all that is mapped: RAM, and what a VMM maps beside it (video memory, ROMs, flash); with just the \
         RAM as limit mapping ends with ENOMEM"
            .to_string(),
        "for the process: what it locked with mlock counts too and comes on top, what io_uring pins does not"
            .to_string(),
        "for the user: what io_uring and other iommufds of the user pin counts too and comes on top, what is \
         locked with mlock does not"
            .to_string(),
        "with CAP_IPC_LOCK there is no limit".to_string(),
    ];
    let limit = machine.platform.dma_entry_limit.unwrap_or(u16::MAX.into());
    notes.push(format!(
        "VFIO type1 takes {limit} mappings a container (dma_entry_limit of vfio_iommu_type1), whatever the \
         memory limit is"
    ));
    for (number, group) in groups {
        let room: Option<u64> = group.window.as_ref().map(|ranges| {
            let sizes = ranges.iter().map(|r| (r.last - r.start).saturating_add(1));
            sizes.fold(0, u64::saturating_add)
        });
        match (room, memory) {
            (None, _) => notes.push(format!("the DMA window of group {number} is not known")),
            (Some(room), Some(memory)) if room < memory => notes.push(format!(
                "the DMA window of group {number} has only {room} bytes: the memory does not fit"
            )),
            _ => {}
        }
        let direct = group.reserved.iter().any(|r| r.kind == "direct");
        if direct {
            notes.push(format!("group {number} cannot be assigned: see explain"));
        }
    }
    let is_sealed = |group: &Group| {
        let mut devices = group.devices.iter().filter_map(|a| machine.devices.get(a));
        devices.any(|device| device.sealed == Some(true))
    };
    if groups.len() > 1 {
        for (number, _) in groups.iter().filter(|(_, group)| is_sealed(group)) {
            notes.push(format!(
                "group {number} is sealed: of iommufd it needs an IOAS of its own; of type1 it can share a container, \
                 in which it gets a domain of its own"
            ));
        }
    }
    if !machine.platform.iommufd {
        notes.push("this kernel has no /dev/iommu: the figures for iommufd are for others".into());
    }
    notes
}

/// Computes the limits for `groups`, each of which counts once.
///
/// Errors: there is no such group, or a figure is beyond 64 bits; in words.
pub fn memlock(machine: &Machine, groups: &[u32], memory: Option<u64>) -> Result<Memlock, String> {
    let mut numbers = groups.to_vec();
    numbers.sort_unstable();
    numbers.dedup();
    let group = |number: &u32| match machine.groups.get(number) {
        Some(group) => Ok((*number, group)),
        None => Err(format!("there is no IOMMU group {number}")),
    };
    let chosen: Vec<(u32, &Group)> = numbers.iter().map(group).collect::<Result<_, _>>()?;
    let too_much = || "the memory is too large".to_string();
    let memory = match memory {
        Some(bytes) => Some(pages(bytes).ok_or_else(too_much)?),
        None => None,
    };
    let figure = |layout: Layout| {
        // CAST: there are fewer groups than that.
        let times = layout.times(numbers.len() as u64);
        let bytes = match memory {
            Some(bytes) => Some(bytes.checked_mul(times).ok_or_else(too_much)?),
            None => None,
        };
        Ok(Figure {
            layout,
            times,
            bytes,
            counted_for: layout.scope(),
            reason: layout.reason().into(),
        })
    };
    let figures = Layout::ALL.into_iter().map(figure);
    let figures = figures.collect::<Result<_, String>>()?;
    let devices = chosen.iter().flat_map(|(_, group)| &group.devices);
    let sizes = devices.filter_map(|a| Some(machine.devices.get(a)?.memory));
    let windows: Option<Vec<&Vec<Range>>> = chosen.iter().map(|(_, g)| g.window.as_ref()).collect();
    let window = windows.and_then(|windows| {
        let (first, rest) = windows.split_first()?;
        let all = rest
            .iter()
            .fold((*first).clone(), |a, b| intersection(&a, b));
        Some(all)
    });
    Ok(Memlock {
        figures,
        memory,
        device_memory: sizes.fold(0, u64::saturating_add),
        window,
        notes: notes(machine, &chosen, memory),
        groups: numbers,
    })
}
