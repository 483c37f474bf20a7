// SPDX-License-Identifier: GPL-2.0

//! Which addresses DMA can have: what a unit translates, without what is reserved. Pure.

use serde::{Serialize, Serializer};

/// A range of IOVAs with its last byte. In JSON they are text: a number of many programs has 53 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Range {
    /// The first byte.
    #[serde(serialize_with = "in_hex")]
    pub start: u64,
    /// The last byte.
    #[serde(serialize_with = "in_hex")]
    pub last: u64,
}

fn in_hex<S: Serializer>(address: &u64, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("{address:#x}"))
}

/// A line of `reserved_regions` of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reserved {
    /// The addresses.
    #[serde(flatten)]
    pub range: Range,
    /// `direct`, `direct-relaxable`, `reserved` or `msi`.
    pub kind: String,
}

fn address(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

/// Reads `reserved_regions` of a group (Documentation/ABI/testing/sysfs-kernel-iommu_groups): a line
/// each of first and last address and kind. Lines of another form are left out.
pub fn parse_reserved(text: &str) -> Vec<Reserved> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let start = address(words.next()?)?;
        let last = address(words.next()?)?;
        let kind = words.next()?.to_string();
        let range = Range { start, last };
        (start <= last).then_some(Reserved { range, kind })
    };
    text.lines().filter_map(line).collect()
}

/// The bits of an IOVA that a VT-d unit translates: the largest second-stage table of CAP_REG.SAGAW
/// (bits 12:8), but no more than CAP_REG.MGAW (bits 21:16) (VT-d specification, 11.4.2). `None` where
/// the value has no table that is defined.
pub fn vtd_bits(capabilities: u64) -> Option<u8> {
    let widest = [(3, 57), (2, 48), (1, 39)]
        .into_iter()
        .find(|(bit, _)| (capabilities >> (8 + bit)) & 1 == 1);
    // At most 64 of six bits, so nothing is cut off.
    let guest = ((capabilities >> 16) & 0x3f) as u8 + 1;
    widest.map(|(_, bits)| guest.min(bits))
}

/// The bits of an IOVA that an AMD-Vi unit translates: what its largest host table does, by HATS (bits 11:10) of the
/// extended feature register (AMD I/O virtualization specification, MMIO offset 0030h). `None` where it has no such table.
pub fn amd_bits(features: u64) -> Option<u8> {
    match (features >> 10) & 3 {
        0 => Some(48),
        1 => Some(57),
        2 => Some(64),
        _ => None,
    }
}

/// Whether the kernel's own driver may use first-stage tables on a unit with this ECAP_REG: it has scalable mode
/// (SMTS, bit 43) and such tables (FLTS, bit 47; VT-d specification, 11.4.3). Their window is the lower half of
/// what they translate, 47 or 56 bits; but `intel_iommu=sm_off` makes it use second-stage ones.
pub fn may_use_first_stage(extended: u64) -> bool {
    [43, 47].iter().all(|bit| (extended >> bit) & 1 == 1)
}

/// Reads an attribute `aperture` of our drivers: the first and the last address.
pub fn parse_aperture(text: &str) -> Option<Range> {
    let (start, last) = text.trim().split_once(' ')?;
    let (start, last) = (address(start)?, address(last)?);
    (start <= last).then_some(Range { start, last })
}

/// The addresses of so many bits.
pub fn of_bits(bits: u8) -> Option<Range> {
    let last = match bits {
        0 => return None,
        64.. => u64::MAX,
        _ => (1 << bits) - 1,
    };
    Some(Range { start: 0, last })
}

/// What both have.
pub fn common(a: Range, b: Range) -> Option<Range> {
    let (start, last) = (a.start.max(b.start), a.last.min(b.last));
    (start <= last).then_some(Range { start, last })
}

