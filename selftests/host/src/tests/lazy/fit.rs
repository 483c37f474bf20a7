// SPDX-License-Identifier: GPL-2.0

//! Places for runs, compared with trying all.

use iommu::lazy::fit::{Geometry, Request};
use proptest::prelude::*;

/// Whether a run at `first` is what was asked for.
pub(super) fn suits(geometry: &Geometry, request: &Request, first: usize) -> bool {
    let start = u128::from(geometry.base()) + first as u128;
    let last = start + request.pages as u128 - 1;
    let block = u128::from(request.boundary) + 1;
    first + request.pages <= geometry.pages()
        && start.is_multiple_of_power(request.align)
        && start / block == last / block
        && last <= u128::from(request.last)
}

trait Multiple {
    fn is_multiple_of_power(self, order: u32) -> bool;
}

impl Multiple for u128 {
    fn is_multiple_of_power(self, order: u32) -> bool {
        self & ((1 << order) - 1) == 0
    }
}

pub(super) fn request(most: usize) -> impl Strategy<Value = Request> {
    let boundary = prop_oneof![
        4 => Just(u64::MAX),
        1 => (0u32..8).prop_map(|order| (1 << order) - 1),
    ];
    (
        1..=most,
        prop_oneof![4 => Just(0u32), 1 => 0u32..6],
        boundary,
    )
        .prop_map(|(pages, align, boundary)| Request {
            align,
            boundary,
            ..Request::new(pages)
        })
}

proptest! {
    #[test]
    fn first_place_that_suits(
        base in prop_oneof![0u64..200, Just(0xffff_fff0u64)],
        pages in 1usize..200,
        request in request(64),
        from in 0usize..220,
        end in 0usize..220,
        last in prop_oneof![Just(u64::MAX), 0u64..400],
    ) {
        let geometry = Geometry::new(base, pages, 16).unwrap();
        let request = Request { last, ..request };
        let usable = geometry.usable(&request);
        prop_assert_eq!(
            usable as u64,
            (base..base + pages as u64).filter(|number| *number <= last).count() as u64
        );
        let found = request
            .is_valid()
            .then(|| geometry.place(&request, from, end.min(usable)))
            .flatten();
        let right = (from..pages.min(end))
            .find(|first| suits(&geometry, &request, *first) && first + request.pages <= end);
        prop_assert_eq!(found, right);
        for first in 0..(pages + 1).saturating_sub(request.pages) {
            prop_assert_eq!(geometry.suits(&request, first), suits(&geometry, &request, first));
        }
    }
}

#[test]
fn senseless_geometries_and_requests() {
    assert!(Geometry::new(0, 0, 1).is_none());
    assert!(Geometry::new(0, 1, 0).is_none());
    assert!(Geometry::new(0, 1, 3).is_none());
    assert!(Geometry::new(u64::MAX, 1, 1).is_none());
    assert!(Geometry::new(0, 1 << 32, 1).is_none());
    let valid = Request::new(1);
    assert!(valid.is_valid());
    for invalid in [
        Request { pages: 0, ..valid },
        Request { align: 64, ..valid },
        Request {
            boundary: 5,
            ..valid
        },
        Request {
            pages: 9,
            boundary: 7,
            ..valid
        },
    ] {
        assert!(!invalid.is_valid(), "{invalid:?}");
    }
}
