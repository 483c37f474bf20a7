// SPDX-License-Identifier: GPL-2.0

//! Reports of refused DMA, from the event queue.

use crate::{
    driver::Virtio,
    event::{
        Fault,
        SIZE, //
    },
    platform::Platform,
};
use iommu::{
    fault::Reports,
    ratelimit::RateLimit,
    source_id::SourceId,
    virtio::{
        EventHandler,
        EVENT_MAX, //
    },
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    },
};

/// A device that keeps doing what is refused must not fill the log.
const SECONDS: u32 = 5;
const MESSAGES: u32 = 10;

/// The faults of one unit.
#[pin_data]
pub(crate) struct Faults {
    number: u32,
    unit: SourceId,
    platform: Arc<Platform>,
    #[pin]
    limit: RateLimit,
    #[pin]
    reports: Reports<Virtio>,
    reported: Atomic<u64>,
    malformed: Atomic<u64>,
}

impl Faults {
    /// Those of unit number `number`. Errors: `ENOMEM`.
    pub(crate) fn new(number: u32, unit: SourceId, platform: Arc<Platform>) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                number,
                unit,
                platform,
                limit <- RateLimit::new(SECONDS, MESSAGES),
                reports <- Reports::new(),
                reported: Atomic::new(0),
                malformed: Atomic::new(0),
            }),
            GFP_KERNEL,
        )
    }

    /// Refused requests that the device reported. It does not report all of a burst.
    pub(crate) fn reported(&self) -> u64 {
        self.reported.load(Relaxed)
    }

    /// Reports to those who use the devices.
    pub(crate) fn reports(&self) -> &Reports<Virtio> {
        &self.reports
    }

    /// Reports that were no reports.
    pub(crate) fn malformed(&self) -> u64 {
        self.malformed.load(Relaxed)
    }
}

impl EventHandler for Faults {
    fn event(&self, bytes: &[u8; EVENT_MAX], written: usize) {
        let report = bytes.first_chunk::<SIZE>();
        let Some(fault) = report.and_then(|report| Fault::decode(report, written)) else {
            self.malformed.fetch_add(1, Relaxed);
            if self.limit.allows() {
                pr_err!("viommu{}: a report of {written} bytes\n", self.number);
            }
            return;
        };
        self.reported.fetch_add(1, Relaxed);
        let source = self.platform.function(self.unit, fault.endpoint);
        if let Some(refused) = source.and_then(|source| fault.refused(source)) {
            self.reports.report(refused);
        }
        if !self.limit.allows() {
            return;
        }
        let number = self.number;
        match source {
            Some(id) => pr_err!(
                "viommu{number}: DMA fault: {id}: {}\n",
                core::format_args!("{fault}")
            ),
            None => pr_err!(
                "viommu{number}: DMA fault: endpoint {:#x}: {}\n",
                fault.endpoint,
                core::format_args!("{fault}")
            ),
        }
    }
}
