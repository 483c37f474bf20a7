// SPDX-License-Identifier: GPL-2.0

//! One IOMMU: what it is made of, and how it is started and stopped.

use crate::{
    command::Command,
    commands::{
        self,
        Commands, //
    },
    driver::AmdVi,
    dte::{
        DeviceEntry,
        DomainId,
        TableRoot, //
    },
    events::{
        self,
        EventLog, //
    },
    options::Options,
    platform::{
        Platform,
        UnitInfo, //
    },
    registers::Registers,
    regs::{
        self,
        Capability, //
    },
    table::{
        DeviceTable,
        Slot, //
    },
};
use iommu::{
    driver::Target,
    ids::{
        Id,
        Ids, //
    },
    irq::MsiIrq,
    pci::{
        self,
        msi::Message,
        OwnedFunction, //
    },
    pt::AmdV1Config,
    queue::Queue,
    sharing::Purpose,
    source_id::{
        AliasSet,
        SourceId, //
    },
    unit::UnitRef, //
};
use kernel::{
    new_mutex,
    prelude::*,
    str::CString,
    sync::{
        Arc,
        Mutex, //
    },
};

/// Physical address bits that table entries can hold.
const OUTPUT_BITS: u8 = 52;

/// The domain ids of entries without a table of a domain: of those that block, and of those that pass
/// DMA through. Caches are looked up by the id, so entries with one id must mean the same. Paging
/// domains have ids from 3 on, 0 is not used.
const BLOCKED: DomainId = DomainId::new(1);
pub(crate) const IDENTITY: DomainId = DomainId::new(2);
const FIRST: u16 = 3;
const DOMAIN_IDS: u32 = 1 << 16;

/// How many commands are submitted at once where the caches are emptied one by one.
const CHUNK: usize = 32;

/// An IOMMU. Lock order: the framework's `iommu endpoint slot`, then `iommu shared entries` of the table or
/// `iommu_queue`, then `amdvi control`.
#[pin_data(PinnedDrop)]
pub(crate) struct Unit {
    number: u32,
    info: UnitInfo,
    platform: Arc<Platform>,
    capability: Capability,
    registers: Arc<Registers>,
    levels: u8,
    ids: Arc<Ids>,
    events: Arc<EventLog>,
    #[pin]
    interrupt: Mutex<Option<MsiIrq<EventLog>>>,
    queue: Arc<Queue<Commands>>,
    table: Arc<DeviceTable>,
}

/// The IOMMU's own function, and the capability block in it. Errors, with a message: `ENODEV`, `EIO`.
fn function(number: u32, info: &UnitInfo) -> Result<(OwnedFunction, Capability)> {
    let Some(function) = pci::find(info.function) else {
        pr_err!("amdvi{number}: there is no function {}\n", info.function);
        return Err(ENODEV);
    };
    let header = function.get().config32(info.capability).unwrap_or(u32::MAX);
    let Some(capability) = Capability::new(header) else {
        pr_err!(
            "amdvi{number}: {} has no IOMMU's capability at {:#x}\n",
            info.function,
            info.capability
        );
        return Err(ENODEV);
    };
    Ok((function, capability))
}

