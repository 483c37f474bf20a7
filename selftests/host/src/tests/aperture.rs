// SPDX-License-Identifier: GPL-2.0

//! What a user may write to the attribute `aperture`, against a second way to say it.

use iommu::confine::aperture::{Aperture, Refusal};
use proptest::prelude::*;

const PAGE: u64 = 4096;

fn range(first: u64, last: u64) -> Aperture {
    Aperture::new(first, last).unwrap()
}

/// What tables of 48 bits have.
fn most() -> Aperture {
    range(0, (1 << 48) - 1)
}

fn parse(text: &str) -> Result<Option<Aperture>, Refusal> {
    Aperture::parse(text.as_bytes(), &most(), PAGE)
}

#[test]
fn c10_what_is_taken() {
    assert_eq!(parse("0x1000 0x1fff\n"), Ok(Some(range(0x1000, 0x1fff))));
    assert_eq!(parse(" 4096\t8191 "), Ok(Some(range(0x1000, 0x1fff))));
    // All that there is narrows nothing.
    assert_eq!(parse("0x0 0xffffffffffff"), Ok(None));
    assert_eq!(parse("all\n"), Ok(None));
    let all = range(0, u64::MAX);
    let text = b"0xfffffffffffff000 0xffffffffffffffff";
    let last = Some(range(!0xfff, u64::MAX));
    assert_eq!(Aperture::parse(text, &all, PAGE), Ok(last));
}

#[test]
fn c10_what_is_refused() {
    for text in [
        "",
        "0x1000",
        "0x1000 0x1fff 0x2000",
        "0x1000-0x1fff",
        "0x1000 0x1fffg",
        "+4096 8191",
        "0x+1000 0x1fff",
        "-4096 8191",
        "0x 0x1fff",
        "0X1000 0x1fff",
        "1000h 1fffh",
        "ALL",
        "all all",
        // One more than 64 bits.
        "0x0 0x10000000000000000",
        "0 18446744073709551616",
    ] {
        assert_eq!(parse(text), Err(Refusal::NoRange), "{text}");
    }
    let text = b"0x1000 0x1fff\xff";
    let not_text = Aperture::parse(text, &most(), PAGE);
    assert_eq!(not_text, Err(Refusal::NoRange));
    assert_eq!(parse("0x2000 0x1fff"), Err(Refusal::Empty));
    assert_eq!(parse("0x1001 0x1fff"), Err(Refusal::Unaligned));
    assert_eq!(parse("0x1000 0x2000"), Err(Refusal::Unaligned));
    assert_eq!(parse("0x1000 0x1ffe"), Err(Refusal::Unaligned));
    assert_eq!(parse("0x0 0x1000000000fff"), Err(Refusal::Outside));
    assert_eq!(parse("0x0 0xffffffffffffffff"), Err(Refusal::Outside));
    let above = range(0x2000, 0xffff);
    let below = Aperture::parse(b"0x1000 0xffff", &above, PAGE);
    assert_eq!(below, Err(Refusal::Outside));
}

/// Addresses, many of them near each other and near the ends.
fn address() -> impl Strategy<Value = u64> {
    let near = (0u32..64, -2i64..3).prop_map(|(bit, by)| (1u64 << bit).wrapping_add_signed(by));
    prop_oneof![any::<u64>(), 0u64..0x10_0000, near, Just(u64::MAX)]
}

proptest! {
    /// A range is taken if each of its ends has a page that begins or ends there, and all of it can be had.
    #[test]
    fn c10_numbers(
        first in address(),
        last in address(),
        of in (address(), address()),
        shift in 12u32..22,
        hex: bool,
    ) {
        let most = range(of.0.min(of.1), of.0.max(of.1));
        let page = 1u64 << shift;
        let text = match hex {
            true => format!("{first:#x} {last:#018x}\n"),
            false => format!("{first} {last}"),
        };
        let got = Aperture::parse(text.as_bytes(), &most, page);
        let end = u128::from(last) + 1;
        let wanted = if first > last {
            Err(Refusal::Empty)
        } else if first % page != 0 || end % u128::from(page) != 0 {
            Err(Refusal::Unaligned)
        } else if first < most.first() || last > most.last() {
            Err(Refusal::Outside)
        } else {
            Ok(Some(range(first, last)).filter(|range| *range != most))
        };
        prop_assert_eq!(got, wanted);
    }

    /// Whole pages are taken, and read as they are shown.
    #[test]
    fn c10_shown_is_taken(a in 0u64..1 << 36, b in 0u64..1 << 36) {
        let wanted = range(a.min(b) << 12, (a.max(b) << 12) | 0xfff);
        let text = format!("{:#018x} {:#018x}\n", wanted.first(), wanted.last());
        prop_assert_eq!(parse(&text), Ok(Some(wanted)));
    }

    #[test]
    fn c10_any_text(text in prop::collection::vec(any::<u8>(), 0..40)) {
        let _ = Aperture::parse(&text, &most(), PAGE);
    }

    /// What two have in common is what is in both.
    #[test]
    fn c10_common(a in (address(), address()), b in (address(), address()), probe in address()) {
        let (a, b) = (range(a.0.min(a.1), a.0.max(a.1)), range(b.0.min(b.1), b.0.max(b.1)));
        let has = |of: &Aperture, at| (of.first()..=of.last()).contains(&at);
        let both = a.and(&b);
        for at in [probe, a.first(), a.last(), b.first(), b.last()] {
            let wanted = has(&a, at) && has(&b, at);
            prop_assert_eq!(both.is_some_and(|both| has(&both, at)), wanted);
        }
        prop_assert_eq!(a.is_in(&b), both == Some(a));
        prop_assert!(both.is_none_or(|both| both.is_in(&a) && both.is_in(&b)));
    }
}
