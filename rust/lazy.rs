// SPDX-License-Identifier: GPL-2.0

//! Windows of IOVAs whose freed ones wait for one flush, all together.
//!
//! Most of it is pure and knows the kernel's atomics as [`word::Word`] only.

pub mod clock;
pub mod ending;
pub mod fit;
pub mod format;
pub(crate) mod glue;
pub mod kept;
pub mod leaves;
mod memory;
pub mod recent;
pub(crate) mod twin;
pub mod window;
pub mod word;
mod words;
