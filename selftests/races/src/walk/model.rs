// SPDX-License-Identifier: GPL-2.0

//! Where a device is in a random walk, what that lets it reach, and which commands take
//! it elsewhere. Nothing here asks a kernel.

/// Domains of each device.
pub const DOMAINS: usize = 3;

const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const EBUSY: i32 = 16;
const EALREADY: i32 = 114;

/// The domain that a device is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Translated by the group's default domain, where nothing is mapped
    Default,
    Identity,
    Blocked,
    Domain(usize),
}

/// Something to write to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The address that this domain maps, and no other
    Mapped(usize),
    /// The physical address of a page, which no domain maps
    Physical,
}

pub const TARGETS: [Target; DOMAINS + 1] = [
    Target::Mapped(0),
    Target::Mapped(1),
    Target::Mapped(2),
    Target::Physical,
];

impl Place {
    /// The only target that is reached from here.
    pub fn target(self) -> Option<Target> {
        match self {
            Place::Default | Place::Blocked => None,
            Place::Identity => Some(Target::Physical),
            Place::Domain(number) => Some(Target::Mapped(number)),
        }
    }
}

/// Type of a default domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Identity,
    Strict,
    Lazy,
}

impl Type {
    /// As in sysfs.
    pub fn name(self) -> &'static str {
        match self {
            Type::Identity => "identity",
            Type::Strict => "DMA",
            Type::Lazy => "DMA-FQ",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Claim,
    Release,
    Attach(usize),
    Detach,
    Type(Type),
}

pub const COMMANDS: [Command; 9] = [
    Command::Claim,
    Command::Release,
    Command::Attach(0),
    Command::Attach(1),
    Command::Attach(2),
    Command::Detach,
    Command::Type(Type::Identity),
    Command::Type(Type::Strict),
    Command::Type(Type::Lazy),
];

/// A device alone in its group, with a driver that manages DMA itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    default: Type,
    claimed: bool,
    attached: Option<usize>,
}

impl State {
    /// Unclaimed, as a driver finds it.
    pub fn new(default: Type) -> State {
        State {
            default,
            claimed: false,
            attached: None,
        }
    }

    pub fn place(&self) -> Place {
        match (self.claimed, self.attached, self.default) {
            (_, Some(number), _) => Place::Domain(number),
            (true, None, _) => Place::Blocked,
            (false, None, Type::Identity) => Place::Identity,
            (false, None, _) => Place::Default,
        }
    }

    /// The state after `command`, or the error that leaves it as it is.
    pub fn after(&self, command: Command) -> Result<State, i32> {
        let mut next = *self;
        match command {
            Command::Claim if self.claimed => return Err(EALREADY),
            Command::Claim => next.claimed = true,
            Command::Release if !self.claimed => return Err(ENOENT),
            Command::Release => next = State::new(self.default),
            Command::Attach(_) | Command::Detach if !self.claimed => return Err(EPERM),
            // The same domain again, too: an owner goes by way of blocked.
            Command::Attach(_) if self.attached.is_some() => return Err(EBUSY),
            Command::Attach(number) => next.attached = Some(number),
            Command::Detach if self.attached.is_none() => return Err(ENOENT),
            Command::Detach => next.attached = None,
            // The core makes a default domain lazy as it stands, whoever has the group.
            Command::Type(Type::Lazy) if self.default == Type::Strict => next.default = Type::Lazy,
            Command::Type(_) if self.claimed => return Err(EPERM),
            Command::Type(default) => next.default = default,
        }
        Ok(next)
    }
}

/// Numbers that follow from a seed (xorshift64*).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        // Of zero comes nothing but zero.
        Random(seed.max(1))
    }

    /// One of `0..limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }

    pub fn choose<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn go(state: State, commands: &[Command]) -> State {
        let step = |state: State, command: &Command| state.after(*command).unwrap();
        commands.iter().fold(state, step)
    }

    #[test]
    fn commands_lead_where_they_should() {
        let start = State::new(Type::Strict);
        assert_eq!(start.place(), Place::Default);
        let identity = go(start, &[Command::Type(Type::Identity)]);
        assert_eq!(identity.place(), Place::Identity);
        let claimed = go(identity, &[Command::Claim]);
        assert_eq!(claimed.place(), Place::Blocked);
        let attached = go(claimed, &[Command::Attach(2)]);
        assert_eq!(attached.place(), Place::Domain(2));
        assert_eq!(go(attached, &[Command::Detach]), claimed);
        assert_eq!(go(attached, &[Command::Release]), identity);
    }

    #[test]
    fn refused_commands() {
        let start = State::new(Type::Lazy);
        for (state, command, errno) in [
            (start, Command::Release, ENOENT),
            (start, Command::Attach(0), EPERM),
            (start, Command::Detach, EPERM),
        ] {
            assert_eq!(state.after(command), Err(errno));
        }
        let claimed = go(start, &[Command::Claim]);
        assert_eq!(claimed.after(Command::Claim), Err(EALREADY));
        assert_eq!(claimed.after(Command::Detach), Err(ENOENT));
        assert_eq!(claimed.after(Command::Type(Type::Lazy)), Err(EPERM));
        let strict = go(State::new(Type::Strict), &[Command::Claim]);
        assert_eq!(strict.after(Command::Type(Type::Lazy)), Ok(claimed));
        let attached = go(claimed, &[Command::Attach(1)]);
        assert_eq!(attached.after(Command::Attach(1)), Err(EBUSY));
        assert_eq!(attached.after(Command::Attach(0)), Err(EBUSY));
    }

    #[test]
    fn places_differ_in_what_they_reach() {
        let reached = |place: Place| TARGETS.iter().position(|t| Some(*t) == place.target());
        let domains = (0..DOMAINS).map(Place::Domain);
        let all: Vec<_> = domains.chain([Place::Identity]).map(reached).collect();
        assert_eq!(all, [Some(0), Some(1), Some(2), Some(3)]);
        assert_eq!(reached(Place::Blocked), None);
        assert_eq!(reached(Place::Default), None);
    }

    #[test]
    fn a_walk_comes_everywhere() {
        let mut random = Random::new(7);
        let mut seen = Vec::new();
        let mut state = State::new(Type::Strict);
        for _ in 0..2000 {
            let from = state.place();
            state = state.after(random.choose(&COMMANDS)).unwrap_or(state);
            if !seen.contains(&(from, state.place())) {
                seen.push((from, state.place()));
            }
        }
        // Each of the six to itself; blocked to all and back (10); attached or
        // unclaimed to what a release or a change of type leads to (2 + 6).
        assert_eq!(seen.len(), 24);
    }

    #[test]
    fn seeds_repeat() {
        let numbers = |seed| {
            let mut random = Random::new(seed);
            (0..50).map(|_| random.below(9)).collect::<Vec<_>>()
        };
        assert_eq!(numbers(3), numbers(3));
        assert_ne!(numbers(3), numbers(4));
        assert!((0..9).all(|n| numbers(5).contains(&n)));
    }
}
