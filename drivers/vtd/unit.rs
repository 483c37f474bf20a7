// SPDX-License-Identifier: GPL-2.0

//! One remapping unit: what it is made of, and how it is started and stopped.

use crate::{
    caps::{
        self,
        Width, //
    },
    context::{
        ContextEntry,
        TableAddress, //
    },
    descriptor::{
        Descriptor,
        Drain, //
    },
    dids,
    driver::Vtd,
    fault::FaultLog,
    options::Options,
    platform::{
        Platform,
        UnitInfo, //
    },
    qi::{
        self,
        Qi, //
    },
    registers::Registers,
    tables::{
        Slot,
        Tables, //
    },
};
use iommu::{
    driver::Target,
    entries::Coherency,
    ids::{
        Id,
        Ids, //
    },
    irq::MsiIrq,
    memory,
    path::Path,
    pt::{
        Vtdss,
        VtdssConfig, //
    },
    queue::Queue,
    sharing::Purpose,
    source_id::AliasSet,
    unit::UnitRef, //
};
use kernel::{
    bindings::NUMA_NO_NODE,
    new_mutex,
    prelude::*,
    str::CString,
    sync::{
        Arc,
        Mutex, //
    },
};

/// Physical address bits that second-stage entries can hold (VT-d specification,
/// section 9.8).
const OUTPUT_BITS: u8 = 52;

/// Size of an identity table of 1 GiB pages, as address bits: 2 MiB of tables.
const IDENTITY_BITS_1G: u32 = 48;

/// A unit. Lock order: `tables`, then the framework's slot lock, then the context
/// tables' and the queue's own.
#[pin_data(PinnedDrop)]
pub(crate) struct Unit {
    number: u32,
    info: UnitInfo,
    platform: Arc<Platform>,
    registers: Arc<Registers>,
    width: Width,
    /// How DMA of the identity domain gets through.
    identity: ContextEntry,
    /// The table that it goes through on a unit without pass-through entries. Locked
    /// at the end only.
    #[pin]
    identity_table: Mutex<Option<Pin<KBox<Vtdss>>>>,
    dids: Arc<Ids>,
    faults: Arc<FaultLog>,
    #[pin]
    fault_irq: Mutex<Option<MsiIrq<FaultLog>>>,
    queue: Arc<Queue<Qi>>,
    /// Taken to make slots; `None` at the end, if the unit did not stop.
    #[pin]
    tables: Mutex<Option<Tables>>,
}

impl Unit {
    /// Takes a unit over without changing what it does.
    ///
    /// Errors, each with a message: see [`Registers::request`]; `ENODEV` for a unit
    /// that this driver cannot drive; `ENOMEM`.
    pub(crate) fn take_over(
        number: u32,
        info: UnitInfo,
        platform: Arc<Platform>,
        options: &Options,
    ) -> Result<UnitRef<Vtd>> {
        let registers = Registers::request(info.base)?;
        let caps = registers.caps();
        if !caps.queued_invalidation() {
            pr_err!("vtd{number}: unit has no queued invalidation\n");
            return Err(ENODEV);
        }
        let unusable = |e: caps::Error| {
            pr_err!("vtd{number}: {}\n", core::format_args!("{e}"));
            ENODEV
        };
        let width = caps.address_width(options.address_bits).map_err(unusable)?;
        let (identity, identity_table) = if caps.pass_through() && !options.identity_table {
            let widest = caps.pass_through_width().map_err(unusable)?;
            (ContextEntry::pass_through(widest, dids::IDENTITY), None)
        } else {
            let (entry, table) = identity_table(&registers, width).inspect_err(|e| {
                pr_err!("vtd{number}: no identity table: error {}\n", e.to_errno());
            })?;
            (entry, Some(table))
        };
        let qi = Qi::new(registers.clone());
        let queue = Arc::pin_init(
            Queue::new(qi, qi::ORDER, qi::TIMEOUT, c"VT-d invalidation queue"),
            GFP_KERNEL,
        )?;
        let faults = FaultLog::new(number, info.segment, registers.clone(), queue.clone())?;
        let dids = Ids::new(dids::FIRST, caps.domain_count())?;
        let tables = Tables::new(coherency(&registers), NUMA_NO_NODE)?;

        UnitRef::new(try_pin_init!(Self {
            number,
            info,
            platform,
            registers,
            width,
            identity,
            identity_table <- new_mutex!(identity_table, "vtd identity table"),
            dids,
            faults,
            fault_irq <- new_mutex!(None, "vtd fault interrupt"),
            queue,
            tables <- new_mutex!(Some(tables), "vtd tables"),
        }? Error))
    }

