// SPDX-License-Identifier: GPL-2.0

//! Files in debugfs: `rust_vtd/vtdN/stats` has counters, one `name: value` a line;
//! `rust_vtd/groups` tells who holds which group.

use crate::{
    driver::Vtd,
    unit::Unit, //
};
use core::fmt;
use iommu::{
    holders::Holders,
    unit::UnitRef, //
};
use kernel::{
    debugfs::{
        Dir,
        File, //
    },
    prelude::*,
    str::CString, //
};

/// The files; removed when dropped.
pub(crate) struct Stats {
    _files: KVec<Pin<KBox<File<UnitRef<Vtd>>>>>,
    _groups: Pin<KBox<File<Holders<Vtd>>>>,
}

fn show_groups(holders: &Holders<Vtd>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    fmt::Display::fmt(holders, f)
}

fn show(unit: &UnitRef<Vtd>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let unit: &Unit = unit;
    let caps = unit.registers().caps();
    let queue = unit.queue();
    writeln!(f, "capabilities: {:#x}", caps.cap())?;
    writeln!(f, "extended_capabilities: {:#x}", caps.ecap())?;
    writeln!(f, "domain_ids: {}", unit.tags())?;
    writeln!(f, "invalidations: {}", queue.submitted())?;
    writeln!(f, "waits: {}", queue.waits())?;
    writeln!(f, "timeouts: {}", queue.timeouts())?;
    writeln!(f, "queue_errors: {}", queue.errors())?;
    writeln!(f, "faults: {}", unit.faults().recorded())?;
    writeln!(f, "fault_overflows: {}", unit.faults().overflows())
}

impl Stats {
    /// Makes the files. Errors: `ENOMEM`.
    pub(crate) fn new(units: &[UnitRef<Vtd>]) -> Result<Self> {
        let dir = Dir::new(c"rust_vtd");
        let mut files = KVec::new();
        for unit in units {
            let name = CString::try_from_fmt(fmt!("vtd{}", unit.number()))?;
            let dir = dir.subdir(&name);
            let file = dir.read_callback_file(c"stats", unit.clone(), &show);
            files.push(KBox::pin_init(file, GFP_KERNEL)?, GFP_KERNEL)?;
        }
        let groups = dir.read_callback_file(c"groups", Holders::new(), &show_groups);
        Ok(Self {
            _files: files,
            _groups: KBox::pin_init(groups, GFP_KERNEL)?,
        })
    }
}
