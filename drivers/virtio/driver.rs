// SPDX-License-Identifier: GPL-2.0

//! The framework's questions, answered for virtio-iommu.

use crate::{
    probe::{
        for_each_free,
        for_each_not_free,
        Reserved, //
    },
    request,
    slots::{
        Kind,
        Slot, //
    },
    unit::{
        Answers,
        Tag,
        Unit, //
    },
};
use core::fmt;
use iommu::{
    batch::Batch,
    driver::{
        self,
        Counters,
        Driver, //
    },
    fault::Reports,
    invalidation::Invalidation,
    locked::Locked,
    mappings::run::{
        Rights,
        Run, //
    },
    pci::{
        acs,
        Function, //
    },
    pt::{
        Remote,
        RemoteConfig, //
    },
    resv::ResvList,
    sharing::Purpose,
    source_id::SourceId,
    takeover::{
        Kept,
        TakeOver, //
    },
    unit::{
        Probing,
        UnitRef, //
    },
    virtio::{
        Request,
        RequestQueue, //
    },
};
use kernel::{
    device::Device,
    prelude::*, //
};

/// The driver.
pub(crate) struct Virtio;

iommu::ops!(static OPS: Virtio);

/// What an endpoint is to be on.
pub(crate) type Target<'a> = driver::Target<'a, Virtio>;

/// What is known of a device.
pub(crate) struct Endpoint {
    /// The device's own name.
    pub(crate) source: SourceId,
    /// Its endpoint ids.
    pub(crate) ids: KVec<u32>,
    /// Addresses that are not free.
    pub(crate) reserved: KVec<Reserved>,
}

impl Endpoint {
    /// One of which nothing but its name is known.
    pub(crate) fn new(source: SourceId) -> Self {
        Self {
            source,
            ids: KVec::new(),
            reserved: KVec::new(),
        }
    }
}

fn encoded(request: request::Encoded) -> Request {
    let (words, len) = request.words();
    Request::new(words, len)
}

/// Finds the unit of a function, its facts, and where it belongs.
fn find(function: Function<'_>, unit: &Unit) -> Result<Endpoint> {
    unit.endpoint(function.source_id(), &function.aliases()?)
}

#[vtable]
impl Driver for Virtio {
    type Unit = Unit;
    type Endpoint = Endpoint;
    type Slot = Slot;
    type Tag = Tag;
    type Queue = RequestQueue<Answers>;
    type Table = Remote;

    fn device(unit: &Unit) -> Option<&Device> {
        // Without the kernel's own reading of the table, endpoints belong to no device.
        cfg!(CONFIG_ACPI_VIOT).then(|| unit.device())
    }

    fn probe(dev: &Probing<'_, Self>) -> Result<(UnitRef<Self>, Endpoint, Slot)> {
        let function = dev.pci()?;
        let source = function.source_id();
        let unit = dev.find_unit(|unit| unit.endpoint_id(source).is_some())?;
        let endpoint = find(function, &unit)?;
        // A hot-added port passes requests between the devices below it unless told
        // not to; told before the core asks how they are to be grouped.
        if let Err(e) = acs::enable_acs(&function) {
            dev_warn!(function.as_device(), "cannot turn ACS on: {e:?}\n");
        }
        let slot = unit.slot(&endpoint, Purpose::Attach).inspect_err(|e| {
            if *e == EBUSY {
                dev_info!(
                    function.as_device(),
                    "left alone: shares a requester id with a device that keeps its driver\n"
                );
            }
        })?;
        Ok((unit, endpoint, slot))
    }

    fn table_config(unit: &Unit, _endpoint: &Endpoint) -> Result<RemoteConfig> {
        Ok(unit.table_config())
    }

    fn compatible(unit: &Unit, _endpoint: &Endpoint, config: &RemoteConfig) -> Result {
        if unit.table_config() == *config {
            Ok(())
        } else {
            Err(EINVAL)
        }
    }

    fn flush_new_mappings(_unit: &Unit) -> bool {
        false
    }

    fn alloc_tag(unit: &Unit) -> Result<Tag> {
        unit.tag()
    }