    /// Starts the queue and the fault interrupt, and points the unit at the root
    /// table. Translation stays off.
    ///
    /// Context: may sleep. Errors, with a message: `ETIMEDOUT`, `EIO`, `ENOSPC`.
    pub(crate) fn start(&self) -> Result {
        self.try_start().inspect_err(|e| {
            pr_err!(
                "vtd{}: unit does not start: error {}\n",
                self.number,
                e.to_errno()
            );
        })
    }

    fn try_start(&self) -> Result {
        let registers = &self.registers;
        self.faults.discard();
        registers.start_queue(self.queue.base_phys(), qi::ORDER.into())?;

        let root = self.tables.lock().as_ref().map(Tables::phys);
        registers.flush_write_buffer()?;
        registers.set_root(root.ok_or(ENODEV)?)?;
        let drain = Drain::all(registers.caps());
        let _ = self.queue.submit(&[
            Descriptor::context_cache_global().words(),
            Descriptor::iotlb_global(drain).words(),
        ])?;

        let name = CString::try_from_fmt(fmt!("rust-vtd{}", self.number))?;
        let irq = MsiIrq::request(self.faults.clone(), &name)?;
        *self.fault_irq.lock() = Some(irq);
        Ok(())
    }

    /// Switches translation on: from here on, what has no entry is refused.
    ///
    /// Errors, with a message: `ETIMEDOUT`.
    pub(crate) fn enable(&self) -> Result {
        let registers = &self.registers;
        registers
            .translation(true)
            .and_then(|()| registers.open_protected_memory())
            .inspect_err(|_| {
                pr_err!("vtd{}: unit does not switch translation on\n", self.number);
            })?;
        let caps = registers.caps();
        pr_info!(
            "vtd{}: unit at {:#x}: {}-bit second-stage tables{}{}{}\n",
            self.number,
            self.info.base,
            self.width.bits(),
            if caps.caching_mode() {
                ", caching mode"
            } else {
                ""
            },
            if caps.coherent() {
                ""
            } else {
                ", non-coherent walks"
            },
            if self.identity_table.lock().is_some() {
                ", identity by table"
            } else {
                ""
            },
        );
        Ok(())
    }

    /// Switches translation off: DMA goes on untranslated.
    ///
    /// Errors, with a message: `ETIMEDOUT`; the unit then keeps its tables for ever.
    pub(crate) fn disable(&self) -> Result {
        self.registers.translation(false).inspect_err(|_| {
            pr_err!("vtd{}: unit does not switch translation off\n", self.number);
        })
    }

    /// Ends the fault interrupt and the queue, after which nothing of the unit calls
    /// into this module. Context: may sleep.
    pub(crate) fn shut_down(&self) {
        let irq = self.fault_irq.lock().take();
        drop(irq);
        if self.registers.stop_queue().is_err() {
            pr_err!("vtd{}: unit does not stop its queue\n", self.number);
            // The unit may read the ring and write to it: its memory is given up.
            core::mem::forget(self.queue.clone());
        }
    }

    /// Whether this unit translates the device with this path.
    pub(crate) fn owns(&self, path: &Path) -> bool {
        self.platform.owner(path) == Some(self.info.base)
    }

    /// The firmware's tables.
    pub(crate) fn platform(&self) -> &Platform {
        &self.platform
    }

    /// The unit's registers.
    pub(crate) fn registers(&self) -> &Registers {
        &self.registers
    }

    /// The fault log.
    pub(crate) fn faults(&self) -> &FaultLog {
        &self.faults
    }

