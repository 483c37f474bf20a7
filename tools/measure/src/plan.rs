// SPDX-License-Identifier: GPL-2.0

//! What is measured.

use clap::ValueEnum;

/// An IOMMU that the tree has a driver for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Iommu {
    /// VT-d
    #[value(alias = "intel")]
    Vtd,
    /// VT-d with caching mode: it is told of new mappings, too
    VtdCaching,
    /// AMD-Vi
    Amd,
    /// virtio-iommu
    Virtio,
}

impl Iommu {
    /// In results.
    pub fn name(self) -> &'static str {
        match self {
            Iommu::Vtd => "vtd",
            Iommu::VtdCaching => "vtd-caching",
            Iommu::Amd => "amd",
            Iommu::Virtio => "virtio",
        }
    }

    /// Options of tools/vm. The kernel's own driver for VT-d would have interrupts remapped as well, which takes
    /// time in the emulator, and ours leaves them alone.
    pub fn options(self) -> &'static [&'static str] {
        const SAME: &str = "--append=intremap=off";
        match self {
            Iommu::Vtd => &["--iommu=intel", SAME],
            Iommu::VtdCaching => &["--iommu=intel", "--iommu-opt=caching-mode=on", SAME],
            Iommu::Amd => &["--iommu=amd"],
            Iommu::Virtio => &["--iommu=virtio"],
        }
    }

    /// QEMU's events for commands to the unit.
    pub fn events(self) -> &'static str {
        match self {
            Iommu::Vtd | Iommu::VtdCaching => "vtd_inv_desc_*",
            Iommu::Amd => "amdvi_*inval,amdvi_completion_wait",
            Iommu::Virtio => "virtio_iommu_map,virtio_iommu_unmap",
        }
    }

    /// Whether an event is a command that invalidates translations. AMD-Vi and virtio-iommu are told
    /// of new mappings with a command like that, or one of their own.
    pub fn invalidates(self, event: &str) -> bool {
        match self {
            Iommu::Vtd | Iommu::VtdCaching => event.starts_with("vtd_inv_desc_iotlb"),
            Iommu::Amd => event == "amdvi_pages_inval",
            Iommu::Virtio => event == "virtio_iommu_unmap",
        }
    }
}

/// A policy of our driver and what it is compared with.
pub struct Policy {
    /// Its name
    pub ours: &'static str,
    /// The policy of the kernel's driver
    pub in_tree: &'static str,
}

const fn policy(ours: &'static str, in_tree: &'static str) -> Policy {
    Policy { ours, in_tree }
}

/// The kernel's driver has three. What it has no like of is compared with its queue.
pub const POLICIES: [Policy; 5] = [
    policy("strict", "strict"),
    policy("fq", "fq"),
    policy("fq-single", "fq"),
    policy("lazy", "fq"),
    policy("identity", "identity"),
];

/// A measurement of pairs of map and unmap.
pub struct Pair {
    /// In results, after "pair"
    pub name: &'static str,
    /// For rust_bench
    pub words: &'static str,
    /// How many for a count
    pub count: u32,
    /// With QUICK=1 too: counted, timed
    pub quick: (bool, bool),
    /// CPUs that it takes: counts are made with one
    pub cpus: u32,
}

const fn pair(
    name: &'static str,
    words: &'static str,
    count: u32,
    quick: (bool, bool),
    cpus: u32,
) -> Pair {
    Pair {
        name,
        words,
        count,
        quick,
        cpus,
    }
}

/// All of them.
#[rustfmt::skip]
pub const PAIRS: [Pair; 11] = [
    pair("4k", "size=4k", 2000, (true, true), 1),
    pair("4k depth 32", "size=4k depth=32", 2000, (true, false), 1),
    pair("4k 2 threads", "size=4k threads=2", 0, (false, false), 2),
    pair("64k", "size=64k", 2000, (false, false), 1),
    pair("64k depth 32", "size=64k depth=32", 2000, (false, false), 1),
    pair("1M", "size=1M", 500, (true, false), 1),
    pair("1M 2 threads", "size=1M threads=2", 0, (false, false), 2),
    pair("list 32 x 4k", "kind=sg", 1000, (true, true), 1),
    pair("list 32 x 4k 2 threads", "kind=sg threads=2", 0, (false, false), 2),
    pair("list 32 x 4k scattered", "kind=scattered", 1000, (false, false), 1),
    pair("list 32 x 4k scattered depth 32", "kind=scattered depth=32", 1000, (false, false), 1),
];

/// A measurement of I/O.
pub struct Fio {
    /// In results, after "fio"
    pub name: &'static str,
    /// For fio: buffers are side by side in huge pages, or of single pages that are scattered (serve.sh)
    pub words: &'static str,
    /// I/Os for a count; 0: it is not counted
    pub count: u32,
    /// With QUICK=1 too
    pub quick: bool,
}

