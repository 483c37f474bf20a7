// SPDX-License-Identifier: GPL-2.0

//! Who holds which group: what `EBUSY` and `EPERM` of the IOMMU core do not say.

use crate::{
    driver::Driver,
    endpoint::{
        Device,
        State, //
    },
    group::Group, //
};
use core::{
    fmt,
    marker::PhantomData, //
};
use kernel::sync::Arc;

/// A report of all groups of a driver, made when it is printed.
///
/// A group has one line, and below it each of its devices has one:
///
/// ```text
/// group 4: held for the DMA API by 1 of 2 devices
///   0000:00:04.0 driver nvme, uses the DMA API, domain default
///   0000:00:05.0 no driver, domain default
/// ```
///
/// Context: may sleep.
pub struct Holders<D: Driver>(PhantomData<fn() -> D>);

impl<D: Driver> Holders<D> {
    /// The report.
    #[allow(clippy::new_without_default, reason = "there is no default driver")]
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

fn domain_of<D: Driver>(device: &Device<D>) -> &'static str {
    let place = device.place.lock();
    match &place.state {
        State::Untouched | State::Released => "none",
        State::Blocked => "blocked",
        State::Identity if place.parked => "identity, parked",
        State::Identity => "identity",
        State::Paging(at) if at.domain.is_default() && place.parked => "default, parked",
        State::Paging(at) if at.domain.is_default() => "default",
        State::Paging(_) => "of its owner",
    }
}

fn show_device<D: Driver>(device: &Device<D>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let name = device.name.to_str().unwrap_or("?");
    write!(f, "  {name} ")?;
    match &*device.bound.lock() {
        None => write!(f, "no driver")?,
        Some(bound) => {
            let driver = bound.driver.as_ref().and_then(|d| d.to_str().ok());
            write!(f, "driver {}, ", driver.unwrap_or("of unknown name"))?;
            f.write_str(if bound.manages_dma {
                "manages DMA itself"
            } else {
                "uses the DMA API"
            })?;
        }
    }
    writeln!(f, ", domain {}", domain_of(device))
}

fn show_group<D: Driver>(group: &Group<D>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let members = group.members.lock();
    let bound = |device: &&Arc<Device<D>>| {
        let bound = device.bound.lock();
        bound.as_ref().is_some_and(|b| !b.manages_dma)
    };
    let users = members.iter().filter(bound).count();
    // Only a claim takes a group whose driver manages DMA itself away from its default.
    let claimed = members.iter().any(|device| {
        let place = device.place.lock();
        match &place.state {
            State::Blocked => true,
            State::Paging(at) => !at.domain.is_default(),
            _ => false,
        }
    });
    write!(f, "group {}: ", group.id)?;
    if claimed {
        writeln!(f, "claimed")?;
    } else if users > 0 {
        let of = members.len();
        writeln!(f, "held for the DMA API by {users} of {of} devices")?;
    } else {
        writeln!(f, "not held")?;
    }
    members.iter().try_for_each(|device| show_device(device, f))
}

impl<D: Driver> fmt::Display for Holders<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(registry) = D::ops().registry() else {
            return Ok(());
        };
        for group in registry.lock().groups.iter() {
            show_group(group, f)?;
        }
        Ok(())
    }
}
