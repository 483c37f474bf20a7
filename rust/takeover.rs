// SPDX-License-Identifier: GPL-2.0

//! Taking units over while the machine runs, and giving them back: one order for all hardware.
//!
//! Devices are there, some with drivers, when units are switched on. Each keeps an entry that passes its
//! DMA until the IOMMU core has attached it; one with a driver keeps it for good.

use crate::{
    driver::Driver,
    freeze,
    pci::{
        acs,
        hold::Held,
        notifier::PciNotifier,
        ports::ReleasedPorts,
        Function, //
    },
    registration::{
        Choices,
        Registration, //
    },
    sharing::Purpose,
    shutdown::Running,
    source_id::SourceId,
    unit::UnitRef, //
};
use core::fmt;
use kernel::{
    prelude::*,
    sync::Arc, //
};

mod boot;
mod stats;

use self::{
    boot::Boot,
    stats::Stats, //
};

/// What a [`Remapping`] has to know of a unit and of the devices behind it.
pub trait TakeOver: Driver {
    /// What sysfs and debugfs call a unit, with its number behind it.
    const UNIT: &'static CStr;
    /// The driver's folder in debugfs.
    const FOLDER: &'static CStr;

    /// Facts and entries of a function that is there before its unit is switched on; `None` if it is
    /// behind none of these units.
    ///
    /// Context: may sleep. Errors: anything; the units are then given back.
    fn keep(
        units: &[UnitRef<Self>],
        function: Function<'_>,
        purpose: Purpose,
    ) -> Result<Option<Kept<Self>>>;

    /// The function's own name, as [`Function::source_id`] has it.
    fn source(endpoint: &Self::Endpoint) -> SourceId;

    /// Switches translation on: from here on, what has no entry is refused.
    ///
    /// Context: may sleep. Errors: `ETIMEDOUT` and others, after a message.
    fn enable(unit: &Self::Unit) -> Result;

    /// Switches translation off: DMA goes on untranslated.
    ///
    /// Context: may sleep. Errors: `ETIMEDOUT`, after a message; the unit keeps its tables then.
    fn disable(unit: &Self::Unit) -> Result;

    /// Ends whatever calls into the module. Context: may sleep.
    fn shut_down(unit: &Self::Unit);

    /// Writes counters, one `name: value` a line. Context: may sleep.
    fn stats(unit: &Self::Unit, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

/// Unit, facts and slot of a function.
pub type Kept<D> = (
    UnitRef<D>,
    <D as Driver>::Endpoint,
    <D as Driver>::Slot, //
);

/// The line that says why units are not taken over, for steps that print none.
fn failed(step: &'static str) -> impl Fn(&Error) {
    move |e| pr_err!("{step} failed: error {}\n", e.to_errno())
}

/// Units that were taken over; everything is undone at the end, in the order of the fields.
pub struct Remapping<D: TakeOver> {
    stats: Stats<D>,
    notifier: Pin<KBox<PciNotifier<Boot<D>>>>,
    /// Releases every endpoint.
    registration: Registration<D>,
    /// After the registration, before the last reference to the units.
    translation: Translation<D>,
}

/// Translation is on in all units while this lives.
struct Translation<D: TakeOver> {
    units: KVec<UnitRef<D>>,
    boot: Arc<Boot<D>>,
    /// Once it was switched off: whether all units have done that.
    off: Option<bool>,
}

impl<D: TakeOver> Translation<D> {
    /// Gives every device that is there a pass-through entry, then switches
    /// translation on. Errors come after a message.
    fn start(units: &[UnitRef<D>]) -> Result<Self> {
        let mut this = Self {
            units: KVec::new(),
            boot: Boot::keep(units)?,
            off: None,
        };
        for unit in units {
            this.units
                .push(unit.clone(), GFP_KERNEL)
                .map_err(Error::from)
                .inspect_err(failed("listing the units"))?;
            D::enable(unit)?;
        }
        Ok(this)
    }

    /// Switches translation off, once. Whether all units have done that; one that has not
    /// says so.
    fn switch_off(&mut self) -> bool {
        *self.off.get_or_insert_with(|| {
            let mut all_off = true;
            for unit in &self.units {
                all_off &= D::disable(unit).is_ok();
            }
            all_off
        })
    }
}

impl<D: TakeOver> Drop for Translation<D> {
    fn drop(&mut self) {
        // Off first: DMA that has passed through until now goes on untranslated.
        if self.switch_off() {
            self.boot.end();
        } else {
            // Their DMA still goes through these entries.
            core::mem::forget(self.boot.clone());
        }
        for unit in &self.units {
            D::shut_down(unit);
        }
    }
}

impl<D: TakeOver> Running for Remapping<D> {
    fn shut_down(self) -> Result<(), (Self, Error)> {
        if let Err(e) = freeze::look(&self.registration) {
            return Err((self, e));
        }
        // Ports have a driver all the time, whom no domain matters to.
        let ports = match ReleasedPorts::release(|_| true) {
            Ok(ports) => ports,
            Err(e) => return Err((self, e)),
        };
        match self.registration.end() {
            Ok(frozen) => {
                drop(self.stats);
                drop(self.notifier);
                let mut translation = self.translation;
                let off = translation.switch_off();
                drop(translation);
                // Who binds from here on finds no IOMMU, and translation off.
                drop(frozen);
                drop(ports);
                if off {
                    pr_info!("shut down, DMA is not translated any more\n");
                } else {
                    pr_err!("shut down, but a unit stays on: DMA that it translated is blocked\n");
                }
                Ok(())
            }
            Err((registration, e)) => Err((
                Self {
                    registration,
                    ..self
                },
                e,
            )),
        }
    }
}

impl<D: TakeOver> Remapping<D> {
    /// Takes over units that are set up, with translation off: gives devices that are there entries,
    /// switches translation on, registers with the IOMMU core.
    ///
    /// Context: may sleep. Errors, each with a message: `EBUSY`, `ENOMEM`, `ETIMEDOUT`, and what the core
    /// returns; everything is undone then.
    pub fn start(units: KVec<UnitRef<D>>, choices: Choices) -> Result<Self> {
        // Before anything is grouped: ports that pass requests between the devices
        // below them put these into one group.
        let acs = acs::enable_acs_all();
        if acs > 0 {
            pr_info!("access control services switched on in {acs} ports\n");
        }
        // Ports are bound at boot, and a device with a driver is not probed. They get
        // their driver back when this is dropped, at the latest.
        let ports = ReleasedPorts::release(|_| true).inspect_err(failed("releasing the ports"))?;

        // What is added while entries are made would have none; and what gets a driver before
        // it is attached would be declined, while those that share its ids are not.
        let held = Held::all()?;
        ports.check(&held)?;
        let translation = Translation::start(&units)?;
        let notifier = PciNotifier::register(translation.boot.clone())
            .inspect_err(failed("watching the PCI bus"))?;
        let stats = Stats::new(&units).inspect_err(failed("making debugfs files"))?;
        let registration = Registration::new(&held, D::UNIT, units, choices)
            .inspect_err(failed("registering with the IOMMU core"))?;
        translation.boot.settle();
        drop(held);
        drop(ports);

        Ok(Self {
            stats,
            notifier,
            registration,
            translation,
        })
    }
}
