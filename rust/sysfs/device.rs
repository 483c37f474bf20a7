// SPDX-License-Identifier: GPL-2.0

//! What the attributes of a device say, and those that can be set.

use super::{
    has_room,
    Which, //
};
use crate::{
    bindings::{
        rust_iommu_attribute_RUST_IOMMU_APERTURE as APERTURE,
        rust_iommu_attribute_RUST_IOMMU_DOMAIN as DOMAIN,
        rust_iommu_attribute_RUST_IOMMU_FAULTS as FAULTS,
        rust_iommu_attribute_RUST_IOMMU_INVALIDATIONS as INVALIDATIONS,
        rust_iommu_attribute_RUST_IOMMU_MAPPED_BYTES as MAPPED_BYTES,
        rust_iommu_attribute_RUST_IOMMU_MAPPINGS as MAPPINGS,
        rust_iommu_attribute_RUST_IOMMU_MAX_AGE_MS as MAX_AGE_MS,
        rust_iommu_attribute_RUST_IOMMU_MERGED_BY as MERGED_BY,
        rust_iommu_attribute_RUST_IOMMU_PAGE_SIZES as PAGE_SIZES,
        rust_iommu_attribute_RUST_IOMMU_POLICY as POLICY,
        rust_iommu_attribute_RUST_IOMMU_RESERVED_REGIONS as RESERVED_REGIONS,
        rust_iommu_attribute_RUST_IOMMU_SEALED as SEALED, //
    },
    confine,
    driver::Driver,
    endpoint::{
        Device,
        State, //
    },
    group::Member,
    mapped,
    pci::Function,
    policy::{
        change,
        name::Policy, //
    },
    resv, //
};
use core::fmt::Write as _;
use kernel::{
    prelude::*,
    str::Formatter,
    sync::atomic::Relaxed, //
};

fn find<D: Driver>(function: &Function<'_>) -> Result<Member<D>> {
    let registry = D::ops().registry()?;
    let found = registry.lock().groups.find(function.as_device());
    found.ok_or(ENODEV)
}

/// Where the device's DMA goes, in a word.
fn domain<D: Driver>(device: &Device<D>) -> &'static str {
    let place = device.place.lock();
    match &place.state {
        State::Untouched | State::Released => "none",
        State::Blocked(_) => "blocked",
        State::Paging(at) if !at.domain.is_default() => "owner",
        // As `attach::is_shut()` has it: what firmware uses is not blocked.
        _ if place.parked && device.firmware.lock().is_empty() => "parked",
        State::Identity => "identity",
        State::Paging(_) => "default",
    }
}

/// A line for each function that has merged the device's group.
fn merged_by<D: Driver>(member: &Member<D>, to: &mut Formatter<'_>) -> Result {
    let registry = D::ops().registry()?.lock();
    registry.groups.merged(&member.group, |device, how| {
        let name = device.name.to_str().unwrap_or("?");
        if !has_room(to) {
            return Ok(());
        }
        Ok(writeln!(to, "{name} {}", how.name())?)
    })
}

/// Context: may sleep.
pub(super) fn show<D: Driver>(
    function: &Function<'_>,
    which: Which,
    to: &mut Formatter<'_>,
) -> Result {
    let member = find::<D>(function)?;
    let device = &member.device;
    match which {
        POLICY => writeln!(to, "{}", change::current(&member, function)?.name())?,
        MAX_AGE_MS => writeln!(to, "{}", device.max_age_ms.load(Relaxed))?,
        SEALED => writeln!(to, "{}", u8::from(device.endpoint.is_sealed()))?,
        APERTURE => {
            let aperture = confine::limits(device)?.aperture;
            writeln!(to, "{:#018x} {:#018x}", aperture.first(), aperture.last())?;
        }
        PAGE_SIZES => writeln!(to, "{:#x}", confine::limits(device)?.page_sizes)?,
        RESERVED_REGIONS => {
            // SAFETY: The files go, and wait for their readers, before the core releases the device.
            for region in &unsafe { resv::regions(function) }? {
                if has_room(to) {
                    let (start, last, kind) = (region.start, region.last, region.kind);
                    writeln!(to, "{start:#018x} {last:#018x} {kind}")?;
                }
            }
        }
        DOMAIN => writeln!(to, "{}", domain(device))?,
        MAPPINGS => writeln!(to, "{}", mapped::by_device(device)?.mappings)?,
        MAPPED_BYTES => writeln!(to, "{}", mapped::by_device(device)?.bytes)?,
        INVALIDATIONS => writeln!(to, "{}", device.endpoint.invalidations.load(Relaxed))?,
        FAULTS => writeln!(to, "{}", device.faults.load(Relaxed))?,
        MERGED_BY => merged_by(&member, to)?,
        _ => return Err(EIO),
    }
    Ok(())
}

fn set_policy<D: Driver>(member: &Member<D>, function: &Function<'_>, text: &[u8]) -> Result {
    let policy = Policy::parse(text).ok_or(EINVAL)?;
    if policy == Policy::Identity && confine::is_narrowed(&member.device.endpoint) {
        pr_info!("{function}: policy identity is not for a device with an aperture\n");
        return Err(EPERM);
    }
    let result = change::change(member, function, policy);
    match result {
        Err(EBUSY) => pr_info!(
            "{function}: policy {} can be set only while no driver is bound in its group\n",
            policy.name()
        ),
        Err(EPERM) => pr_info!(
            "{function}: policy {} is not for a device that is not trusted\n",
            policy.name()
        ),
        _ => {}
    }
    result
}

fn set_sealed<D: Driver>(member: &Member<D>, function: &Function<'_>, text: &[u8]) -> Result {
    let sealed = match text.trim_ascii() {
        b"0" => false,
        b"1" => true,
        _ => {
            pr_info!("{function}: sealed must be 0 or 1\n");
            return Err(EINVAL);
        }
    };
    confine::seal(&member.group, sealed).inspect_err(|_| {
        pr_info!("{function}: not sealed: devices of other groups are on the domain it is on\n");
    })
}

/// Context: may sleep; the device's lock is held.
pub(super) fn set<D: Driver>(function: &Function<'_>, which: Which, text: &[u8]) -> Result {
    let member = find::<D>(function)?;
    match which {
        POLICY => set_policy(&member, function, text),
        MAX_AGE_MS => {
            let text = core::str::from_utf8(text.trim_ascii()).map_err(|_| EINVAL)?;
            change::set_max_age(&member, text.parse().map_err(|_| EINVAL)?)
        }
        APERTURE => confine::narrow(&member, function, text),
        SEALED => set_sealed(&member, function, text),
        // Somebody has changed the file's mode.
        _ => Err(EIO),
    }
}
