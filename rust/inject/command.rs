// SPDX-License-Identifier: GPL-2.0

//! The commands of the injection file. Pure: tested on the host.

use core::fmt;

/// Longest name of a point or a device, in bytes.
const NAME_MAX: usize = 31;
/// Errors are told from pointers up to here (`MAX_ERRNO` of the kernel).
const ERRNO_MAX: u32 = 4095;
const DELAY_MAX_MICROS: u32 = 1_000_000;
const WAIT_MAX_SECONDS: u32 = 600;
const WAIT_SECONDS: u32 = 30;

/// Name of a point or of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    bytes: [u8; NAME_MAX],
    len: u8,
}

impl Name {
    /// `None` if the text is empty or too long.
    pub fn new(text: &str) -> Option<Self> {
        if text.is_empty() {
            return None;
        }
        let mut bytes = [0; NAME_MAX];
        bytes
            .get_mut(..text.len())?
            .copy_from_slice(text.as_bytes());
        Some(Self {
            bytes,
            len: u8::try_from(text.len()).ok()?,
        })
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..usize::from(self.len)).unwrap_or_default();
        // Never the default: the bytes are a whole `str`.
        core::str::from_utf8(bytes).unwrap_or_default()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a command is about: a point, for one device or for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The point.
    pub point: Name,
    /// Only arrivals for this device count.
    pub device: Option<Name>,
}

/// What happens to those who arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The one after `skip` others is held until the gate is opened.
    Gate {
        /// How many pass before.
        skip: u32,
    },
    /// One fails.
    Fail {
        /// With this error number, 1 to 4095.
        errno: u16,
        /// Which, counted from 1.
        at: u32,
    },
    /// All are delayed.
    Delay {
        /// By this time.
        micros: u32,
    },
    /// They are counted only.
    Count,
}

/// A line written to the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Arms a rule, in place of the one of the same kind that is there.
    Arm(Place, Kind),
    /// Opens the gates of the place, and takes them away.
    Open(Place),
    /// Waits until somebody is held at a gate of the place.
    Wait(Place, u32),
    /// Opens all gates and forgets all rules.
    Clear,
}

/// The words after the command and the point: numbers in order, and one device,
/// which is told from a number by having anything but digits in it.
struct Rest {
    numbers: [Option<u32>; 2],
    device: Option<Name>,
}

impl Rest {
    fn parse<'a>(words: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut numbers = [None; 2];
        let mut places = numbers.iter_mut();
        let mut device = None;
        for word in words {
            if word.bytes().all(|b| b.is_ascii_digit()) {
                *places.next()? = Some(word.parse().ok()?);
            } else if device.replace(Name::new(word)?).is_some() {
                return None;
            }
        }
        Some(Self { numbers, device })
    }
}

impl Command {
    /// `None` if the text is no command.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let name = words.next()?;
        let Some(point) = words.next() else {
            return (name == "clear").then_some(Self::Clear);
        };
        let rest = Rest::parse(words)?;
        let place = Place {
            point: Name::new(point)?,
            device: rest.device,
        };
        Some(match (name, rest.numbers) {
            ("gate", [skip, None]) => Self::Arm(
                place,
                Kind::Gate {
                    skip: skip.unwrap_or(0),
                },
            ),
            ("fail", [Some(errno @ 1..=ERRNO_MAX), at]) => Self::Arm(
                place,
                Kind::Fail {
                    errno: u16::try_from(errno).ok()?,
                    at: at.map_or(Some(1), |n| (n > 0).then_some(n))?,
                },
            ),
            ("delay", [Some(micros @ ..=DELAY_MAX_MICROS), None]) => {
                Self::Arm(place, Kind::Delay { micros })
            }
            ("count", [None, None]) => Self::Arm(place, Kind::Count),
            ("open", [None, None]) => Self::Open(place),
            ("wait", [None, None]) => Self::Wait(place, WAIT_SECONDS),
            ("wait", [Some(seconds @ ..=WAIT_MAX_SECONDS), None]) => Self::Wait(place, seconds),
            _ => return None,
        })
    }
}
