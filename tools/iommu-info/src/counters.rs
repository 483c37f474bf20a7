// SPDX-License-Identifier: GPL-2.0

//! Counters of our drivers, and what they grew by in a second. Pure.

use crate::address::Address;
use serde::Serialize;
use std::collections::BTreeMap;

/// What was counted so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The counters of each unit, by name.
    pub units: BTreeMap<String, BTreeMap<String, u64>>,
    /// The devices that are counted.
    pub devices: BTreeMap<Address, Counts>,
}

/// What is counted of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// What is mapped for it now.
    pub mapped: Option<Mapped>,
    /// Its lazy window, if it has one.
    pub window: Option<Window>,
    /// Commands that made its unit forget translations of the domain that it was on.
    pub invalidations: Option<u64>,
    /// Requests of its own that were refused.
    pub faults: Option<u64>,
}

/// What is mapped in a device's domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mapped {
    /// How many mappings.
    pub mappings: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The lazy window of a device (Documentation/lazy-flush.rst).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Pages that are mapped now.
    pub mapped: u64,
    /// How often it was invalidated.
    pub flushes: u64,
}

/// What happened between two snapshots.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rates {
    /// Seconds between the two.
    pub seconds: f64,
    /// The units.
    pub units: Vec<UnitRates>,
    /// The devices for which something is mapped or was invalidated, that have a lazy window, or were refused
    /// something.
    pub devices: Vec<DeviceRates>,
    /// What is not counted, in words.
    pub missing: Vec<String>,
}

/// Of a unit, per second. Absent: not counted, or begun anew in between.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct UnitRates {
    /// Which one.
    pub name: String,
    /// Invalidations of its caches.
    pub invalidations: Option<f64>,
    /// Requests that it refused.
    pub faults: Option<f64>,
}

/// Of a device.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct DeviceRates {
    /// Which one.
    pub address: Address,
    /// What is mapped in its domain, at the second snapshot.
    pub mappings: Option<u64>,
    /// The bytes of that.
    pub mapped_bytes: Option<u64>,
    /// Invalidations of its domain, per second.
    pub invalidations: Option<f64>,
    /// Invalidations of its lazy window, per second.
    pub flushes: Option<f64>,
    /// Pages that are mapped in its lazy window, at the second snapshot.
    pub live_pages: Option<u64>,
    /// Requests of its own that were refused, per second.
    pub faults: Option<f64>,
}

/// The number in front of a word: `12` of `12 mapped:`.
fn before(line: &str, word: &str) -> Option<u64> {
    let mut last = "";
    for next in line.split_whitespace() {
        if next.trim_end_matches([',', ':']) == word {
            return last.parse().ok();
        }
        last = next;
    }
    None
}

/// Reads the windows in a report `groups` (rust/holders.rs, rust/policy/mapper.rs): each stands in the line
/// below its device's.
pub fn parse_windows(report: &str) -> BTreeMap<Address, Window> {
    let mut windows = BTreeMap::new();
    let mut device = None;
    for line in report.lines() {
        let line = line.trim_start();
        if line.starts_with("window at ") {
            let (mapped, flushes) = (before(line, "mapped"), before(line, "flushes"));
            if let (Some(at), Some(mapped), Some(flushes)) = (device, mapped, flushes) {
                windows.insert(at, Window { mapped, flushes });
            }
        } else {
            device = line
                .split_whitespace()
                .next()
                .and_then(|word| word.parse().ok());
        }
    }
    windows
}

/// Events per second. `None` for a counter that is not there, or that fell: its driver was loaded anew.
fn rate(before: Option<u64>, after: Option<u64>, seconds: f64) -> Option<f64> {
    let events = after?.checked_sub(before?)?;
    // CAST: exact up to 2^53 events.
    (seconds > 0.0).then(|| events as f64 / seconds)
}

