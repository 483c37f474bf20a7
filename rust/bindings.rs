// SPDX-License-Identifier: GPL-2.0

//! C items: the kernel's bindings, and on top of them those that it lacks.
//!
//! bindgen emits size, alignment and offset assertions with its own items; they
//! are checked when this file is compiled.

#![allow(
    clippy::all,
    clippy::cast_lossless,
    clippy::ptr_as_ptr,
    clippy::ref_as_ptr,
    clippy::undocumented_unsafe_blocks,
    dead_code,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unsafe_op_in_unsafe_fn
)]

pub use kernel::bindings::*;
use kernel::ffi;
use pin_init::MaybeZeroable;

include!(concat!(env!("IOMMU_OUT"), "/rust/bindings_generated.rs"));
