// SPDX-License-Identifier: GPL-2.0
//
// Device locks are given back by the thread that took them, and only the end of a
// registration takes them.

include!("common/toy.rs");

use iommu::{
    freeze::Frozen,
    registration::Registration, //
};

fn send<T: Send>(_: T) {}

fn end(registration: Registration<Toy>) -> Option<Frozen> {
    registration.end().ok()
}

#[cfg(wrong)]
fn wrong(registration: Registration<Toy>) {
    let Some(frozen) = end(registration) else {
        return;
    };
    send(&frozen); //~ E0277 cannot be shared between threads safely
    send(frozen); //~ E0277 cannot be sent between threads safely
    let _ = Frozen::new::<Toy>(); //~ E0624 associated function `new` is private
}
