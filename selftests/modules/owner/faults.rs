// SPDX-License-Identifier: GPL-2.0

//! What is seen of faults of a domain, and how they are answered.
//!
//! A test can hold a handler at `udma.fault`, when it has been called and not begun.

use crate::{
    counters::{
        FAULTS,
        HANDLED, //
    },
    words::answer,
};
use iommu::{
    consumer::{
        Access,
        FaultHandler,
        UserDomain, //
    },
    dma::Buffer,
    inject::reach,
};
use kernel::{
    device::Device,
    dma::DmaAddress,
    new_mutex,
    page::PAGE_SIZE,
    prelude::*,
    str::CString,
    sync::{
        Arc,
        Mutex, //
    },
};

struct Fault {
    device: CString,
    iova: DmaAddress,
    write: bool,
}

#[derive(Default)]
struct Seen {
    count: u64,
    mapped: u64,
    last: Option<Fault>,
}

/// The handler of a domain.
#[pin_data]
pub(crate) struct Watch {
    /// A new page is mapped where there was none.
    maps: bool,
    #[pin]
    seen: Mutex<Seen>,
}

impl Watch {
    pub(crate) fn new(maps: bool) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                maps,
                seen <- new_mutex!(Seen::default()),
            }),
            GFP_KERNEL,
        )
    }

    /// "count N mapped M", and "device ADDRESS iova 0xI read|write" of the last one if there was one.
    pub(crate) fn answer(&self) -> Result<CString> {
        let seen = self.seen.lock();
        let (count, mapped) = (seen.count, seen.mapped);
        match &seen.last {
            None => answer(fmt!("count {count} mapped {mapped}")),
            Some(fault) => {
                let access = if fault.write { "write" } else { "read" };
                answer(fmt!(
                    "count {count} mapped {mapped} device {} iova {:#x} {access}",
                    &*fault.device,
                    fault.iova
                ))
            }
        }
    }
}

/// A call of the handler, from its beginning to its end.
struct Call;

impl Drop for Call {
    fn drop(&mut self) {
        HANDLED.count();
    }
}

impl FaultHandler for Watch {
    fn fault(&self, domain: &UserDomain, dev: &Device, iova: DmaAddress, write: bool) -> Result {
        FAULTS.count();
        let _call = Call;
        // Nothing can fail here: a test only holds this point.
        let _ = reach("udma.fault", Some(dev));
        let fault = Fault {
            device: CString::try_from_fmt(fmt!("{}", dev.name()))?,
            iova,
            write,
        };
        {
            let mut seen = self.seen.lock();
            seen.count += 1;
            seen.last = Some(fault);
        }
        if !self.maps {
            return Err(ENOSYS);
        }
        let page = iova & !(PAGE_SIZE as u64 - 1);
        domain.map(page, Buffer::new(1)?, Access::ReadWrite)?;
        self.seen.lock().mapped += 1;
        Ok(())
    }
}
