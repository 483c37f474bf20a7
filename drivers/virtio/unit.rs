// SPDX-License-Identifier: GPL-2.0

//! One unit: what it is made of, and how it is started and stopped.

use crate::{
    config::{
        self,
        Config, //
    },
    driver::{
        Endpoint,
        Virtio, //
    },
    faults::Faults,
    options::Options,
    platform::Platform,
    probe,
    request::{
        self,
        judge,
        Status,
        Verdict,
        TAIL, //
    },
    slots::{
        Kind,
        Place,
        Slot,
        Slots, //
    },
};
use iommu::{
    ids::{
        Id,
        Ids, //
    },
    pci::Function,
    pt::RemoteConfig,
    sharing::Purpose,
    source_id::{
        AliasSet,
        SourceId, //
    },
    unit::UnitRef,
    virtio::{
        Answer,
        Device,
        Judge,
        Request,
        RequestQueue, //
    },
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex, //
    },
};

/// Says what the device's answers mean.
pub(crate) struct Answers {
    /// The domain of blocked endpoints.
    blocked: u32,
    refusals: Atomic<u32>,
    attaches: [Atomic<u32>; Self::ATTACHES],
}

impl Answers {
    /// Endpoint ids are told apart by so many; two that are not are put into their domains once more than
    /// necessary.
    const ATTACHES: usize = 64;

    fn new(blocked: u32) -> Self {
        Self {
            blocked,
            refusals: Atomic::new(0),
            attaches: [const { Atomic::new(0) }; Self::ATTACHES],
        }
    }

    /// A number that changes whenever the device refuses to put an endpoint id into a domain.
    pub(crate) fn refused_attaches(&self, id: u32) -> u32 {
        self.attaches_of(id).map_or(0, |count| count.load(Relaxed))
    }

    fn attaches_of(&self, id: u32) -> Option<&Atomic<u32>> {
        // CAST: u32 to usize, lossless.
        self.attaches.get(id as usize % Self::ATTACHES)
    }
}

impl Judge for Answers {
    fn judge(&self, request: &Request, answer: &Answer) -> Result {
        let status = Status::read(answer.bytes, answer.written, TAIL);
        let verdict = judge(request.bytes(), status, self.blocked);
        let attach = request::attached(request.bytes()).filter(|_| verdict != Verdict::Done);
        if let Some(count) = attach.and_then(|id| self.attaches_of(id)) {
            count.fetch_add(1, Relaxed);
        }
        match verdict {
            Verdict::Done => Ok(()),
            Verdict::NoMemory => Err(ENOMEM),
            Verdict::Failed => Err(EIO),
        }
    }

    #[cold]
    fn report(&self, request: &Request, answer: &Answer) {
        /// Refusals that are told one by one; the rest is counted (`refused` of `stats`).
        const TOLD: u32 = 10;

        if self.refusals.load(Relaxed) < TOLD && self.refusals.fetch_add(1, Relaxed) < TOLD {
            let status = Status::read(answer.bytes, answer.written, TAIL);
            pr_err!(
                "the device refused a request {}: {status:?}\n",
                request::name(request.bytes())
            );
        }
    }
}

/// A domain's number on a unit.
pub(crate) struct Tag {
    id: Id,
    first: u32,
}

impl Tag {
    /// The number, as the device has it.
    pub(crate) fn domain(&self) -> u32 {
        self.first + u32::from(self.id.get())
    }
}

/// A unit. Lock order: `slots`, then the framework's slot lock, then the ids' own.
#[pin_data]
pub(crate) struct Unit {
    number: u32,
    id: SourceId,
    platform: Arc<Platform>,
    config: Config,
    /// Identity domains map all addresses.
    identity_map: bool,
    ids: Arc<Ids>,
    faults: Arc<Faults>,
    queue: RequestQueue<Answers>,
    #[pin]
    slots: Mutex<Slots>,
}

