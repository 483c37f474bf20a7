// SPDX-License-Identifier: GPL-2.0

//! Domain ids of one unit.

use crate::context::Did;
use iommu::ids::Id;

/// Ids that no paging domain gets: 0 is how caching mode marks what is not present
/// (VT-d specification, section 6.1), 1 is that of pass-through entries.
pub(crate) const FIRST: u16 = 2;

/// The id of every entry that passes DMA through.
pub(crate) const IDENTITY: Did = Did::new(1);

/// The domain id that a tag stands for.
pub(crate) fn of(tag: &Id) -> Did {
    Did::new(tag.get())
}
