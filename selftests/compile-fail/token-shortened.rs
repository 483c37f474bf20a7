// SPDX-License-Identifier: GPL-2.0
//
// A permit has the lifetime that it was made for: no shorter one, and no longer one.

include!("common/toy.rs");

fn same<'a, 'b>(permit: &'b Permit<'a>) -> &'b Permit<'a> {
    permit
}

#[cfg(wrong)]
fn shorten<'a, 'b>(permit: &'b Permit<'a>) -> &'b Permit<'b> {
    permit //~ error lifetime may not live long enough
}

#[cfg(wrong)]
fn lengthen<'a>(permit: Permit<'a>) -> Permit<'static> {
    permit //~ error lifetime may not live long enough
}
