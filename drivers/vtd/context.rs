// SPDX-License-Identifier: GPL-2.0

//! Root and context entries of legacy mode, and what a change of one needs.
//!
//! A root entry (one for each bus) points to a page of 256 context entries (one for each device
//! and function); a context entry says how the unit treats the DMA of one requester id.
//!
//! Specification: Intel Virtualization Technology for Directed I/O, sections 9.1 (Root Entry), 9.3
//! (Context Entry), 6.1 (Caching Mode) and 6.5.3.3 (Guidance to Software for Invalidations).
//!
//! This file is pure: integers in, values out. It is also built and tested on the host.

#![allow(
    dead_code,
    reason = "the layouts are complete as the specification gives them, used yet or not"
)]

use core::fmt;

use crate::caps::{
    Capabilities,
    Width, //
};

const PRESENT: u64 = 1 << 0;
const TYPE_SHIFT: u32 = 2;
const TYPE_MASK: u64 = 0x3;
const ADDRESS_MASK: u64 = !0xfff;
const AW_MASK: u64 = 0x7;
const DID_SHIFT: u32 = 8;
const DID_MASK: u64 = 0xffff;

/// Entries in one root or context table.
pub(crate) const TABLE_ENTRIES: usize = 256;

/// A domain id: the tag of a domain's entries in the unit's caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Did(u16);

impl Did {
    /// The id under which a unit in caching mode caches not-present entries (section 6.1). No
    /// domain may have it.
    pub(crate) const RESERVED: Self = Self(0);

    /// A domain id; the caller keeps it below the unit's domain count.
    pub(crate) const fn new(did: u16) -> Self {
        Self(did)
    }

    /// The number.
    pub(crate) const fn get(self) -> u16 {
        self.0
    }
}

/// An address that is no page's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Misaligned(pub(crate) u64);

impl fmt::Display for Misaligned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table address {:#x} is not a multiple of 4 KiB", self.0)
    }
}

/// Physical address of a table that entries point to.
///
/// # Invariants
///
/// A multiple of 4 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TableAddress(u64);

impl TableAddress {
    /// Checks an address.
    ///
    /// # Errors
    ///
    /// [`Misaligned`] if it is no multiple of 4 KiB.
    pub(crate) const fn new(physical: u64) -> Result<Self, Misaligned> {
        if physical & !ADDRESS_MASK != 0 {
            return Err(Misaligned(physical));
        }
        // INVARIANT: just checked.
        Ok(Self(physical))
    }

    /// The physical address.
    pub(crate) const fn get(self) -> u64 {
        self.0
    }
}

/// A root entry (section 9.1): low and high 64-bit word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RootEntry {
    words: [u64; 2],
}

impl RootEntry {
    /// An entry for a bus without context table.
    pub(crate) const fn not_present() -> Self {
        Self { words: [0; 2] }
    }

    /// An entry that points to a bus's context table.
    pub(crate) const fn new(context_table: TableAddress) -> Self {
        Self {
            words: [context_table.get() | PRESENT, 0],
        }
    }

    /// An entry as read from memory.
    pub(crate) const fn from_words(words: [u64; 2]) -> Self {
        Self { words }
    }

    /// Low and high word, in memory order.
    pub(crate) const fn words(self) -> [u64; 2] {
        self.words
    }

    /// The bus's context table, if the entry is present.
    pub(crate) const fn context_table(self) -> Option<TableAddress> {
        let [low, _] = self.words;
        if low & PRESENT != 0 {
            // INVARIANT: the mask clears the low 12 bits.
            Some(TableAddress(low & ADDRESS_MASK))
        } else {
            None
        }
    }
}

/// What the unit does with DMA under a present context entry (section 9.3, TT).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TranslationType {
    /// Untranslated requests go through the second-stage table; others are blocked.
    Paging,
    /// As `Paging`, and the device may use address translation services.
    PagingWithDeviceTlb,
    /// Requests pass untranslated.
    PassThrough,
    /// The encoding that hardware refuses.
    Reserved,
}

/// A context entry (section 9.3): low and high 64-bit word.
///
/// The fault processing disable bit is 0 in every entry made here: no fault goes unreported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ContextEntry {
    words: [u64; 2],
}

impl ContextEntry {
    const fn new(kind: u64, table: u64, width: Width, did: Did) -> Self {
        // CAST: widening; `u64::from` is not const.
        let (aw, did) = (width.aw() as u64, did.get() as u64);
        Self {
            words: [
                table | (kind << TYPE_SHIFT) | PRESENT,
                aw | (did << DID_SHIFT),
            ],
        }
    }