impl Unit {
    /// Takes a unit over without changing what its endpoints reach.
    ///
    /// Errors, each with a message: `ENODEV` for a device that this driver cannot drive; `ENOMEM`.
    pub(crate) fn take_over(
        number: u32,
        device: Arc<Device>,
        platform: Arc<Platform>,
        options: &Options,
    ) -> Result<UnitRef<Virtio>> {
        let Some(function) = Function::from_device(device.parent()) else {
            pr_err!("viommu{number}: not a PCI function\n");
            return Err(ENODEV);
        };
        let id = function.source_id();
        let has = |bit| device.has_feature(bit).unwrap_or(false);
        let mut bytes = [0; config::SIZE];
        if let Some(there) = bytes.get_mut(..config::size(has)) {
            device.read_config(0, there)?;
        }
        let config = Config::decode(&bytes, has).map_err(|e| {
            pr_err!("viommu{number}: {}\n", core::format_args!("{e}"));
            ENODEV
        })?;
        let faults = Faults::new(number, id, platform.clone())?;
        device.handle_events(faults.clone());
        // Numbers are counted from the first domain on.
        let domains = (config.last_domain - config.first_domain).saturating_add(1);
        let ids = Ids::new(0, domains.min(1 << 16))?;
        let bypass = match (config.has_bypass, config.bypass_before) {
            (true, true) => "was on",
            (true, false) => "was off",
            (false, _) => "cannot be switched",
        };
        pr_info!(
            "viommu{number}: unit at {id}: addresses {:#x}..={:#x}, bypass {bypass}\n",
            config.start,
            config.last
        );
        UnitRef::new(try_pin_init!(Self {
            number,
            id,
            platform,
            identity_map: options.identity_map || !config.has_bypass,
            config,
            ids,
            faults,
            queue: RequestQueue::new(device, Answers::new(config.blocked)),
            slots <- new_mutex!(Slots::new(), "virtio iommu slots"),
        }? Error))
    }

    /// Endpoints in no domain are refused from here on.
    ///
    /// Errors, with a message: `EIO`, `ENODEV`.
    pub(crate) fn enable(&self) -> Result {
        if self.config.has_bypass {
            self.set_bypass(false).inspect_err(|e| {
                pr_err!(
                    "viommu{}: bypass cannot be switched off: error {}\n",
                    self.number,
                    e.to_errno()
                );
            })?;
        }
        Ok(())
    }

    /// Leaves the device as it was found.
    ///
    /// Errors, with a message: `EIO` if what was let through when it was found is not any more.
    pub(crate) fn disable(&self) -> Result {
        let restored = if self.config.has_bypass && self.config.bypass_before {
            self.set_bypass(true).and_then(|()| self.detach_all())
        } else {
            Ok(())
        };
        // It forgets all endpoints and domains.
        self.queue.device().reset();
        match restored {
            // A device that was taken away has nothing to be left in.
            Ok(()) | Err(ENODEV) => Ok(()),
            Err(e) => {
                pr_err!(
                    "viommu{}: DMA cannot be let through again: error {}\n",
                    self.number,
                    e.to_errno()
                );
                Err(e)
            }
        }
    }

    /// Takes all endpoints out of their domains. A reset is to do that, but QEMU's virtio-iommu (seen with
    /// 11.1) leaves them there. Errors: the first one; all are tried.
    fn detach_all(&self) -> Result {
        let mut sent = Ok(());
        self.slots.lock().for_each_placed(|endpoint, domain| {
            let detach = request::detach(domain, endpoint);
            let answer = self.queue.exchange(detach.bytes(), TAIL);
            // What it is does not matter: an endpoint that was unplugged is not known any more.
            sent = sent.and(answer.map(drop));
        });
        sent
    }

    fn set_bypass(&self, on: bool) -> Result {
        let device = self.queue.device();
        device.write_config(config::BYPASS, on.into())?;
        let mut value = [0];
        device.read_config(config::BYPASS, &mut value)?;
        if (value != [0]) == on {
            Ok(())
        } else {
            Err(EIO)
        }
    }

    /// The device.
    pub(crate) fn device(&self) -> &kernel::device::Device {
        self.queue.device().parent()
    }

    /// Its requests.
    pub(crate) fn queue(&self) -> &RequestQueue<Answers> {
        &self.queue
    }

    /// What it reported.
    pub(crate) fn faults(&self) -> &Faults {
        &self.faults
    }

    /// How many domain numbers are in use.
    pub(crate) fn domains(&self) -> usize {
        self.ids.used()
    }

    /// Whether DMA of devices that are there has passed until now, and is to go on.
    pub(crate) fn has_let_through(&self) -> bool {
        self.config.bypass_before || !self.config.has_bypass
    }

    /// What can be mapped.
    pub(crate) fn table_config(&self) -> RemoteConfig {
        RemoteConfig {
            start: self.config.start,
            last: self.config.last,
            page_sizes: self.config.page_sizes,
            mmio: self.config.has_mmio,
        }
    }

    /// Bits of a DMA address; `None` where what can be mapped is not all addresses of so many bits.
    pub(crate) fn address_bits(&self) -> Option<u32> {
        self.config.address_bits()
    }

