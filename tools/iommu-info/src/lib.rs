// SPDX-License-Identifier: GPL-2.0

//! What this machine's IOMMUs do, read from sysfs, procfs and debugfs.
//!
//! Three layers: [`sysfs`] reads files below a root into the [`model`]; [`window`], [`config`],
//! [`grouping`], [`explain`], [`memlock`] and [`counters`] are pure and decide; [`output`] writes.
//! Nothing here opens a device, an IOMMU group or a container, or writes to a file.

#![forbid(unsafe_code)]

pub mod address;
pub mod cli;
pub mod config;
pub mod counters;
pub mod explain;
pub mod grouping;
pub mod memlock;
pub mod model;
pub mod output;
pub mod run;
pub mod size;
pub mod sysfs;
pub mod window;