const fn fio(name: &'static str, words: &'static str, count: u32, quick: bool) -> Fio {
    Fio {
        name,
        words,
        count,
        quick,
    }
}

/// All of them.
#[rustfmt::skip]
pub const FIO: [Fio; 8] = [
    fio("4k read depth 1", "--iomem=shmhuge --rw=randread --bs=4k --iodepth=1", 0, false),
    fio("4k read depth 32", "--iomem=shmhuge --rw=randread --bs=4k --iodepth=32", 5000, true),
    fio("4k read depth 32 2 jobs", "--iomem=shmhuge --rw=randread --bs=4k --iodepth=32 --numjobs=2", 0, false),
    fio("4k read depth 32 scattered", "--iomem=malloc --rw=randread --bs=4k --iodepth=32", 0, false),
    fio("4k write depth 32", "--iomem=shmhuge --rw=randwrite --bs=4k --iodepth=32", 0, false),
    fio("128k read depth 16", "--iomem=shmhuge --rw=randread --bs=128k --iodepth=16", 2000, false),
    fio("128k read depth 16 scattered", "--iomem=malloc --rw=randread --bs=128k --iodepth=16", 2000, false),
    fio("4k 70/30 depth 32", "--iomem=shmhuge --rw=randrw --rwmixread=70 --bs=4k --iodepth=32", 0, false),
];

/// How long, and how much.
pub struct Extent {
    /// With QUICK=1
    pub quick: bool,
    /// Seconds of one IOMMU, all in all: with QUICK=1 three of them are to take five minutes
    pub seconds: u64,
    /// Seconds that are for times, even if it takes longer then
    pub times: u64,
    /// Counts of each thing in one guest
    pub counts: usize,
    /// Guests that count: how far a count repeats is only seen when a guest starts anew
    pub guests: usize,
    /// Milliseconds of a slice of pairs
    pub pair_ms: u64,
    /// Milliseconds of a slice of I/O
    pub fio_ms: u64,
    /// What a measurement has in its name, one of these; empty: all
    pub what: Vec<String>,
    /// Policies, by the names of ours; empty: all
    pub policies: Vec<String>,
    /// The policy of the kernel's driver that times of all are compared with; none: each with its like
    pub against: Option<String>,
}

impl Extent {
    /// For `make bench`, or with QUICK=1.
    pub fn new(quick: bool) -> Extent {
        match quick {
            true => Extent {
                quick,
                seconds: 94,
                times: 0,
                counts: 2,
                guests: 1,
                pair_ms: 150,
                fio_ms: 500,
                what: Vec::new(),
                policies: Vec::new(),
                against: None,
            },
            false => Extent {
                quick,
                seconds: 50 * 60,
                times: 39 * 60,
                counts: 3,
                guests: 2,
                pair_ms: 200,
                fio_ms: 1000,
                what: Vec::new(),
                policies: Vec::new(),
                against: None,
            },
        }
    }

    /// The number of the policy that the kernel's driver has for times, where ours has this one.
    pub fn against(&self, policy: usize) -> usize {
        let wanted = |p: &Policy| Some(p.in_tree) == self.against.as_deref();
        POLICIES.iter().position(wanted).unwrap_or(policy)
    }

    /// Whether a measurement is wanted, under one of [`POLICIES`].
    pub fn has(&self, what: &str, policy: usize) -> bool {
        let ours = POLICIES[policy].ours;
        (self.what.is_empty() || self.what.iter().any(|part| what.contains(part)))
            && (self.policies.is_empty() || self.policies.iter().any(|p| p == ours))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique() {
        let pairs: BTreeSet<_> = PAIRS.iter().map(|p| p.name).collect();
        assert_eq!(pairs.len(), PAIRS.len());
        let fio: BTreeSet<_> = FIO.iter().map(|p| p.name).collect();
        assert_eq!(fio.len(), FIO.len());
    }

    #[test]
    fn a_run_can_be_of_a_part() {
        let mut extent = Extent::new(true);
        assert!(extent.has("pair 4k", 0));
        extent.what = vec!["read".into(), "write".into()];
        extent.policies = vec!["lazy".into()];
        let lazy = POLICIES.iter().position(|p| p.ours == "lazy").unwrap();
        assert_eq!(extent.against(lazy), lazy);
        extent.against = Some("strict".into());
        assert_eq!(extent.against(lazy), 0);
        let extent = &extent;
        let has = |what| (0..POLICIES.len()).filter(move |p| extent.has(what, *p));
        assert_eq!(has("fio 4k read depth 1").collect::<Vec<_>>(), [lazy]);
        assert_eq!(has("fio 4k write depth 32").count(), 1);
        assert_eq!(has("pair 4k").count(), 0);
    }

    #[test]
    fn counts_take_one_cpu() {
        assert!(PAIRS.iter().all(|p| (p.cpus == 1) == (p.count > 0)));
    }
}