impl Unit {
    /// Takes an IOMMU over without changing what it does to DMA.
    ///
    /// Errors, each with a message: see [`Registers::request`]; `ENODEV` for one
    /// that this driver cannot drive; `ENOMEM`.
    pub(crate) fn take_over(
        number: u32,
        info: UnitInfo,
        platform: Arc<Platform>,
        options: &Options,
    ) -> Result<UnitRef<AmdVi>> {
        let (function, capability) = function(number, &info)?;
        let registers = Registers::request(info.base, info.flags, capability.has_features())?;
        let levels = info
            .table_levels(registers.features(), options.levels)
            .map_err(|e| {
                pr_err!("amdvi{number}: {}\n", core::format_args!("{e}"));
                ENODEV
            })?;
        let message = Message::of(function.get()).inspect_err(|e| {
            pr_err!(
                "amdvi{number}: {} has no message for events: error {}\n",
                info.function,
                e.to_errno()
            );
        })?;
        let queue = Arc::pin_init(
            Queue::new(
                Commands::new(registers.clone()),
                commands::ORDER,
                commands::TIMEOUT,
                c"AMD-Vi command buffer",
            ),
            GFP_KERNEL,
        )?;
        let segment = info.function.segment();
        let events = EventLog::new(number, segment, registers.clone(), queue.clone(), message)?;
        let ids = Ids::new(FIRST, DOMAIN_IDS)?;
        let settings = platform.settings(info.base);
        let table = DeviceTable::new(info.last_id, BLOCKED, settings).inspect_err(|e| {
            pr_err!("amdvi{number}: no device table: error {}\n", e.to_errno());
        })?;

        UnitRef::new(try_pin_init!(Self {
            number,
            info,
            platform,
            capability,
            registers,
            levels,
            ids,
            events,
            interrupt <- new_mutex!(None, "amdvi event interrupt"),
            queue,
            table,
        }? Error))
    }

    /// Tells the IOMMU where its table and its rings are, and requests its interrupt. Translation stays
    /// off.
    ///
    /// Context: may sleep. Errors, with a message: `ETIMEDOUT`, `ENOSPC`, `ENOMEM`.
    pub(crate) fn start(&self) -> Result {
        self.try_start().inspect_err(|e| {
            pr_err!(
                "amdvi{}: unit does not start: error {}\n",
                self.number,
                e.to_errno()
            );
        })
    }

    fn try_start(&self) -> Result {
        self.registers.set_up(
            self.table.base(),
            regs::ring_base(self.queue.base_phys(), commands::ORDER),
            regs::ring_base(self.events.phys(), events::ORDER),
        )?;
        let name = CString::try_from_fmt(fmt!("rust-amdvi{}", self.number))?;
        let interrupt = MsiIrq::request(self.events.clone(), &name)?;
        *self.interrupt.lock() = Some(interrupt);
        Ok(())
    }

    /// Switches translation on: from here on, what has no entry is refused.
    ///
    /// Context: may sleep. Errors, with a message: `ETIMEDOUT`, `EIO`.
    pub(crate) fn enable(&self) -> Result {
        self.registers
            .enable()
            .and_then(|()| self.empty_caches())
            .inspect_err(|_| {
                pr_err!(
                    "amdvi{}: unit does not switch translation on\n",
                    self.number
                );
            })?;
        pr_info!(
            "amdvi{}: unit at {:#x}: {}-bit host tables{}\n",
            self.number,
            self.info.base,
            self.table_config().address_bits(),
            if self.capability.caches_not_present() {
                ", caches what is not mapped"
            } else {
                ""
            },
        );
        Ok(())
    }

    /// Whether entries with this domain id have a paging domain's table.
    pub(crate) fn is_paging(id: DomainId) -> bool {
        id.get() >= FIRST
    }

    /// Invalidates everything.
    fn empty_caches(&self) -> Result {
        if self.registers.features().invalidate_all() {
            return self.queue.submit(&[Command::all().words()]).map(drop);
        }
        let last = u16::try_from(self.table.count() - 1).unwrap_or(u16::MAX);
        self.submit_all((0..=last).map(Command::entry))?;
        let domains = (0..=u16::MAX).map(DomainId::new);
        self.submit_all(domains.map(Command::domain))
    }

    fn submit_all(&self, commands: impl Iterator<Item = Command>) -> Result {
        let mut chunk = [[0; 2]; CHUNK];
        let mut used = 0;
        for command in commands {
            if let Some(place) = chunk.get_mut(used) {
                *place = command.words();
                used += 1;
            }
            if used == CHUNK {
                let _ = self.queue.submit(&chunk)?;
                used = 0;
            }
        }
        let _ = self.queue.submit(chunk.get(..used).unwrap_or(&[]))?;
        Ok(())
    }

