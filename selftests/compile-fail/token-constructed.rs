// SPDX-License-Identifier: GPL-2.0
//
// Its parts are private.

include!("common/toy.rs");

#[cfg(wrong)]
fn constructed() -> Permit<'static> {
    Permit(core::marker::PhantomData, kernel::types::NotThreadSafe) //~ E0423 private fields
}