/// What happened in `seconds` between two snapshots.
pub fn rates(before: &Snapshot, after: &Snapshot, seconds: f64) -> Rates {
    let units = after.units.iter().map(|(name, now)| {
        let of = |counter: &str| {
            let old = before.units.get(name).and_then(|u| u.get(counter));
            rate(old.copied(), now.get(counter).copied(), seconds)
        };
        UnitRates {
            name: name.clone(),
            invalidations: of("invalidations"),
            faults: of("faults"),
        }
    });
    let shown = |counts: &Counts| {
        counts.window.is_some() || counts.mapped.is_some_and(|mapped| mapped.mappings > 0)
    };
    let devices = after.devices.iter().map(|(address, now)| {
        let old = before.devices.get(address);
        let of = |counter: fn(&Counts) -> Option<u64>| {
            rate(old.and_then(counter), counter(now), seconds)
        };
        let rates = DeviceRates {
            address: *address,
            mappings: now.mapped.map(|mapped| mapped.mappings),
            mapped_bytes: now.mapped.map(|mapped| mapped.bytes),
            invalidations: of(|counts| counts.invalidations),
            flushes: of(|counts| counts.window.map(|window| window.flushes)),
            live_pages: now.window.map(|window| window.mapped),
            faults: of(|counts| counts.faults),
        };
        let some = |rate: Option<f64>| rate.is_some_and(|rate| rate > 0.0);
        (shown(now) || some(rates.invalidations) || some(rates.faults)).then_some(rates)
    });
    Rates {
        seconds,
        units: units.collect(),
        devices: devices.flatten().collect(),
        missing: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REPORT: &str = "\
group 4: held for the DMA API by 1 of 1 devices
  0000:01:00.0 driver nvme, uses the DMA API, domain default
    window at 0xc0000000, 262144 pages, 17 mapped: 3 laps, 40 flushes, 0 failed, 0 searches
group 5: not held
  0000:02:00.0 no driver, domain default
";

    #[test]
    fn windows_belong_to_the_device_above() {
        let windows = parse_windows(REPORT);
        let at: Address = "0000:01:00.0".parse().unwrap();
        let window = Window {
            mapped: 17,
            flushes: 40,
        };
        assert_eq!(windows, BTreeMap::from([(at, window)]));
    }

    fn snapshot(invalidations: u64, flushes: u64) -> Snapshot {
        let counters = BTreeMap::from([("invalidations".to_string(), invalidations)]);
        let counts = Counts {
            mapped: None,
            window: Some(Window { mapped: 1, flushes }),
            ..Counts::default()
        };
        Snapshot {
            units: BTreeMap::from([("vtd0".to_string(), counters)]),
            devices: BTreeMap::from([("01:00.0".parse().unwrap(), counts)]),
        }
    }

    #[test]
    fn a_driver_that_was_loaded_anew_has_no_rate() {
        let rates = rates(&snapshot(10, 5), &snapshot(3, 7), 2.0);
        assert_eq!(rates.units[0].invalidations, None);
        assert_eq!(rates.units[0].faults, None);
        assert_eq!(rates.devices[0].flushes, Some(1.0));
    }

    #[test]
    fn a_device_of_which_only_events_are_known_is_shown_while_there_are_some() {
        let at: Address = "01:00.0".parse().unwrap();
        let of = |invalidations, faults| Snapshot {
            devices: BTreeMap::from([(
                at,
                Counts {
                    invalidations: Some(invalidations),
                    faults: Some(faults),
                    ..Counts::default()
                },
            )]),
            ..Snapshot::default()
        };
        let of_two = |before: &Snapshot, after: &Snapshot| {
            let rates = rates(before, after, 2.0);
            rates.devices.first().map(|d| (d.invalidations, d.faults))
        };
        let both = |invalidations, faults| Some((Some(invalidations), Some(faults)));
        assert_eq!(of_two(&of(9, 3), &of(9, 7)), both(0.0, 2.0));
        assert_eq!(of_two(&of(9, 3), &of(10, 3)), both(0.5, 0.0));
        assert_eq!(of_two(&of(9, 3), &of(9, 3)), None);
        // Found anew.
        assert_eq!(of_two(&of(9, 3), &of(1, 1)), None);
        assert_eq!(of_two(&Snapshot::default(), &of(1, 1)), None);
    }

    proptest! {
        #[test]
        fn rates_times_seconds_are_what_was_counted(
            start in 0u64..1 << 40, events in 0u64..1 << 30, seconds in 0.01f64..1000.0
        ) {
            let rates = rates(&snapshot(start, 0), &snapshot(start + events, events), seconds);
            let counted = |rate: Option<f64>| (rate.unwrap() * seconds).round() as u64;
            prop_assert_eq!(counted(rates.units[0].invalidations), events);
            prop_assert_eq!(counted(rates.devices[0].flushes), events);
        }

        #[test]
        fn any_text_is_read(text in "(group|window at|[0-9]+ mapped|[0-9]+ flushes|01:00.0|[ \n,:x]){0,30}") {
            parse_windows(&text);
        }
    }
}
