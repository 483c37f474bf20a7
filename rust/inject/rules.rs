// SPDX-License-Identifier: GPL-2.0

//! The rules that are armed, and what they mean for who arrives at a point. Pure:
//! tested on the host.

use super::command::{
    Kind,
    Name,
    Place, //
};
use core::fmt;

/// How many rules there can be.
const RULES_MAX: usize = 32;

/// Who waits at a gate; no two are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

/// Why a rule was not armed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArmError {
    /// Somebody waits at the gate that it would replace.
    Held,
    /// There are too many.
    Full,
}

/// What is to happen to an arrival, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrival {
    /// It is delayed.
    pub micros: u32,
    /// It waits until the ticket is not [held](Rules::held) any more.
    pub gate: Option<Ticket>,
    /// It fails.
    pub errno: Option<u16>,
}

#[derive(Clone, Copy)]
struct Rule {
    place: Place,
    kind: Kind,
    /// Arrivals since the rule was armed.
    hits: u32,
    held: Option<Ticket>,
}

impl Rule {
    fn is_gate_of(&self, place: &Place) -> bool {
        matches!(self.kind, Kind::Gate { .. })
            && self.place.point == place.point
            && (place.device.is_none() || self.place.device == place.device)
    }

    fn arrive(&mut self, ticket: Ticket, arrival: &mut Arrival) {
        self.hits = self.hits.saturating_add(1);
        match self.kind {
            Kind::Gate { skip } if self.hits.checked_sub(1) == Some(skip) => {
                // Two gates can stop the same arrival; it has one ticket.
                self.held = Some(ticket);
                arrival.gate = self.held;
            }
            Kind::Fail { errno, at } if self.hits == at => arrival.errno = Some(errno),
            Kind::Delay { micros } => arrival.micros = arrival.micros.saturating_add(micros),
            _ => {}
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Gate { .. } => "gate",
            Kind::Fail { .. } => "fail",
            Kind::Delay { .. } => "delay",
            Kind::Count => "count",
        };
        let waiting = u32::from(self.held.is_some());
        let point = &self.place.point;
        write!(f, "{point} {kind} hits {} waiting {waiting}", self.hits)?;
        match self.kind {
            Kind::Gate { skip } => write!(f, " skip {skip}")?,
            Kind::Fail { errno, at } => {
                let fired = u32::from(self.hits >= at);
                write!(f, " errno {errno} at {at} fired {fired}")?;
            }
            Kind::Delay { micros } => write!(f, " micros {micros}")?,
            Kind::Count => {}
        }
        match &self.place.device {
            Some(device) => writeln!(f, " device {device}"),
            None => writeln!(f),
        }
    }
}

/// All rules.
pub struct Rules {
    rules: [Option<Rule>; RULES_MAX],
    tickets: u64,
}

impl Rules {
    /// None yet.
    pub const NONE: Self = Self {
        rules: [None; RULES_MAX],
        tickets: 0,
    };

    /// Arms a rule, in place of the one of its kind at the same place.
    pub fn arm(&mut self, place: Place, kind: Kind) -> Result<(), ArmError> {
        let same = |rule: &Option<Rule>| {
            rule.is_some_and(|r| {
                r.place == place
                    && core::mem::discriminant(&r.kind) == core::mem::discriminant(&kind)
            })
        };
        let at = self.rules.iter().position(same);
        let at = at.or_else(|| self.rules.iter().position(Option::is_none));
        let at = at
            .and_then(|at| self.rules.get_mut(at))
            .ok_or(ArmError::Full)?;
        if at.is_some_and(|old| old.held.is_some()) {
            return Err(ArmError::Held);
        }
        *at = Some(Rule {
            place,
            kind,
            hits: 0,
            held: None,
        });
        Ok(())
    }

    fn remove(&mut self, unwanted: impl Fn(&Rule) -> bool) -> bool {
        let mut found = false;
        for rule in &mut self.rules {
            found |= rule.take_if(|r| unwanted(r)).is_some();
        }
        found
    }

    /// Opens the gates of `place` and takes them away; whether there was one.
    pub fn open(&mut self, place: &Place) -> bool {
        self.remove(|rule| rule.is_gate_of(place))
    }

    /// Opens all gates and forgets all rules.
    pub fn clear(&mut self) {
        self.remove(|_| true);
    }

    /// Takes away the gates where the owner of `ticket` waits.
    pub fn give_up(&mut self, ticket: Ticket) {
        self.remove(|rule| rule.held == Some(ticket));
    }

    /// Whether the owner of `ticket` has to wait on.
    pub fn held(&self, ticket: Ticket) -> bool {
        self.rules
            .iter()
            .flatten()
            .any(|rule| rule.held == Some(ticket))
    }

    /// Whether somebody waits at a gate of `place`; `None` if there is no gate.
    pub fn waiting(&self, place: &Place) -> Option<bool> {
        let mut gates = self.rules.iter().flatten().filter(|r| r.is_gate_of(place));
        let first = gates.next()?;
        Some(first.held.is_some() || gates.any(|r| r.held.is_some()))
    }

    /// Counts an arrival and says what happens to it.
    pub fn arrive(&mut self, point: &str, device: Option<&str>) -> Arrival {
        let mut arrival = Arrival::default();
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        for rule in self.rules.iter_mut().flatten() {
            let wanted = rule.place.device.as_ref().map(Name::as_str);
            if rule.place.point.as_str() == point && (wanted.is_none() || wanted == device) {
                rule.arrive(ticket, &mut arrival);
            }
        }
        arrival
    }

    /// The [bits](bit) of all points that have a rule.
    pub fn mask(&self) -> u64 {
        let points = self.rules.iter().flatten().map(|r| &r.place.point);
        points.fold(0, |mask, point| mask | bit(point.as_str()))
    }
}

impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rules.iter().flatten().try_for_each(|rule| rule.fmt(f))
    }
}

/// One of 64 bits for a point, so that points without a rule can be told from most
/// others without the lock. Points may share a bit.
pub const fn bit(point: &str) -> u64 {
    let mut hash = 0u32;
    let mut bytes = point.as_bytes();
    while let [first, rest @ ..] = bytes {
        hash = hash.wrapping_mul(31).wrapping_add(*first as u32);
        bytes = rest;
    }
    1 << (hash % 64)
}
