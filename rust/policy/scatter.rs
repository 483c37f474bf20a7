// SPDX-License-Identifier: GPL-2.0

//! `map_sg` and `unmap_sg` of [`super::dma_ops`].

use super::{
    dma_ops::{
        mapper,
        Direction, //
    },
    segments::{
        pages,
        Segment,
        Segments, //
    },
};
use crate::{
    bindings,
    driver::Driver, //
};
use kernel::{
    ffi::{
        c_int,
        c_ulong, //
    },
    page::PAGE_SIZE,
    prelude::*, //
};

/// Bits of `page_link`: the entry is none but says where the next one is; it is the last one.
const CHAIN: c_ulong = 1;
const END: c_ulong = 2;

/// `sg_next()`. Each entry is looked at several times, so a call of C code would be much of what a list
/// costs.
///
/// # Safety
///
/// `entry` is an entry of a list that nobody else changes.
#[inline]
unsafe fn next(entry: *mut bindings::scatterlist) -> *mut bindings::scatterlist {
    // SAFETY: By the contract.
    if unsafe { (*entry).page_link } & END != 0 {
        return core::ptr::null_mut();
    }
    // SAFETY: It is not the last one, so something follows it.
    let follower = unsafe { entry.add(1) };
    // SAFETY: As above.
    match unsafe { (*follower).page_link } {
        link if link & CHAIN != 0 => (link & !(CHAIN | END)) as *mut bindings::scatterlist,
        _ => follower,
    }
}

/// What an entry of a list says of memory.
struct Entry {
    at: *mut bindings::scatterlist,
    /// In its first page.
    offset: u64,
    length: u32,
}

impl Entry {
    #[inline]
    fn pages(&self) -> usize {
        pages(self.offset, self.length.into())
    }
}

/// The entries of a list, from the first to the last.
///
/// # Invariants
///
/// `next` is an entry of a list that nobody else changes, unless `left` is 0.
struct Entries {
    next: *mut bindings::scatterlist,
    left: usize,
}

impl Entries {
    /// # Safety
    ///
    /// `list` has `count` entries, and nobody else changes it while the result is used.
    unsafe fn new(list: *mut bindings::scatterlist, count: usize) -> Self {
        // INVARIANT: By the contract.
        Self {
            next: list,
            left: count,
        }
    }
}

impl Iterator for Entries {
    type Item = Entry;

    #[inline]
    fn next(&mut self) -> Option<Entry> {
        self.left = self.left.checked_sub(1)?;
        let at = self.next;
        // SAFETY: An entry, by the type invariant.
        let offset = unsafe { (*at).offset };
        // SAFETY: As above.
        let length = unsafe { (*at).length };
        // SAFETY: As above. INVARIANT: The next one, if there is one.
        self.next = unsafe { next(at) };
        Some(Entry {
            at,
            offset: u64::from(offset) & (PAGE_SIZE as u64 - 1),
            length,
        })
    }
}

/// The pages of a list, one after the other, and again from the first one on.
struct Frames {
    list: *mut bindings::scatterlist,
    count: usize,
    entries: Entries,
    frame: u64,
    left: usize,
}

impl Frames {
    /// # Safety
    ///
    /// As for [`Entries::new`].
    unsafe fn new(list: *mut bindings::scatterlist, count: usize) -> Self {
        Self {
            list,
            count,
            // SAFETY: By the contract.
            entries: unsafe { Entries::new(list, count) },
            frame: 0,
            left: 0,
        }
    }

    /// The physical address of the page at `place`, which is the next one or the first.
    #[inline]
    fn at(&mut self, place: usize) -> u64 {
        if place == 0 {
            // SAFETY: By the contract of `new`.
            self.entries = unsafe { Entries::new(self.list, self.count) };
            self.left = 0;
        }
        while self.left == 0 {
            let Some(entry) = self.entries.next() else {
                // Not present for the hardware: nothing is asked for behind the last page.
                return 0;
            };
            // SAFETY: An entry of the list.
            self.frame = unsafe { bindings::rust_iommu_sg_phys(entry.at) } - entry.offset;
            self.left = entry.pages();
        }
        let frame = self.frame;
        self.frame += PAGE_SIZE as u64;
        self.left -= 1;
        frame
    }
}

/// Where segments are written to: the first entries of the list that they were made of.
///
/// # Invariants
///
/// `next` is an entry of a list that nobody else changes, unless `count` is the number of its entries.
struct Output {
    next: *mut bindings::scatterlist,
    count: c_int,
}

