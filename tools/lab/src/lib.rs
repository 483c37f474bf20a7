// SPDX-License-Identifier: GPL-2.0

//! Host tools: `vm` starts one guest, `check` runs all tests.

pub mod accel;
pub mod clock;
pub mod control;
pub mod coverage;
pub mod guest_test;
pub mod host_test;
pub mod initramfs;
pub mod kernel;
pub mod ktap;
pub mod lead;
pub mod machine;
pub mod modules;
pub mod monitor;
pub mod options;
pub mod run;
pub mod splat;
pub mod trace;