    fn program(
        unit: &Unit,
        endpoint: &Endpoint,
        slot: &Locked<'_, Self>,
        target: &Target<'_>,
        batch: &mut Batch<'_, Self>,
    ) {
        let slot = slot.slot();
        let place = unit.place(slot, target);
        let refusals = |id| unit.queue().judge().refused_attaches(id);
        slot.program(place, refusals, |id, place| {
            let bypass = place.kind == Kind::Bypass;
            batch.push(encoded(request::attach(place.domain, id, bypass)));
        });
        if matches!(target, Target::Identity) && place.kind == Kind::Mapped {
            let RemoteConfig { start, last, .. } = unit.table_config();
            batch.push(encoded(request::unmap(place.domain, start, last)));
            let rights = Rights {
                read: true,
                write: true,
                mmio: false,
            };
            for_each_free(
                &endpoint.reserved,
                start,
                last,
                unit.page(),
                |start, bytes| {
                    if let Some(run) = Run::new(start, start, bytes, rights) {
                        batch.push(encoded(request::map(place.domain, &run)));
                    }
                },
            );
        }
    }

    fn invalidate(_unit: &Unit, tag: &Tag, what: &Invalidation, batch: &mut Batch<'_, Self>) {
        // A domain that its last endpoint has left is forgotten by the device itself.
        if let Invalidation::Range { start, last, .. } = what {
            batch.push(encoded(request::unmap(tag.domain(), *start, *last)));
        }
    }

    fn map(_unit: &Unit, tag: &Tag, run: &Run, batch: &mut Batch<'_, Self>) {
        batch.push(encoded(request::map(tag.domain(), run)));
    }

    fn queue(unit: &Unit) -> &RequestQueue<Answers> {
        unit.queue()
    }

    fn counters(unit: &Unit) -> Counters {
        let counters = unit.queue().counters();
        Counters {
            invalidations: counters.by_type.get(4).copied().unwrap_or_default(),
            timeouts: counters.timeouts,
            faults: unit.faults().reported(),
        }
    }

    fn reports(unit: &Unit) -> Option<&Reports<Self>> {
        Some(unit.faults().reports())
    }

    fn resv_regions(_unit: &Unit, endpoint: &Endpoint, list: &mut ResvList<'_>) {
        for_each_not_free(&endpoint.reserved, |region| {
            if region.msi {
                list.add_msi_window(region.start, region.bytes());
            } else {
                list.add_reserved(region.start, region.bytes());
            }
        });
    }
}

impl TakeOver for Virtio {
    const UNIT: &'static CStr = c"viommu";
    const FOLDER: &'static CStr = c"rust_virtio_iommu";

    fn keep(
        units: &[UnitRef<Self>],
        function: Function<'_>,
        purpose: Purpose,
    ) -> Result<Option<Kept<Self>>> {
        let source = function.source_id();
        let found = units.iter().find(|unit| unit.endpoint_id(source).is_some());
        let Some(unit) = found.filter(|unit| unit.has_let_through()) else {
            return Ok(None);
        };
        let endpoint = find(function, unit)?;
        let slot = unit.slot(&endpoint, purpose)?;
        Ok(Some((unit.clone(), endpoint, slot)))
    }

    fn source(endpoint: &Endpoint) -> SourceId {
        endpoint.source
    }

    fn enable(unit: &Unit) -> Result {
        unit.enable()
    }

    fn disable(unit: &Unit) -> Result {
        unit.disable()
    }

    fn shut_down(_unit: &Unit) {}

    fn stats(unit: &Unit, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counters = unit.queue().counters();
        let of = |kind: usize| counters.by_type.get(kind).copied().unwrap_or_default();
        if let Some(bits) = unit.address_bits() {
            writeln!(f, "iova_bits: {bits}")?;
        }
        writeln!(f, "domain_ids: {}", unit.domains())?;
        writeln!(f, "attaches: {}", of(1))?;
        writeln!(f, "maps: {}", of(3))?;
        writeln!(f, "probes: {}", of(5))?;
        writeln!(f, "waits: {}", counters.kicks)?;
        writeln!(f, "refused: {}", counters.refused)?;
        writeln!(f, "malformed_reports: {}", unit.faults().malformed())
    }
}
