// SPDX-License-Identifier: GPL-2.0

//! Benchmarks: what mapping for DMA and I/O cost with our drivers and with the kernel's own.

pub mod compare;
pub mod count;
pub mod docs;
pub mod environment;
pub mod guest;
pub mod plan;
pub mod plot;
pub mod progress;
pub mod result;
pub mod stats;
pub mod sweep;
pub mod table;
pub mod times;
pub mod turns;
