// SPDX-License-Identifier: GPL-2.0

//! Ranges of DMA addresses, and how users write them.
//!
//! Pure: compiled into the kernel and into the host tests alike.

use core::str;

/// DMA addresses from a first to a last one.
///
/// # Invariants
///
/// `first <= last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aperture {
    first: u64,
    last: u64,
}

/// Why a text is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is neither a range nor the word for all addresses.
    NoRange,
    /// The range has no address.
    Empty,
    /// The range begins or ends within a page.
    Unaligned,
    /// The range has addresses that cannot be had.
    Outside,
}

/// An address: decimal, or hexadecimal after `0x`.
fn address(word: &str) -> Option<u64> {
    let (digits, radix) = match word.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (word, 10),
    };
    // A sign is none of an address.
    let signed = digits.starts_with('+');
    u64::from_str_radix(digits, radix).ok().filter(|_| !signed)
}

impl Aperture {
    /// `None` if `last` is before `first`.
    pub const fn new(first: u64, last: u64) -> Option<Self> {
        if first > last {
            return None;
        }
        // INVARIANT: Checked above.
        Some(Self { first, last })
    }

    /// The first address.
    pub const fn first(&self) -> u64 {
        self.first
    }

    /// The last address.
    pub const fn last(&self) -> u64 {
        self.last
    }

    /// Whether all of it is in `other`.
    pub const fn is_in(&self, other: &Self) -> bool {
        other.first <= self.first && self.last <= other.last
    }

    /// What both have; `None` if there is nothing.
    pub fn and(&self, other: &Self) -> Option<Self> {
        Self::new(self.first.max(other.first), self.last.min(other.last))
    }

    /// Whether it consists of pages of `page` bytes, a power of two.
    const fn has_whole_pages(&self, page: u64) -> bool {
        let within = page.wrapping_sub(1);
        self.first & within == 0 && self.last & within == within
    }

    /// Reads what a user wants: a first and a last address in `most`, which are those of whole pages of
    /// `page` bytes, a power of two. `None` for all of these, for which the word `all` stands, too.
    pub fn parse(text: &[u8], most: &Self, page: u64) -> Result<Option<Self>, Refusal> {
        let text = str::from_utf8(text).map_err(|_| Refusal::NoRange)?;
        let mut words = text.split_ascii_whitespace();
        let range = match (words.next(), words.next(), words.next()) {
            (Some("all"), None, None) => return Ok(None),
            (Some(first), Some(last), None) => address(first).zip(address(last)),
            _ => None,
        };
        let (first, last) = range.ok_or(Refusal::NoRange)?;
        let range = Self::new(first, last).ok_or(Refusal::Empty)?;
        if !range.has_whole_pages(page) {
            return Err(Refusal::Unaligned);
        }
        if !range.is_in(most) {
            return Err(Refusal::Outside);
        }
        Ok((range != *most).then_some(range))
    }
}
