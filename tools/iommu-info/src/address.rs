// SPDX-License-Identifier: GPL-2.0

//! PCI addresses, as sysfs writes them: segment, bus, device and function.

use serde::{Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// Segment, bus, device and function of a PCI function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The segment; "domain" in the names of sysfs, of up to 32 bits there.
    pub segment: u32,
    /// The bus.
    pub bus: u8,
    /// The device (slot) on its bus, 0 to 31.
    pub device: u8,
    /// The function of its device, 0 to 7.
    pub function: u8,
}

impl Address {
    /// Whether `other` is a function of the same device.
    pub fn same_slot(&self, other: &Address) -> bool {
        (self.segment, self.bus, self.device) == (other.segment, other.bus, other.device)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Address {
            segment,
            bus,
            device,
            function,
        } = self;
        write!(f, "{segment:04x}:{bus:02x}:{device:02x}.{function:x}")
    }
}

/// The PCI functions that a path of sysfs leads through, from the root. Below a function that has a host bridge
/// of its own (Intel VMD) only those behind that: the others are of another segment, and not above the device.
pub fn path<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<Address> {
    let mut path = Vec::new();
    for name in names {
        if is_root(name) {
            path.clear();
        }
        path.extend(name.parse::<Address>());
    }
    path
}

/// Whether this is the name of a root bus, such as `pci0000:00`.
fn is_root(name: &str) -> bool {
    let parts = name.strip_prefix("pci").and_then(|n| n.split_once(':'));
    parts.is_some_and(|(segment, bus)| {
        hex(segment, 8, u32::MAX).is_some() && hex(bus, 2, 0xff).is_some()
    })
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// A hexadecimal number of `1..=digits` digits, at most `max`.
fn hex(text: &str, digits: usize, max: u32) -> Option<u32> {
    let plain = text.bytes().all(|b| b.is_ascii_hexdigit());
    if !plain || text.is_empty() || text.len() > digits {
        return None;
    }
    u32::from_str_radix(text, 16).ok().filter(|n| *n <= max)
}

fn parse(text: &str) -> Option<Address> {
    let (rest, function) = text.rsplit_once('.')?;
    let (rest, device) = rest.rsplit_once(':')?;
    let (segment, bus) = rest.rsplit_once(':').unwrap_or(("0", rest));
    Some(Address {
        segment: hex(segment, 8, u32::MAX)?,
        bus: u8::try_from(hex(bus, 2, 0xff)?).ok()?,
        device: u8::try_from(hex(device, 2, 31)?).ok()?,
        function: u8::try_from(hex(function, 1, 7)?).ok()?,
    })
}

impl FromStr for Address {
    type Err = String;

    /// Reads `0000:01:00.0`, or `01:00.0` for segment 0.
    fn from_str(text: &str) -> Result<Address, String> {
        parse(text).ok_or_else(|| "not a PCI address such as 0000:01:00.0".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn short_and_long_names() {
        let long: Address = "0000:01:1f.7".parse().unwrap();
        assert_eq!(long, "01:1f.7".parse().unwrap());
        assert_eq!(long.to_string(), "0000:01:1f.7");
        let segment: Address = "10000:e1:00.0".parse().unwrap();
        assert_eq!(segment.to_string(), "10000:e1:00.0");
    }

    #[test]
    fn a_path_begins_at_the_last_root_bus() {
        let of = |text: &str| -> Vec<String> {
            path(text.split('/'))
                .iter()
                .map(Address::to_string)
                .collect()
        };
        assert_eq!(
            of("sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0/nvme/nvme0"),
            ["0000:00:01.0", "0000:01:00.0"]
        );
        assert_eq!(
            of("sys/devices/pci0000:00/0000:00:0e.0/pci10000:e0/10000:e0:06.0/10000:e1:00.0"),
            ["10000:e0:06.0", "10000:e1:00.0"]
        );
        assert_eq!(
            of("sys/devices/pci_bus/pcix:00/0000:00:01.0"),
            ["0000:00:01.0"]
        );
        assert_eq!(of("sys/devices/virtual/net/lo"), [""; 0]);
    }

    #[test]
    fn what_is_no_address() {
        for bad in [
            "",
            "0",
            "01:00",
            "01:20.0",
            "01:00.8",
            "100:00.0",
            "0:0:0:0.0",
            "+1:00.0",
            " 01:00.0",
            "01:00.0 ",
            "01:00.00",
            "123456789:01:00.0",
        ] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read(segment: u32, bus: u8, device in 0u8..32, function in 0u8..8) {
            let address = Address { segment, bus, device, function };
            prop_assert_eq!(address.to_string().parse(), Ok(address));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,20}") {
            if let Ok(address) = text.parse::<Address>() {
                prop_assert_eq!(address.to_string().parse(), Ok(address));
            }
        }
    }
}
