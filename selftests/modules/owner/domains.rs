// SPDX-License-Identifier: GPL-2.0

//! The domains of all devices, by number: each device can use those of the others.
//!
//! A device's domains leave the list when it is unbound. Whoever is attached to one keeps it.

use crate::{
    faults::Watch,
    STATE, //
};
use iommu::consumer::UserDomain;
use kernel::{
    device::{
        Bound,
        Device, //
    },
    prelude::*,
    sync::Arc, //
};

struct Listed {
    number: u64,
    domain: Arc<UserDomain>,
    watch: Option<Arc<Watch>>,
}

/// What is listed.
pub(crate) struct Domains {
    list: KVec<Listed>,
    next: u64,
}

impl Domains {
    pub(crate) const fn new() -> Self {
        Self {
            list: KVec::new(),
            next: 1,
        }
    }

    fn add(&mut self, domain: Arc<UserDomain>, watch: Option<Arc<Watch>>) -> Result<u64> {
        let number = self.next;
        let listed = Listed {
            number,
            domain,
            watch,
        };
        self.list.push(listed, GFP_KERNEL)?;
        self.next += 1;
        Ok(number)
    }

    fn position(&self, number: u64) -> Result<usize> {
        let found = self.list.iter().position(|listed| listed.number == number);
        found.ok_or(ENOENT)
    }
}

/// The domain `number`, whoever has made it.
pub(crate) fn get(number: u64) -> Result<Arc<UserDomain>> {
    let state = STATE.get()?;
    let domains = state.domains.lock();
    Ok(domains.list[domains.position(number)?].domain.clone())
}

/// What was seen of the faults of the domain `number`. Fails with `EINVAL` where nobody looks.
pub(crate) fn watch(number: u64) -> Result<Arc<Watch>> {
    let state = STATE.get()?;
    let domains = state.domains.lock();
    let watch = domains.list[domains.position(number)?].watch.clone();
    watch.ok_or(EINVAL)
}

fn remove(number: u64) -> Result {
    let state = STATE.get()?;
    let mut domains = state.domains.lock();
    let at = domains.position(number)?;
    let removed = domains.list.remove(at).map_err(|_| ENOENT)?;
    // Not freed under the lock of the list.
    drop(domains);
    drop(removed);
    Ok(())
}

/// The numbers of the domains that a device has made. Dropping it takes them from the list.
pub(crate) struct Made(KVec<u64>);

impl Made {
    pub(crate) const fn new() -> Self {
        Self(KVec::new())
    }

    pub(crate) fn add(&mut self, dev: &Device<Bound>, watch: Option<Arc<Watch>>) -> Result<u64> {
        let domain = match &watch {
            Some(watch) => UserDomain::with_handler(dev, watch.clone())?,
            None => UserDomain::new(dev)?,
        };
        let state = STATE.get()?;
        self.0.reserve(1, GFP_KERNEL)?;
        let number = state.domains.lock().add(domain, watch)?;
        self.0.push(number, GFP_KERNEL)?;
        Ok(number)
    }

    /// Fails with `ENOENT` where it is none of the device's own.
    pub(crate) fn free(&mut self, number: u64) -> Result {
        let found = self.0.iter().position(|n| *n == number);
        self.0.remove(found.ok_or(ENOENT)?).map_err(|_| ENOENT)?;
        remove(number)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for number in &self.0 {
            // Listed, and the state is there as long as drivers are.
            let _ = remove(*number);
        }
    }
}