impl Output {
    fn put(&mut self, segment: Segment) {
        // SAFETY: There are not more segments than entries, so this is one.
        unsafe { (*self.next).dma_address = segment.start };
        // SAFETY: As above.
        unsafe { (*self.next).dma_length = segment.length };
        // SAFETY: As above. INVARIANT: The next one, if there is one.
        self.next = unsafe { next(self.next) };
        self.count += 1;
    }

    /// Says where the segments of a list of `count` entries end, unless it is where the list does.
    fn end(self, count: c_int) -> c_int {
        if self.count < count {
            // SAFETY: By the type invariant.
            unsafe { (*self.next).dma_length = 0 };
        }
        self.count
    }
}

/// Whether some of the memory is another device's.
///
/// # Safety
///
/// As for [`Entries::new`].
unsafe fn has_peers(list: *mut bindings::scatterlist, count: usize) -> bool {
    // SAFETY: By the contract.
    let mut entries = unsafe { Entries::new(list, count) };
    // SAFETY: An entry of the list.
    entries.any(|entry| unsafe { bindings::rust_iommu_sg_is_peer(entry.at) })
}

/// # Safety
///
/// Called by the DMA API as this operation.
pub(super) unsafe extern "C" fn map_sg<D: Driver>(
    dev: *mut bindings::device,
    list: *mut bindings::scatterlist,
    count: c_int,
    direction: Direction,
    attrs: c_ulong,
) -> c_int {
    // SAFETY: By the contract.
    let mapper = unsafe { mapper::<D>(dev) };
    // CAST: not negative.
    let entries = count as usize;
    // A driver that has probed with these operations was told that there is no peer-to-peer DMA; one that
    // was there before them may have been told that there is.
    //
    // SAFETY: By the contract.
    if mapper.taken_over && unsafe { has_peers(list, entries) } {
        return EREMOTEIO.to_errno();
    }
    // SAFETY: By the contract.
    let total = unsafe { Entries::new(list, entries) };
    let total = total.map(|entry| entry.pages()).sum();
    // SAFETY: As above.
    let mut frames = unsafe { Frames::new(list, entries) };
    // SAFETY: By the contract.
    let iova = match unsafe { mapper.map(dev, total, direction, |place| frames.at(place)) } {
        Some(Ok(iova)) => iova,
        Some(Err(_)) => return EIO.to_errno(),
        None => {
            let twin = mapper.twin.as_raw();
            // SAFETY: The twin takes what the device does.
            let map = || unsafe { bindings::dma_map_sg_attrs(twin, list, count, direction, attrs) };
            let mapped = mapper.insist(|| Some(map()).filter(|mapped| *mapped > 0));
            // CAST: at most `count`.
            return mapped.map_or(EIO.to_errno(), |mapped| mapped as c_int);
        }
    };
    // SAFETY: A device that a driver maps for.
    let boundary = unsafe { bindings::rust_iommu_seg_boundary(dev) };
    // SAFETY: As above.
    let longest = unsafe { bindings::rust_iommu_max_seg_size(dev) };
    let mut segments = Segments::new(iova, boundary, longest);
    // INVARIANT: The list's first entry, by the contract.
    let mut output = Output {
        next: list,
        count: 0,
    };
    // SAFETY: By the contract; `output` writes to other fields than are read here.
    for entry in unsafe { Entries::new(list, entries) } {
        if let Some(segment) = segments.add(entry.offset, entry.length) {
            output.put(segment);
        }
    }
    if let Some(segment) = segments.last() {
        output.put(segment);
    }
    output.end(count)
}

/// # Safety
///
/// Called by the DMA API as this operation.
pub(super) unsafe extern "C" fn unmap_sg<D: Driver>(
    dev: *mut bindings::device,
    list: *mut bindings::scatterlist,
    count: c_int,
    direction: Direction,
    attrs: c_ulong,
) {
    // SAFETY: By the contract.
    let mapper = unsafe { mapper::<D>(dev) };
    // SAFETY: A list that map_sg has filled in.
    let start = unsafe { (*list).dma_address };
    let mut end = start;
    let mut entry = list;
    for _ in 0..count {
        // SAFETY: An entry of the list.
        let length = unsafe { (*entry).dma_length };
        if length == 0 {
            break;
        }
        // SAFETY: As above.
        end = unsafe { (*entry).dma_address } + u64::from(length);
        // SAFETY: As above; the last one has none, and is not asked for one.
        entry = unsafe { next(entry) };
    }
    // CAST: one run of addresses, of a list with int entries of unsigned int bytes.
    if !mapper.unmap(start, (end - start) as usize) {
        // SAFETY: Not in the window, so the core has mapped it.
        unsafe {
            bindings::dma_unmap_sg_attrs(mapper.twin.as_raw(), list, count, direction, attrs)
        };
        mapper.unmapped(start, end - start);
    }
}
