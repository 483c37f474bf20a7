// SPDX-License-Identifier: GPL-2.0

//! Sizes as they are typed and as they are shown.

/// Bytes of a page, on the one architecture that the kernel modules are for.
pub const PAGE: u64 = 4096;

/// Reads a number of bytes with an optional suffix K, M, G or T (powers of 1024).
///
/// Errors: what is wrong with it, in words.
pub fn parse(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.char_indices().last() {
        Some((at, 'K' | 'k')) => (&text[..at], 10),
        Some((at, 'M' | 'm')) => (&text[..at], 20),
        Some((at, 'G' | 'g')) => (&text[..at], 30),
        Some((at, 'T' | 't')) => (&text[..at], 40),
        _ => (text, 0),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err("not a size such as 4096, 512M or 4G".into());
    }
    let number: u64 = digits.parse().map_err(|_| "too large")?;
    match number.checked_mul(1 << shift) {
        Some(0) => Err("nothing to lock".into()),
        Some(bytes) => Ok(bytes),
        None => Err("too large".into()),
    }
}

/// `bytes` in the largest unit that shows it exactly.
pub fn show(bytes: u64) -> String {
    let units = [(40, "T"), (30, "G"), (20, "M"), (10, "K")];
    for (shift, unit) in units {
        if bytes != 0 && bytes % (1 << shift) == 0 {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes() {
        assert_eq!(parse("4096"), Ok(4096));
        assert_eq!(parse("4k"), Ok(4096));
        assert_eq!(parse("2G"), Ok(2 << 30));
        assert_eq!(show(2 << 30), "2G");
        assert_eq!(show(4097), "4097");
        for bad in ["", "G", "0", "-1G", "1.5G", "1GB", "17000000T", "1 G", "ä"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read(bytes in 1u64..) {
            prop_assert_eq!(parse(&show(bytes)), Ok(bytes));
        }
    }
}