/// What is left of an address space for VFIO's user: everything but the reserved regions, relaxable
/// ones excepted (`vfio_iommu_resv_exclude` in drivers/vfio/vfio_iommu_type1.c).
pub fn usable(space: Option<Range>, reserved: &[Reserved]) -> Vec<Range> {
    let Some(Range { start: first, last }) = space else {
        return Vec::new();
    };
    let mut holes: Vec<Range> = reserved
        .iter()
        .filter(|r| r.kind != "direct-relaxable")
        .map(|r| r.range)
        .collect();
    holes.sort_by_key(|hole| hole.start);
    let mut ranges = Vec::new();
    // The first address that is not decided; none after the last one of all.
    let mut next = Some(first);
    for hole in holes {
        let Some(start) = next.filter(|start| *start <= last) else {
            break;
        };
        if hole.start > start {
            let end = (hole.start - 1).min(last);
            ranges.push(Range { start, last: end });
        }
        next = hole.last.checked_add(1).map(|after| after.max(start));
    }
    if let Some(start) = next.filter(|start| *start <= last) {
        ranges.push(Range { start, last });
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hole(start: u64, last: u64, kind: &str) -> Reserved {
        let range = Range { start, last };
        let kind = kind.to_string();
        Reserved { range, kind }
    }

    #[test]
    fn a_group_of_vtd() {
        let text = "0x00000000fee00000 0x00000000feefffff msi\nnonsense\n0x5 0x4 direct\n";
        let reserved = parse_reserved(text);
        assert_eq!(reserved, [hole(0xfee0_0000, 0xfeef_ffff, "msi")]);
        let all = (1u64 << 39) - 1;
        assert_eq!(
            usable(of_bits(39), &reserved),
            [
                Range {
                    start: 0,
                    last: 0xfedf_ffff
                },
                Range {
                    start: 0xfef0_0000,
                    last: all
                }
            ]
        );
        let relaxable = [hole(0, 0xfff, "direct-relaxable")];
        assert_eq!(
            usable(of_bits(39), &relaxable),
            [Range {
                start: 0,
                last: all
            }]
        );
        assert_eq!(usable(of_bits(64), &[hole(0, u64::MAX, "reserved")]), []);
    }

    #[test]
    fn an_aperture() {
        let range = |start, last| Some(Range { start, last });
        let text = "0x0000000000001000 0x0000007fffffffff\n";
        assert_eq!(parse_aperture(text), range(0x1000, 0x7f_ffff_ffff));
        for text in ["", "0x0", "0x1 0x0", "1 2", "0x0 0xg"] {
            assert_eq!(parse_aperture(text), None, "{text}");
        }
        let (a, b) = (range(0, 9).unwrap(), range(5, 20).unwrap());
        assert_eq!(common(a, b), range(5, 9));
        assert_eq!(common(a, range(10, 11).unwrap()), None);
    }

    #[test]
    fn first_stage_needs_scalable_mode() {
        assert!(may_use_first_stage((1 << 43) | (1 << 47)));
        assert!(!may_use_first_stage((1 << 43) | (1 << 46)));
        assert!(!may_use_first_stage(1 << 47));
    }

    #[test]
    fn the_width_of_a_unit() {
        // QEMU's, with aw-bits 48 and 39.
        assert_eq!(vtd_bits(0x80d2_008c_222f_0606), Some(48));
        assert_eq!(vtd_bits(0x80d2_008c_2226_0206), Some(39));
        assert_eq!(vtd_bits(0x002f_0000), None);
    }

    #[test]
    fn the_width_of_an_amd_unit() {
        // QEMU's has tables of six levels.
        assert_eq!(amd_bits(0x29d3), Some(64));
        let others = [0, 1, 3].map(|levels| amd_bits((levels << 10) | 0x21d3));
        assert_eq!(others, [Some(48), Some(57), None]);
    }

    proptest! {
        // An address is usable if the space has it and no hole does.
        #[test]
        fn usable_is_what_is_left(
            bits in 1u8..=64,
            first: u64,
            holes in prop::collection::vec((any::<u64>(), 0u32..64, any::<bool>()), 0..6),
            shift in 0u32..64,
            probes in prop::collection::vec(any::<u64>(), 20),
        ) {
            let kind = |relaxable| if relaxable { "direct-relaxable" } else { "reserved" };
            let holes: Vec<Reserved> = holes
                .into_iter()
                .map(|(start, size, relaxable)| {
                    let start = start >> shift;
                    hole(start, start.saturating_add((1 << size) - 1), kind(relaxable))
                })
                .collect();
            let space = of_bits(bits).and_then(|all| common(all, Range { start: first >> shift, last: u64::MAX }));
            let ranges = usable(space, &holes);
            let edges = holes.iter().flat_map(|h| {
                let (start, last) = (h.range.start, h.range.last);
                [start.wrapping_sub(1), start, last, last.wrapping_add(1)]
            });
            for probe in probes.into_iter().chain(edges) {
                let inside = probe >= first >> shift && (bits == 64 || probe >> bits == 0);
                let has = |r: &Range| (r.start..=r.last).contains(&probe);
                let taken = holes.iter().any(|h| h.kind == "reserved" && has(&h.range));
                prop_assert_eq!(ranges.iter().any(has), inside && !taken, "{:#x}", probe);
            }
            prop_assert!(ranges.iter().all(|r| r.start <= r.last));
            prop_assert!(ranges.windows(2).all(|w| w[0].last < w[1].start));
        }

        #[test]
        fn any_text_is_read(text in "(0x[0-9a-f]{0,18} ?|[a-z\n ]){0,20}") {
            prop_assert!(parse_reserved(&text).iter().all(|r| r.range.start <= r.range.last));
        }
    }
}