    /// A domain's number. Errors: `ENOSPC`, `ENOMEM`.
    pub(crate) fn tag(&self) -> Result<Tag> {
        Ok(Tag {
            id: Id::new(&self.ids)?,
            first: self.config.first_domain,
        })
    }

    /// The endpoint id of a function here; `None` if it is not behind this unit.
    pub(crate) fn endpoint_id(&self, function: SourceId) -> Option<u32> {
        let (unit, endpoint) = self.platform.endpoint(function)?;
        (unit == self.id).then_some(endpoint)
    }

    /// Facts of a device: its endpoint ids, as far as the device knows them, and what is reserved.
    ///
    /// Context: may sleep. Errors, with a message: `ENODEV` if the device knows none of them, `EIO`,
    /// `ETIMEDOUT`; `ENOMEM`.
    pub(crate) fn endpoint(&self, source: SourceId, aliases: &AliasSet) -> Result<Endpoint> {
        let mut endpoint = Endpoint::new(source);
        for alias in aliases.iter() {
            // Another unit's: requests under this id do not come here.
            let Some(id) = self.endpoint_id(alias) else {
                continue;
            };
            if self.config.probe_size == 0 || self.probe(id, &mut endpoint)? {
                endpoint.ids.push(id, GFP_KERNEL)?;
            }
        }
        if endpoint.ids.is_empty() {
            pr_err!("{source}: the device knows none of its endpoint ids\n");
            return Err(ENODEV);
        }
        Ok(endpoint)
    }

    /// Asks for the properties of an endpoint id. Whether the device knows it: a bridge's id under
    /// which nothing comes need not be known.
    fn probe(&self, id: u32, endpoint: &mut Endpoint) -> Result<bool> {
        // CAST: u32 to usize, lossless; 64 KiB at most.
        let size = self.config.probe_size as usize;
        let message = request::probe(id);
        let answer = self
            .queue
            .exchange(&message, size + TAIL)
            .inspect_err(|e| {
                pr_err!(
                    "{}: no properties: error {}\n",
                    endpoint.source,
                    e.to_errno()
                );
            })?;
        let (properties, tail) = answer.split_at_checked(size).ok_or(EIO)?;
        let tail = tail.first_chunk::<TAIL>().copied().ok_or(EIO)?;
        let status = Status::read(tail, answer.len(), size + TAIL);
        if status == Status::NoEntry {
            return Ok(false);
        }
        if judge(&message, status, self.config.blocked) != Verdict::Done {
            pr_err!(
                "{}: no properties: the device says {status:?}\n",
                endpoint.source
            );
            return Err(EIO);
        }
        let mut pushed = Ok(());
        let parsed = probe::for_each_reserved(properties, |region| {
            let known = endpoint.reserved.contains(&region);
            if !known && pushed.is_ok() {
                pushed = endpoint.reserved.push(region, GFP_KERNEL);
            }
        });
        pushed?;
        parsed.map_err(|e| {
            pr_err!(
                "{}: its properties are malformed: {}\n",
                endpoint.source,
                core::format_args!("{e}")
            );
            EIO
        })?;
        Ok(true)
    }

    fn blocked(&self) -> Place {
        Place {
            domain: self.config.blocked,
            kind: Kind::Blocked,
        }
    }

    /// The place of a target. `None`: identity, in a domain that is to be mapped one to one.
    pub(crate) fn place(&self, slot: &Slot, target: &crate::driver::Target<'_>) -> Place {
        use iommu::driver::Target;
        match target {
            Target::Blocked => self.blocked(),
            Target::Identity => match slot.identity() {
                Some(id) => Place {
                    domain: self.config.first_domain + u32::from(id.get()),
                    kind: Kind::Mapped,
                },
                None => Place {
                    domain: self.config.bypass,
                    kind: Kind::Bypass,
                },
            },
            Target::Paging { tag, .. } => Place {
                domain: tag.domain(),
                kind: Kind::Mapped,
            },
        }
    }

    /// Bytes of the smallest page.
    pub(crate) fn page(&self) -> u64 {
        self.config.page_sizes & self.config.page_sizes.wrapping_neg()
    }

    /// The slot of a device. Context: may sleep. Errors: `EBUSY`, `ENOMEM`, `ENOSPC`.
    pub(crate) fn slot(&self, endpoint: &Endpoint, purpose: Purpose) -> Result<Slot> {
        let identity = if self.identity_map {
            Some(Id::new(&self.ids)?)
        } else {
            None
        };
        self.slots
            .lock()
            .slot(&endpoint.ids, purpose, self.blocked(), identity)
    }
}
