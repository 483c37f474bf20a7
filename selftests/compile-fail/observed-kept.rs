// SPDX-License-Identifier: GPL-2.0
//
// What an observer of the bus is shown is gone when it is removed.

use iommu::pci::{
    notifier::PciObserver,
    Function, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::Mutex, //
};

#[pin_data]
struct Keeper {
    #[pin]
    last: Mutex<Option<Function<'static>>>,
}

impl PciObserver for Keeper {
    fn added(&self, function: &Function<'_>) {
        let _ = function.source_id();
        #[cfg(wrong)]
        {
            *self.last.lock() = Some(*function); //~ E0521 borrowed data escapes outside of method
        }
    }
}

fn keeper() -> impl PinInit<Keeper> {
    pin_init!(Keeper {
        last <- new_mutex!(None),
    })
}
