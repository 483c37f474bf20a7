// SPDX-License-Identifier: GPL-2.0

//! Where devices are in a random walk, what that lets them reach, and which commands take
//! them elsewhere or change it. Nothing here asks a kernel.

/// Domains that the devices share.
pub const DOMAINS: usize = 3;

const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const EBUSY: i32 = 16;
const EEXIST: i32 = 17;
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
    /// The address that this domain may map, and no other
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
    /// The only target that is reached from here, if the domain maps it.
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

/// What can be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// To this device
    Device(usize, Command),
    /// To this domain, whoever is attached
    Map(usize),
    Unmap(usize),
}

/// Devices that share their domains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    devices: Vec<State>,
    mapped: [bool; DOMAINS],
}

impl World {
    /// Of `count` devices that nobody has claimed; the domains map nothing.
    pub fn new(count: usize, default: Type) -> World {
        World {
            devices: vec![State::new(default); count],
            mapped: [false; DOMAINS],
        }
    }

    pub fn devices(&self) -> &[State] {
        &self.devices
    }

    /// The only target that the device reaches.
    pub fn reached(&self, device: usize) -> Option<Target> {
        let target = self.devices[device].place().target();
        target.filter(|target| match target {
            Target::Mapped(number) => self.mapped[*number],
            Target::Physical => true,
        })
    }

    /// How many devices are attached to the domain.
    pub fn attached(&self, domain: usize) -> usize {
        let places = self.devices.iter().map(State::place);
        places.filter(|p| *p == Place::Domain(domain)).count()
    }

    /// The world after `step`, or the error that leaves it as it is.
    pub fn after(&self, step: Step) -> Result<World, i32> {
        let mut next = self.clone();
        match step {
            Step::Device(number, command) => {
                next.devices[number] = self.devices[number].after(command)?;
            }
            Step::Map(domain) if self.mapped[domain] => return Err(EEXIST),
            Step::Map(domain) => next.mapped[domain] = true,
            Step::Unmap(domain) if !self.mapped[domain] => return Err(ENOENT),
            Step::Unmap(domain) => next.mapped[domain] = false,
        }
        Ok(next)
    }

    /// A step for `random` to take; some are refused. Often it brings devices together in a
    /// domain, or changes one that a device is attached to.
    pub fn choose(&self, random: &mut Random) -> Step {
        let used = (0..DOMAINS).filter(|domain| self.attached(*domain) > 0);
        let most = used.max_by_key(|domain| self.attached(*domain));
        let domain = match (random.below(4), most) {
            (1.., Some(most)) => most,
            _ => random.below(DOMAINS),
        };
        let several = self.attached(domain) > 1;
        match random.below(if several { 6 } else { 12 }) {
            0 => return Step::Unmap(domain),
            1..4 => return Step::Map(domain),
            _ => {}
        }
        let number = random.below(self.devices.len());
        let state = self.devices[number];
        let possible = COMMANDS.into_iter().filter(|c| state.after(*c).is_ok());
        let command = match random.below(4) {
            0 => random.choose(&COMMANDS),
            _ => random.choose(&possible.collect::<Vec<_>>()),
        };
        Step::Device(
            number,
            match command {
                Command::Attach(_) => Command::Attach(domain),
                other => other,
            },
        )
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
    fn devices_share_what_a_domain_maps() {
        let go = |world: World, step: &Step| world.after(*step).unwrap();
        let steps = [
            Step::Map(1),
            Step::Device(0, Command::Claim),
            Step::Device(1, Command::Claim),
            Step::Device(0, Command::Attach(1)),
        ];
        let one = steps.iter().fold(World::new(2, Type::Strict), go);
        assert_eq!(one.reached(0), Some(Target::Mapped(1)));
        assert_eq!((one.reached(1), one.attached(1)), (None, 1));
        let both = go(one.clone(), &Step::Device(1, Command::Attach(1)));
        assert_eq!(both.reached(1), Some(Target::Mapped(1)));
        assert_eq!(both.attached(1), 2);
        let unmapped = go(both.clone(), &Step::Unmap(1));
        assert_eq!((unmapped.reached(0), unmapped.reached(1)), (None, None));
        assert_eq!(go(unmapped.clone(), &Step::Map(1)), both);
        assert_eq!(both.after(Step::Map(1)), Err(EEXIST));
        assert_eq!(unmapped.after(Step::Unmap(1)), Err(ENOENT));
        assert_eq!(both.after(Step::Map(0)).unwrap().reached(0), one.reached(0));
        // One goes, the other stays where it is.
        let left = go(both, &Step::Device(0, Command::Release));
        assert_eq!((left.reached(0), left.attached(1)), (None, 1));
        assert_eq!(left.reached(1), Some(Target::Mapped(1)));
    }

    #[test]
    fn a_walk_changes_domains_under_both_devices() {
        let mut random = Random::new(7);
        let mut world = World::new(2, Type::Strict);
        let mut seen = [[0; 3]; 2];
        for _ in 0..10_000 {
            let step = world.choose(&mut random);
            let Ok(next) = world.after(step) else {
                continue;
            };
            match step {
                Step::Map(domain) => seen[0][world.attached(domain)] += 1,
                Step::Unmap(domain) => seen[1][world.attached(domain)] += 1,
                Step::Device(..) => {}
            }
            world = next;
        }
        // By the number of devices that are attached: none, one, both.
        assert!(seen.iter().flatten().all(|n| *n > 20), "{seen:?}");
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
