// SPDX-License-Identifier: GPL-2.0
//
// It is used up by what it allows.

include!("common/toy.rs");

use iommu::queue::Synced;

fn free_one(_: Synced) {}

fn free(synced: Synced) {
    free_one(synced);
    #[cfg(wrong)]
    free_one(synced); //~ E0382 use of moved value: `synced`
}

#[cfg(wrong)]
fn free_another(synced: &Synced) {
    free_one(*synced); //~ E0507 cannot move out of `*synced`
}