    /// All DMA is blocked and reported: the entry is not present.
    pub(crate) const fn blocked() -> Self {
        Self { words: [0; 2] }
    }

    /// DMA goes through a second-stage table.
    pub(crate) const fn paging(root: TableAddress, width: Width, did: Did) -> Self {
        Self::new(0, root.get(), width, did)
    }

    /// DMA passes untranslated. Needs `Capabilities::pass_through()`, and `width` must be
    /// `Capabilities::pass_through_width()`.
    pub(crate) const fn pass_through(width: Width, did: Did) -> Self {
        Self::new(2, 0, width, did)
    }

    /// An entry as read from memory.
    pub(crate) const fn from_words(words: [u64; 2]) -> Self {
        Self { words }
    }

    /// Low and high word, in memory order. Bit 0 of the low word makes the entry present, so it
    /// must reach memory last.
    pub(crate) const fn words(self) -> [u64; 2] {
        self.words
    }

    /// Whether the unit uses the entry.
    pub(crate) const fn present(self) -> bool {
        let [low, _] = self.words;
        low & PRESENT != 0
    }

    /// What a present entry does.
    pub(crate) const fn translation_type(self) -> TranslationType {
        let [low, _] = self.words;
        match (low >> TYPE_SHIFT) & TYPE_MASK {
            0 => TranslationType::Paging,
            1 => TranslationType::PagingWithDeviceTlb,
            2 => TranslationType::PassThrough,
            _ => TranslationType::Reserved,
        }
    }

    /// The second-stage table of a present paging entry.
    pub(crate) const fn root(self) -> TableAddress {
        let [low, _] = self.words;
        // INVARIANT: the mask clears the low 12 bits.
        TableAddress(low & ADDRESS_MASK)
    }

    /// The table format a present entry names.
    pub(crate) fn width(self) -> Option<Width> {
        let [_, high] = self.words;
        // CAST: a field of 3 bits.
        Width::from_aw((high & AW_MASK) as u8)
    }

    /// The domain id of a present entry.
    pub(crate) const fn did(self) -> Did {
        let [_, high] = self.words;
        // CAST: a field of 16 bits.
        Did(((high >> DID_SHIFT) & DID_MASK) as u16)
    }
}

/// What must follow a change of one context entry, in this order: the context-cache invalidation,
/// then the IOTLB invalidations; or, if there are none, the write-buffer flush.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// Device-selective context-cache invalidation of the changed requester id under this id.
    pub(crate) context_cache: Option<Did>,
    /// Domain-selective IOTLB invalidation of the entry's old domain.
    pub(crate) old_domain: Option<Did>,
    /// Domain-selective IOTLB invalidation of the entry's new domain.
    pub(crate) new_domain: Option<Did>,
    /// The write buffer must be flushed through GCMD_REG.WBF; invalidations do it themselves.
    pub(crate) write_buffer: bool,
    /// The entry is present before and after and differs in both words, which no single store
    /// changes: first write a blocked entry and carry out that change, then write the new entry.
    pub(crate) via_blocked: bool,
}

impl Change {
    /// What the change `old` to `new` needs on a unit with these capabilities.
    ///
    /// - Present to anything: the unit may hold the entry in its context cache and translations in
    ///   its IOTLB, both under the old domain id.
    /// - Not present to present: only in caching mode the unit may hold the not-present entry, and
    ///   it does so under [`Did::RESERVED`]. It may also keep a shadow of the new domain's table
    ///   that is only brought up to date when an invalidation names the domain (row E7), so the
    ///   new domain is always named in caching mode.
    /// - Otherwise a unit with a write buffer must still be made to see the change.
    pub(crate) fn new(old: ContextEntry, new: ContextEntry, caps: &Capabilities) -> Self {
        if old == new {
            return Self::default();
        }
        let cached = match (old.present(), new.present()) {
            (true, _) => Some(old.did()),
            (false, true) if caps.caching_mode() => Some(Did::RESERVED),
            (false, _) => None,
        };
        let old_domain = old.present().then_some(old.did());
        let new_domain = (new.present() && caps.caching_mode())
            .then_some(new.did())
            .filter(|did| old_domain != Some(*did));
        let [old_low, old_high] = old.words();
        let [new_low, new_high] = new.words();
        Self {
            context_cache: cached,
            old_domain,
            new_domain,
            write_buffer: cached.is_none() && caps.write_buffer_flush(),
            via_blocked: old.present()
                && new.present()
                && old_low != new_low
                && old_high != new_high,
        }
    }
}
