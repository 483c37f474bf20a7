// SPDX-License-Identifier: GPL-2.0

//! What the subcommands share, each module with the simplest subcommand of its own.

pub mod age;
pub mod attach;
pub mod cells;
pub mod confine;
pub mod container;
pub mod container_group;
pub mod fail_nth;
pub mod file;
pub mod group;
pub mod grow;
pub mod hold;
pub mod huge;
pub mod inject;
pub mod ioas;
pub mod iommufd;
pub mod iommufd_group;
pub mod latency;
pub mod load;
pub mod memlock;
pub mod model;
pub mod operations;
pub mod oracle;
pub mod owned;
pub mod pages;
pub mod raw;
pub mod schedule;
pub mod storm;
pub mod sysfs;
pub mod table;
pub mod testdev;
pub mod unplug;
pub mod vfio;
pub mod vmstat;
pub mod walk;
