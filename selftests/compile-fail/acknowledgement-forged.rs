// SPDX-License-Identifier: GPL-2.0
//
// It comes from a queue, one for each submission that was acknowledged.

include!("common/toy.rs");

use iommu::queue::Synced;

fn right(unit: &Unit) -> Result<Synced> {
    unit.0.submit(&[[1, 0]])
}

#[cfg(wrong)]
fn forged(unit: &Unit, synced: &Synced, failed: Result<Synced>) {
    let _: Synced = synced.clone(); //~ E0308 mismatched types
    let _: Synced = Synced::nothing_cached(); //~ E0624 function `nothing_cached` is private
    let _: Synced = Default::default(); //~ E0277 Default
    let _: Synced = ().into(); //~ E0277 `Synced: From<()>` is not satisfied
    let _: Synced = unit.0.submit(&[[1, 0]]); //~ E0308 mismatched types
    let _: Synced = failed.unwrap_or(()); //~ E0308 mismatched types
}