    /// Switches translation off: DMA goes on untranslated.
    ///
    /// Errors, with a message: `ETIMEDOUT`; the unit then keeps its tables for ever.
    pub(crate) fn disable(&self) -> Result {
        if self.registers.is_running() {
            // Or it might be found when translation is switched on again. If it fails, its queue was given
            // up, and `drop` keeps what may be cached.
            let _ = self.empty_caches();
        }
        self.registers.disable().inspect_err(|_| {
            pr_err!(
                "amdvi{}: unit does not switch translation off\n",
                self.number
            );
        })
    }

    /// Ends the interrupt, after which nothing of the unit calls into this module. Context: may sleep.
    pub(crate) fn shut_down(&self) {
        let interrupt = self.interrupt.lock().take();
        drop(interrupt);
    }

    /// Whether this IOMMU translates the device with this name.
    pub(crate) fn owns(&self, id: SourceId) -> bool {
        self.platform.owner(id) == Some(self.info.base)
    }

    /// The firmware's table.
    pub(crate) fn platform(&self) -> &Platform {
        &self.platform
    }

    /// The registers.
    pub(crate) fn registers(&self) -> &Registers {
        &self.registers
    }

    /// The capability block.
    pub(crate) fn capability(&self) -> Capability {
        self.capability
    }

    /// The event log.
    pub(crate) fn events(&self) -> &EventLog {
        &self.events
    }

    /// The command buffer.
    pub(crate) fn queue(&self) -> &Queue<Commands> {
        &self.queue
    }

    /// The slot of a device; see [`DeviceTable::slot`].
    pub(crate) fn slot(&self, aliases: &AliasSet, purpose: Purpose) -> Result<Slot> {
        self.table.slot(aliases, purpose)
    }

    /// A domain id. Context: may sleep. Errors: `ENOSPC`, `ENOMEM`.
    pub(crate) fn tag(&self) -> Result<Id> {
        Id::new(&self.ids)
    }

    /// Domain ids in use: one for each paging domain that is attached here. Context: may sleep.
    pub(crate) fn tags(&self) -> usize {
        self.ids.used()
    }

    /// The device table entry for a target.
    pub(crate) fn entry(&self, target: &Target<'_, AmdVi>) -> DeviceEntry {
        match target {
            Target::Blocked => self.table.blocked(),
            Target::Identity => DeviceEntry::pass_through(IDENTITY),
            Target::Paging { root, tag } => {
                // generic_pt's tables are pages. If one were not, refusing DMA is safe.
                TableRoot::new(root.phys, root.levels).map_or(self.table.blocked(), |root| {
                    DeviceEntry::paging(root, DomainId::new(tag.get()))
                })
            }
        }
    }

    /// How tables for this unit's paging domains are made.
    pub(crate) fn table_config(&self) -> AmdV1Config {
        AmdV1Config {
            levels: self.levels,
            output_bits: OUTPUT_BITS,
        }
    }

    /// Whether a table made for some unit works on this one.
    pub(crate) fn accepts(&self, config: &AmdV1Config) -> bool {
        self.info
            .table_levels(self.registers.features(), config.levels)
            .is_ok()
    }
}

#[pinned_drop]
impl PinnedDrop for Unit {
    fn drop(self: Pin<&mut Self>) {
        let off = self.disable();
        self.shut_down();
        // QEMU looks at the table for every interrupt of a device, also while the unit is off. A unit
        // whose queue was given up may have entries cached, which name the table of blocked ones.
        if off.is_err() || self.capability.is_emulated() || self.queue.is_broken() {
            self.table.keep();
        }
        if off.is_err() {
            // The unit may read the ring, and write to the log.
            core::mem::forget(self.queue.clone());
            core::mem::forget(self.events.clone());
        }
    }
}
