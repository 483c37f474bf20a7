// SPDX-License-Identifier: GPL-2.0

//! What guest tests do beyond the reach of a shell: many threads, tight orders, models.
//!
//! It runs in the guest as `races SUBCOMMAND`. Diagnostics are lines that start with
//! `# `; the exit status is 0 if all was as wanted, 1 if not, 2 for a wrong command line.

use clap::{Parser, Subcommand};
use races::{
    age, attach, confine, container, container_group, fail_nth, grow, hold, huge, inject, ioas,
    iommufd, iommufd_group, latency, load, memlock, oracle, owned, pages, schedule, storm, sysfs,
    table, testdev, unplug, vmstat, walk,
};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "races", about = "Program of the guest tests")]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// What must be the same after a test as before it: print it, or compare
    Vmstat(vmstat::Options),
    /// One command for the injection points, as in rust/inject.rs; without one, the rules
    Inject(inject::Options),
    /// One device: bind, unbind, remove, group type and so on
    Device(sysfs::Options),
    /// Attach a group with VFIO and close it again, many times
    Attach(attach::Options),
    /// Attach a group with VFIO while a device is taken away
    Unplug(unplug::Options),
    /// Have an iommu-testdev write to memory, past the kernel: prints "ok" or "tx_fail"
    Ghost(testdev::Options),
    /// Move devices between domains at random
    Walk(walk::Options),
    /// The ten cells of the ownership table
    Table(table::Options),
    /// Orders of steps of a group's drivers and owners, in the kernel and in the model
    Schedule(schedule::Options),
    /// Drivers and owners of a group come and go
    #[command(subcommand)]
    Storm(storm::Options),
    /// A group is owned by VFIO, again and again
    Owned(owned::Options),
    /// One container of VFIO, used by several threads at once
    Container(container::Options),
    /// Two devices of one group with a container of VFIO
    ContainerGroup(container_group::Options),
    /// Keep a device open with VFIO, and have it write for each line of the input
    Hold(hold::Options),
    /// Load a module in one try
    Load(load::Options),
    /// Keep a domain of iommufd that no device is on, until the end of the input
    HoldDomain(iommufd::Options),
    /// Two devices of one group with iommufd
    IommufdGroup(iommufd_group::Options),
    /// How long a driver takes to bind and to unbind
    BindLatency(latency::Options),
    /// One operation with each of its allocations failing in turn
    FailNth(fail_nth::Options),
    /// Map memory for groups with VFIO, as a VMM does
    Memlock(memlock::Options),
    /// Tables grow while devices use them
    #[command(subcommand)]
    Grow(grow::Options),
    /// Map huge pages with VFIO, and print how many pages the IOMMU's tables grew by
    Huge(huge::Options),
    /// Map many pages with VFIO, each by itself, and look at what a device reaches
    Pages(pages::Options),
    /// Map memory for devices with iommufd
    IoasLock(ioas::Options),
    /// Devices that have an aperture, or are sealed
    #[command(subcommand)]
    Confine(confine::Options),
    /// For how long a device reaches what was unmapped
    Age(age::Options),
    /// One command for a debugfs command file, and its answer
    Oracle(oracle::Options),
}

fn main() -> ExitCode {
    let result = match Options::parse().command {
        Command::Vmstat(o) => vmstat::run(&o),
        Command::Ghost(o) => testdev::run(&o),
        Command::Inject(o) => inject::run(&o),
        Command::Device(o) => sysfs::run(&o),
        Command::Attach(o) => attach::run(&o),
        Command::Unplug(o) => unplug::run(&o),
        Command::Walk(o) => walk::run(&o),
        Command::Pages(o) => pages::run(&o),
        Command::Table(o) => table::run(&o),
        Command::Schedule(o) => schedule::run(&o),
        Command::Storm(o) => storm::run(&o),
        Command::Owned(o) => owned::run(&o),
        Command::Container(o) => container::run(&o),
        Command::ContainerGroup(o) => container_group::run(&o),
        Command::Hold(o) => hold::run(&o),
        Command::Load(o) => load::run(&o),
        Command::HoldDomain(o) => iommufd::run(&o),
        Command::IommufdGroup(o) => iommufd_group::run(&o),
        Command::BindLatency(o) => latency::run(&o),
        Command::FailNth(o) => fail_nth::run(&o),
        Command::Memlock(o) => memlock::run(&o),
        Command::Grow(o) => grow::run(&o),
        Command::Huge(o) => huge::run(&o),
        Command::IoasLock(o) => ioas::run(&o),
        Command::Confine(o) => confine::run(&o),
        Command::Age(o) => age::run(&o),
        Command::Oracle(o) => oracle::run(&o),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("# {error:#}");
            ExitCode::FAILURE
        }
    }
}
