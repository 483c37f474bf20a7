// SPDX-License-Identifier: GPL-2.0

//! Finds reports of the kernel about itself (warnings, oopses, KASAN, lockdep,
//! hung tasks, ...) in its console output.

use regex::Regex;

/// Lines kept of one report.
const MAX_LINES: usize = 30;
/// A report without an end mark is over after so many lines.
const MAX_DISTANCE: usize = 80;

/// What starts a report, matched against a message without its time stamp.
const STARTS: &[&str] = &[
    r"^WARNING: ",
    r"^(watchdog: )?BUG: ",
    r"^kernel BUG at ",
    r"^Oops\b",
    r"general protection fault",
    r"KASAN: ",
    r"KCSAN: ",
    r"KFENCE: ",
    r"UBSAN: ",
    r"possible circular locking",
    r"possible recursive locking",
    r"possible irq lock inversion",
    r"inconsistent lock state",
    r"suspicious RCU usage",
    r"Invalid wait context",
    r"blocked for more than \d+ seconds",
    r"blocked in I/O wait for more than",
    r"soft lockup",
    r"hard LOCKUP",
    r"(self-)?detected (expedited )?stalls?",
    r"kmemleak: \d+ new suspected memory leaks",
    r"^unreferenced object 0x",
    r"Kernel panic - not syncing",
    r"^rust_kernel: panicked at ",
    r"Unable to handle kernel",
    r"list_(add|del) corruption",
    r"DMA-API: ",
];

/// Messages that look like a start and are none.
const HARMLESS: &[&str] = &[r"DMA-API: (preallocated|debugging (en|dis)abled)"];

/// One report: its first lines, time stamps included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub lines: Vec<String>,
}

pub struct Scanner {
    stamp: Regex,
    start: Regex,
    harmless: Regex,
    end: Regex,
    reports: Vec<Report>,
    /// Lines since the start of the report that is being collected.
    open: Option<usize>,
}

impl Default for Scanner {
    fn default() -> Self {
        Self::new()
    }
}

impl Scanner {
    pub fn new() -> Scanner {
        let regex = |text: &str| Regex::new(text).expect("constant pattern");
        Scanner {
            stamp: regex(r"\[ *\d+\.\d{6}\](\[ *[TC]\d+\])? ?"),
            start: regex(&STARTS.join("|")),
            harmless: regex(&HARMLESS.join("|")),
            end: regex(r"^---\[ end |</TASK>"),
            reports: Vec::new(),
            open: None,
        }
    }

    /// Looks at one line of the console.
    pub fn line(&mut self, line: &str) {
        // Only the kernel prints time stamps, so what a program writes to the
        // console is never taken for a report.
        let Some(stamp) = self.stamp.find(line) else {
            return;
        };
        let message = &line[stamp.end()..];

        if let Some(distance) = self.open {
            if let Some(report) = self.reports.last_mut() {
                if report.lines.len() < MAX_LINES {
                    report.lines.push(line.to_string());
                }
            }
            let over = distance + 1 >= MAX_DISTANCE || self.end.is_match(message);
            self.open = if over { None } else { Some(distance + 1) };
        } else if self.start.is_match(message) && !self.harmless.is_match(message) {
            self.reports.push(Report {
                lines: vec![line.to_string()],
            });
            self.open = Some(0);
        }
    }

    pub fn reports(&self) -> &[Report] {
        &self.reports
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(text: &str) -> Vec<Report> {
        let mut scanner = Scanner::new();
        text.lines().for_each(|l| scanner.line(l));
        scanner.reports().to_vec()
    }

    fn stamped(message: &str) -> String {
        format!("[    1.234567] {message}")
    }

    #[test]
    fn every_kind_is_found() {
        for message in [
            "WARNING: drivers/iommu/iommu.c:654 at __iommu_probe_device+0x1/0x2, CPU#0: insmod/70",
            "WARNING: possible circular locking dependency detected",
            "WARNING: possible recursive locking detected",
            "WARNING: inconsistent lock state",
            "WARNING: suspicious RCU usage",
            "BUG: sleeping function called from invalid context at kernel/locking/mutex.c:283",
            "BUG: KASAN: slab-use-after-free in foo+0x1/0x2 [rust_vtd]",
            "BUG: unable to handle page fault for address: ffff888000000000",
            "BUG: kernel NULL pointer dereference, address: 0000000000000008",
            "kernel BUG at lib/list_debug.c:29!",
            "Oops: general protection fault, probably for non-canonical address 0xdead: 0000 [#1]",
            "Oops: Oops: 0002 [#1] SMP KASAN NOPTI",
            "UBSAN: array-index-out-of-bounds in drivers/a.c:3:4",
            "INFO: task fio:77 blocked for more than 40 seconds.",
            "watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [insmod:80]",
            "rcu: INFO: rcu_preempt self-detected stall on CPU",
            "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
            "kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
            "Kernel panic - not syncing: Attempted to kill init!",
            "DMA-API: nvme 0000:01:00.0: device driver tries to free DMA memory it has not allocated",
            "rust_kernel: panicked at drivers/vtd/unit.rs:10:5:",
        ] {
            assert_eq!(scan(&stamped(message)).len(), 1, "{message}");
            let caller = format!("[  301.000001][  T77] {message}");
            assert_eq!(scan(&caller).len(), 1, "{message}");
        }
    }

    #[test]
    fn ordinary_messages_are_not() {
        for message in [
            "DMA-API: preallocated 65536 debug entries",
            "DMA-API: debugging enabled by kernel config",
            "kmemleak: Kernel memory leak detector initialized (mem pool available: 15679)",
            "kasan: KernelAddressSanitizer initialized",
            "rust_vtd: fault: device 00:03.0 read of 0x1000: not present",
            "nvme nvme0: 2/0/0 default/read/poll queues",
            "Kernel command line: oops=panic panic=-1",
            "module verification failed: signature and/or required key missing - tainting kernel",
        ] {
            assert_eq!(scan(&stamped(message)), [], "{message}");
        }
    }

    #[test]
    fn programs_cannot_fake_a_report() {
        assert_eq!(scan("WARNING: from fio\nBUG: mine\n# Oops"), []);
    }

    #[test]
    fn a_report_after_a_partial_line_is_found() {
        let reports = scan("some prompt # [   12.000001] BUG: KASAN: x");
        assert_eq!(
            reports[0].lines,
            ["some prompt # [   12.000001] BUG: KASAN: x"]
        );
    }

    #[test]
    fn one_report_is_counted_once_and_ends() {
        let mut text = vec![stamped("------------[ cut here ]------------")];
        text.push(stamped("WARNING: a.c:1 at f+0x1/0x2, CPU#0: insmod/70"));
        text.push(stamped("Call Trace:"));
        text.push(stamped(" <TASK>"));
        text.push(stamped(" ? WARNING: this_is_part_of_it"));
        text.push(stamped("---[ end trace 0000000000000000 ]---"));
        text.push(stamped("nvme nvme0: fine"));
        text.push(stamped("BUG: second"));
        let reports = scan(&text.join("\n"));
        assert_eq!(reports.len(), 2);
        assert_eq!(reports[0].lines.len(), 5);
        assert_eq!(reports[1].lines, [stamped("BUG: second")]);
    }

    #[test]
    fn a_long_report_is_cut() {
        let text = format!("{}\n", stamped("BUG: a")) + &(stamped("more") + "\n").repeat(60);
        assert_eq!(scan(&text)[0].lines.len(), MAX_LINES);
    }
}
