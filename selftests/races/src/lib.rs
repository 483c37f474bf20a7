// SPDX-License-Identifier: GPL-2.0

//! What the subcommands share, each module with the simplest subcommand of its own.

pub mod attach;
pub mod file;
pub mod inject;
pub mod oracle;
pub mod raw;
pub mod sysfs;
pub mod testdev;
pub mod unplug;
pub mod vfio;
pub mod vmstat;
pub mod walk;