    /// The invalidation queue.
    pub(crate) fn queue(&self) -> &Queue<Qi> {
        &self.queue
    }

    /// The slot of a device; see [`Tables::slot`].
    pub(crate) fn slot(&self, aliases: &AliasSet, purpose: Purpose) -> Result<Slot> {
        let mut tables = self.tables.lock();
        (*tables).as_mut().ok_or(ENODEV)?.slot(aliases, purpose)
    }

    /// A domain id. Context: may sleep. Errors: `ENOSPC`, `ENOMEM`.
    pub(crate) fn tag(&self) -> Result<Id> {
        Id::new(&self.dids)
    }

    /// Domain ids in use: one for each paging domain that is attached here. Context: may sleep.
    pub(crate) fn tags(&self) -> usize {
        self.dids.used()
    }

    /// The context entry for a target.
    pub(crate) fn entry(&self, target: &Target<'_, Vtd>) -> ContextEntry {
        match target {
            Target::Blocked => ContextEntry::blocked(),
            Target::Identity => self.identity,
            Target::Paging { root, tag } => {
                let width = Width::from_aw(root.address_width).unwrap_or(self.width);
                // generic_pt's tables are pages. If one were not, refusing DMA is safe.
                TableAddress::new(root.phys).map_or(ContextEntry::blocked(), |address| {
                    ContextEntry::paging(address, width, dids::of(tag))
                })
            }
        }
    }

    /// How tables for this unit's paging domains are made.
    pub(crate) fn table_config(&self) -> VtdssConfig {
        table_config(&self.registers, self.width)
    }

    /// Whether a table made for some unit works on this one.
    pub(crate) fn accepts(&self, config: &VtdssConfig) -> bool {
        let caps = self.registers.caps();
        let depth = config.top_level.checked_sub(1);
        depth.is_some_and(|aw| (caps.sagaw() >> aw) & 1 != 0)
            && u32::from(config.address_bits) <= caps.mgaw()
            && config.page_sizes & !caps.page_sizes() == 0
            && (config.incoherent || caps.coherent())
    }
}

fn coherency(registers: &Registers) -> Coherency {
    if registers.caps().coherent() {
        Coherency::Snooped
    } else {
        Coherency::Flush
    }
}

fn table_config(registers: &Registers, width: Width) -> VtdssConfig {
    let caps = registers.caps();
    VtdssConfig {
        // CAST: at most 57.
        address_bits: caps.iova_bits(width) as u8,
        top_level: width.top_level(),
        output_bits: OUTPUT_BITS,
        page_sizes: caps.page_sizes(),
        incoherent: !caps.coherent(),
        force_writable: false,
    }
}

/// An identity domain for units without pass-through entries: a table that maps
/// every address to itself, up to the end of RAM at least.
///
/// Errors: `ERANGE` if the unit does not reach all RAM; `ENOMEM`.
fn identity_table(registers: &Registers, width: Width) -> Result<(ContextEntry, Pin<KBox<Vtdss>>)> {
    let caps = registers.caps();
    let reach = 1u64 << caps.iova_bits(width);
    let ram = memory::top_of_ram();
    if ram > reach {
        return Err(ERANGE);
    }
    // Devices' own memory, above RAM, costs little with large pages only.
    let wanted = if caps.pages_1g() {
        1 << IDENTITY_BITS_1G
    } else {
        ram.max(1 << 32)
    };
    let config = table_config(registers, width);
    let mut table = KBox::pin_init(Vtdss::new(config, NUMA_NO_NODE), GFP_KERNEL)?;
    table
        .as_mut()
        .map_own(0, 0, wanted.next_multiple_of(1 << 30).min(reach))?;
    let root = table.root();
    let address = TableAddress::new(root.phys).map_err(|_| EINVAL)?;
    Ok((ContextEntry::paging(address, width, dids::IDENTITY), table))
}

#[pinned_drop]
impl PinnedDrop for Unit {
    fn drop(self: Pin<&mut Self>) {
        let off = self.disable();
        self.shut_down();
        if off.is_err() {
            core::mem::forget(self.tables.lock().take());
            core::mem::forget(self.identity_table.lock().take());
        }
    }
}
