// SPDX-License-Identifier: GPL-2.0

//! What a driver left mapped when it went.

use crate::{
    driver::Driver,
    endpoint::{
        Bound,
        Device,
        State, //
    }, //
};

pub(crate) fn report<D: Driver>(device: &Device<D>, driver: &Bound) {
    let place = device.place.lock();
    let State::Paging(at) = &place.state else {
        return;
    };
    let _ = (at, driver);
}
