// SPDX-License-Identifier: GPL-2.0
//
// Batches are made, submitted and waited for by the framework.

include!("common/toy.rs");

fn collect(batch: &mut Batch<'_, Toy>) {
    batch.push([1, 0]);
}

#[cfg(wrong)]
fn by_hand(unit: &Unit, batch: Batch<'_, Toy>) {
    let _ = Batch::<Toy>::new(unit); //~ E0624 function `new` is private
    let _ = batch.sync(); //~ E0624 method `sync` is private
}
