// SPDX-License-Identifier: GPL-2.0
//
// What an observer of the bus is shown, functions and drivers, is there for the call.

use iommu::pci::{
    notifier::{
        NewDriver,
        PciObserver, //
    },
    Function, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::Mutex, //
};

struct Last {
    function: Option<Function<'static>>,
    driver: Option<&'static CStr>,
    manages_dma: bool,
}

#[pin_data]
struct Keeper {
    #[pin]
    last: Mutex<Last>,
}

impl PciObserver for Keeper {
    fn removed(&self, function: &Function<'_>) {
        let _ = function.source_id();
        #[cfg(wrong)]
        {
            self.last.lock().function = Some(*function); //~ error lifetime may not live long
        }
    }

    fn will_bind(&self, _function: &Function<'_>, driver: &NewDriver<'_>) {
        self.last.lock().manages_dma = driver.manages_dma;
        #[cfg(wrong)]
        {
            self.last.lock().driver = Some(driver.name); //~ error lifetime may not live long enough
        }
    }
}

fn keeper() -> impl PinInit<Keeper> {
    pin_init!(Keeper {
        last <- new_mutex!(Last {
            function: None,
            driver: None,
            manages_dma: false,
        }),
    })
}
