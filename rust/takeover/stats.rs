// SPDX-License-Identifier: GPL-2.0

//! Files in the driver's folder of debugfs: `stats` of each unit has counters, `groups` tells who
//! holds which group.

use super::TakeOver;
use crate::{
    holders::Holders,
    pt::PageTable,
    unit::UnitRef, //
};
use core::fmt;
use kernel::{
    debugfs::{
        Dir,
        File, //
    },
    prelude::*,
    str::CString,
    sync::atomic::Relaxed, //
};

/// The files; removed when dropped.
pub(super) struct Stats<D: TakeOver> {
    _files: KVec<Pin<KBox<File<UnitRef<D>>>>>,
    _groups: Pin<KBox<File<Holders<D>>>>,
}

fn show_groups<D: TakeOver>(holders: &Holders<D>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    fmt::Display::fmt(holders, f)
}

fn show<D: TakeOver>(unit: &UnitRef<D>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    D::stats(unit, f)?;
    if D::Table::ROOT_AT.is_some() {
        writeln!(f, "tables_grown: {}", unit.grown().load(Relaxed))?;
    }
    match D::reports(unit) {
        Some(reports) => writeln!(f, "dropped_reports: {}", reports.dropped()),
        None => Ok(()),
    }
}

impl<D: TakeOver> Stats<D> {
    /// Makes the files. Errors: `ENOMEM`.
    pub(super) fn new(units: &[UnitRef<D>]) -> Result<Self> {
        let dir = Dir::new(D::FOLDER);
        let mut files = KVec::new();
        for (number, unit) in units.iter().enumerate() {
            let name = CString::try_from_fmt(fmt!("{}{number}", D::UNIT))?;
            let dir = dir.subdir(&name);
            let file = dir.read_callback_file(c"stats", unit.clone(), &show::<D>);
            files.push(KBox::pin_init(file, GFP_KERNEL)?, GFP_KERNEL)?;
        }
        let groups = dir.read_callback_file(c"groups", Holders::new(), &show_groups::<D>);
        Ok(Self {
            _files: files,
            _groups: KBox::pin_init(groups, GFP_KERNEL)?,
        })
    }
}
