// SPDX-License-Identifier: GPL-2.0
//
// Names for cases about the ownership of DMA.

use iommu::{
    consumer::UserDomain,
    owner::{
        DmaOwner,
        OwnerKey, //
    },
};
use kernel::{
    device::{
        Bound,
        Device, //
    },
    prelude::*,
    sync::Arc, //
};
