// SPDX-License-Identifier: GPL-2.0

//! Driver for Intel VT-d remapping hardware in legacy mode.
//!
//! Specification: Intel Virtualization Technology for Directed I/O, Architecture
//! Specification. Section numbers in this crate are those of revision 4.1.

use iommu::{
    freeze,
    pci::{
        acs,
        hold::Held,
        notifier::PciNotifier,
        ports::ReleasedPorts, //
    },
    registration::{
        Choices,
        Registration, //
    },
    shutdown::{
        Running,
        Started, //
    },
    unit::UnitRef, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

mod boot;
mod caps;
mod context;
mod descriptor;
mod dids;
mod dmar;
mod driver;
mod fault;
mod fault_record;
mod options;
mod platform;
mod qi;
mod registers;
mod regs;
mod stats;
mod tables;
mod unit;

use crate::{
    boot::Boot,
    driver::Vtd,
    options::Options,
    platform::Platform,
    stats::Stats,
    unit::Unit, //
};

module! {
    type: VtdModule,
    name: "rust_vtd",
    authors: ["The Rust IOMMU maintainers"],
    description: "Intel VT-d driver in Rust",
    license: "GPL",
    imports_ns: ["GENERIC_PT_IOMMU"],
    params: {
        address_bits: u32 {
            default: 0,
            description: "Largest second-stage table: 39, 48 or 57 address bits (0: what the unit has)",
        },
        identity_table: u32 {
            default: 0,
            description: "1: identity domains use a table even if the unit can pass DMA through",
        },
        park_unbound: u32 {
            default: 0,
            description: "1: DMA of devices is blocked while no driver is bound in their group",
        },
    },
}

/// The line that says why the module is not loaded, for steps that print none.
fn failed(step: &'static str) -> impl Fn(&Error) {
    move |e| pr_err!("{step} failed: error {}\n", e.to_errno())
}

iommu::shutdown_parameter!(static SERVICE: Service<Remapping>, module: VtdModule);

struct VtdModule {
    _remapping: Started<Remapping>,
}

/// Everything that is undone at the end, in the order of the fields.
struct Remapping {
    stats: Stats,
    notifier: Pin<KBox<PciNotifier<Boot>>>,
    /// Releases every endpoint.
    registration: Registration<Vtd>,
    /// After the registration, before the last reference to the units.
    translation: Translation,
}

/// Translation is on in all units while this lives.
struct Translation {
    units: KVec<UnitRef<Vtd>>,
    boot: Arc<Boot>,
    /// Once it was switched off: whether all units have done that.
    off: Option<bool>,
}

impl Translation {
    /// Gives every device that is there a pass-through entry, then switches
    /// translation on.
    fn start(units: &[UnitRef<Vtd>]) -> Result<Self> {
        let mut this = Self {
            units: KVec::new(),
            boot: Boot::keep(units)?,
            off: None,
        };
        for unit in units {
            this.units.push(unit.clone(), GFP_KERNEL)?;
            unit.enable()?;
        }
        Ok(this)
    }

    /// Switches translation off, once. Whether all units have done that; one that has not
    /// says so.
    fn switch_off(&mut self) -> bool {
        *self.off.get_or_insert_with(|| {
            let mut all_off = true;
            for unit in &self.units {
                all_off &= unit.disable().is_ok();
            }
            all_off
        })
    }
}

impl Drop for Translation {
    fn drop(&mut self) {
        // Off first: DMA that has passed through until now goes on untranslated.
        if self.switch_off() {
            self.boot.end();
        } else {
            // Their DMA still goes through these entries.
            core::mem::forget(self.boot.clone());
        }
        for unit in &self.units {
            unit.shut_down();
        }
    }
}

impl Running for Remapping {
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

impl Remapping {
    fn start() -> Result<Self> {
        let options = Options::read()?;
        let platform = Platform::find()?;

        let mut units = KVec::new();
        for (number, info) in (0..).zip(platform.units()?) {
            units.push(
                Unit::take_over(number, info, platform.clone(), &options)?,
                GFP_KERNEL,
            )?;
        }
        for unit in &units {
            unit.start()?;
        }

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
        let translation =
            Translation::start(&units).inspect_err(failed("keeping devices at work"))?;
        let notifier = PciNotifier::register(translation.boot.clone())
            .inspect_err(failed("watching the PCI bus"))?;
        let stats = Stats::new(&units).inspect_err(failed("making debugfs files"))?;
        let choices = Choices {
            park: options.park_unbound,
        };
        let registration = Registration::new(&held, c"vtd", units, choices)
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

impl kernel::Module for VtdModule {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Self {
            _remapping: SERVICE.start(Remapping::start)?,
        })
    }
}
