// SPDX-License-Identifier: GPL-2.0

//! PCI functions: `/sys/bus/pci/devices` (Documentation/ABI/testing/sysfs-bus-pci of the kernel).

use super::Root;
use crate::address::{self, Address};
use crate::config::Config;
use crate::grouping;
use crate::model::{Device, Policy};
use crate::window;
use std::collections::BTreeMap;

/// Bytes of the memory regions in a file `resource`: the first six lines are the BARs, with first and
/// last address and flags (`IORESOURCE_MEM` is 0x200).
fn memory(resource: &str) -> u64 {
    let size = |line: &str| {
        let mut words = line
            .split_whitespace()
            .map(|w| u64::from_str_radix(w.trim_start_matches("0x"), 16).ok());
        let (start, last, flags) = (words.next()??, words.next()??, words.next()??);
        let is_memory = flags & 0x200 != 0 && last > start;
        is_memory.then(|| (last - start).saturating_add(1))
    };
    let sizes = resource.lines().take(6).filter_map(size);
    sizes.fold(0, u64::saturating_add)
}

/// The policy that our driver shows.
fn policy(root: &Root, dir: &str) -> Option<Policy> {
    let name = root.text(&format!("{dir}/rust_iommu/policy")).ok()?;
    let max_age_ms = (name == "lazy")
        .then(|| root.number(&format!("{dir}/rust_iommu/max_age_ms")))
        .flatten();
    Some(Policy {
        name,
        max_age_ms,
        attribute: true,
    })
}

fn read(root: &Root, address: Address, dir: &str) -> Device {
    let file = |name: &str| format!("{dir}/{name}");
    let hex = |name: &str| {
        let text = root.text(&file(name)).ok()?;
        u32::from_str_radix(text.trim_start_matches("0x"), 16).ok()
    };
    let names = root.components(dir);
    let mut path = address::path(names.iter().map(String::as_str));
    path.pop();
    let physical = root.link_name(&file("physfn"));
    let physical: Option<Address> = physical.and_then(|name| name.parse().ok());
    let mut config = root
        .bytes(&file("config"))
        .ok()
        .and_then(|bytes| Config::parse(&bytes));
    if let Some(config) = config.as_mut().filter(|_| physical.is_none()) {
        // The kernel goes by how it found it, not by what the header says. It looks for no virtual ones.
        config.multifunction |= address.function != 0;
    }
    let over = root.text(&file("driver_override")).ok();
    Device {
        address,
        path,
        class: hex("class").unwrap_or(0),
        driver: root.link_name(&file("driver")),
        driver_override: over.filter(|o| !o.is_empty() && o != "(null)"),
        manages_dma: None,
        group: root
            .link_name(&file("iommu_group"))
            .and_then(|name| name.parse().ok()),
        unit: root.link_name(&file("iommu")),
        policy: policy(root, dir),
        aperture: root
            .text(&file("rust_iommu/aperture"))
            .ok()
            .and_then(|text| window::parse_aperture(&text)),
        sealed: root
            .number(&file("rust_iommu/sealed"))
            .map(|sealed| sealed != 0),
        merged_by: root
            .text(&file("rust_iommu/merged_by"))
            .map(|text| grouping::parse_merged(&text))
            .unwrap_or_default(),
        mask_bits: root
            .number(&file("dma_mask_bits"))
            .and_then(|n| u8::try_from(n).ok()),
        memory: memory(&root.text(&file("resource")).unwrap_or_default()),
        vfio: root
            .names(&file("vfio-dev"))
            .ok()
            .and_then(|names| names.into_iter().next()),
        physical,
        uses: Vec::new(),
        config,
    }
}

/// All of them.
pub(super) fn all(root: &Root) -> BTreeMap<Address, Device> {
    const ALL: &str = "sys/bus/pci/devices";
    let names = root.names(ALL).unwrap_or_default();
    let device = |name: &String| {
        let address: Address = name.parse().ok()?;
        let dir = format!("{ALL}/{name}");
        Some((address, read(root, address, &dir)))
    };
    names.iter().filter_map(device).collect()
}

#[cfg(test)]
mod tests {
    use super::memory;

    #[test]
    fn only_memory_counts_and_only_bars() {
        let mem = "0x00000000fe000000 0x00000000fe003fff 0x0000000000140204\n";
        let port = "0x000000000000c000 0x000000000000c01f 0x0000000000040101\n";
        let none = "0x0000000000000000 0x0000000000000000 0x0000000000000000\n";
        let text = [mem, port, none, mem, none, none, mem].concat();
        assert_eq!(memory(&text), 2 * 0x4000);
        let all = "0x0000000000000000 0xffffffffffffffff 0x0000000000140204\n";
        assert_eq!(memory(all), u64::MAX);
        assert_eq!(memory("rubbish\n0x1\n"), 0);
    }
}
