// SPDX-License-Identifier: GPL-2.0

//! Injection points: commands and rules.

use iommu::inject::command::{Command, Kind, Name, Place};
use iommu::inject::rules::{bit, ArmError, Rules};
use proptest::prelude::*;

fn place(point: &str, device: Option<&str>) -> Place {
    Place {
        point: Name::new(point).unwrap(),
        device: device.map(|d| Name::new(d).unwrap()),
    }
}

/// Does what the line says, like the file; `Wait` is not for here.
fn run(rules: &mut Rules, line: &str) {
    match Command::parse(line).unwrap() {
        Command::Arm(place, kind) => rules.arm(place, kind).unwrap(),
        Command::Open(place) => assert!(rules.open(&place)),
        Command::Clear => rules.clear(),
        Command::Wait(..) => panic!("{line}"),
    }
}

fn text(command: &Command) -> String {
    let of = |place: &Place| match &place.device {
        Some(device) => format!("{} {device}", place.point),
        None => place.point.to_string(),
    };
    match command {
        Command::Arm(place, Kind::Gate { skip }) => format!("gate {} {skip}", of(place)),
        Command::Arm(place, Kind::Fail { errno, at }) => format!("fail {} {errno} {at}", of(place)),
        Command::Arm(place, Kind::Delay { micros }) => format!("delay {} {micros}\n", of(place)),
        Command::Arm(place, Kind::Count) => format!("count  {}", of(place)),
        Command::Open(place) => format!("open {}", of(place)),
        Command::Wait(place, seconds) => format!("wait {} {seconds}", of(place)),
        Command::Clear => " clear ".into(),
    }
}

fn places() -> impl Strategy<Value = Place> {
    let device = proptest::option::of("[a-z0-9]{1,4}:[0-9a-f]{2}\\.[0-7]");
    ("[a-z_.]{1,31}", device).prop_map(|(point, device)| place(&point, device.as_deref()))
}

fn commands() -> impl Strategy<Value = Command> {
    let arm = |kind| move |place| Command::Arm(place, kind);
    prop_oneof![
        (places(), any::<u32>()).prop_map(move |(p, skip)| arm(Kind::Gate { skip })(p)),
        (places(), 1..=4095u16, 1..=u32::MAX)
            .prop_map(move |(p, errno, at)| arm(Kind::Fail { errno, at })(p)),
        (places(), 0..=1_000_000u32).prop_map(move |(p, micros)| arm(Kind::Delay { micros })(p)),
        places().prop_map(arm(Kind::Count)),
        places().prop_map(Command::Open),
        (places(), 0..=600u32).prop_map(|(p, seconds)| Command::Wait(p, seconds)),
        Just(Command::Clear),
    ]
}

proptest! {
    #[test]
    fn any_text_is_a_command_or_none(line in any::<String>()) {
        let _ = Command::parse(&line);
    }

    #[test]
    fn any_words_are_a_command_or_none(
        words in proptest::collection::vec("gate|open|wait|fail|delay|count|clear|[0-9]{1,12}|.{0,40}", 0..6)
    ) {
        let _ = Command::parse(&words.join(" "));
    }

    #[test]
    fn commands_survive_their_text(command in commands()) {
        prop_assert_eq!(Command::parse(&text(&command)), Some(command));
    }

    /// Whatever is armed: who is held is let go by `open`, `clear` or `give_up`, the mask
    /// has all points that do anything, and each rule has one line.
    #[test]
    fn nobody_is_held_for_ever(
        armed in proptest::collection::vec(commands(), 0..60),
        arrivals in proptest::collection::vec((0..80usize, any::<bool>()), 0..80),
        end in 0..3,
    ) {
        let mut rules = Rules::NONE;
        let mut known: Vec<Place> = Vec::new();
        for command in &armed {
            if let Command::Arm(place, kind) = command {
                if rules.arm(*place, *kind).is_ok() {
                    known.push(*place);
                }
            }
        }
        prop_assert!(rules.to_string().lines().count() <= known.len());
        let mut held = Vec::new();
        for (at, with_device) in arrivals {
            let Some(place) = known.get(at) else { continue };
            let device = place.device.as_ref().filter(|_| with_device).map(Name::as_str);
            let arrival = rules.arrive(place.point.as_str(), device);
            prop_assert_ne!(rules.mask() & bit(place.point.as_str()), 0);
            held.extend(arrival.gate);
        }
        for ticket in &held {
            prop_assert!(rules.held(*ticket));
        }
        match end {
            0 => rules.clear(),
            1 => held.iter().for_each(|t| rules.give_up(*t)),
            _ => known.iter().for_each(|p| {
                rules.open(p);
            }),
        }
        for ticket in held {
            prop_assert!(!rules.held(ticket));
        }
    }
}

#[test]
fn what_is_no_command() {
    for line in [
        "",
        " ",
        "clear all",
        "gate",
        "gate p 1 2",
        "gate p d e",
        "gate 12345678901234567890123456789012",
        "gate p 4294967296",
        "open p 1",
        "fail p",
        "fail p 0",
        "fail p 4096",
        "fail p 12 0",
        "fail p 12 1 d 2",
        "delay p",
        "delay p 1000001",
        "count p 1",
        "wait p 601",
        "Gate p",
    ] {
        assert_eq!(Command::parse(line), None, "{line:?}");
    }
}

#[test]
fn numbers_and_the_device_come_in_any_order() {
    let fail = Kind::Fail { errno: 12, at: 3 };
    let wanted = Some(Command::Arm(place("p", Some("0000:01:00.0")), fail));
    assert_eq!(Command::parse("fail p 12 3 0000:01:00.0"), wanted);
    assert_eq!(Command::parse("fail p 0000:01:00.0 12 3"), wanted);
    assert_eq!(
        Command::parse("gate 7"),
        Some(Command::Arm(place("7", None), Kind::Gate { skip: 0 }))
    );
}

#[test]
fn a_gate_holds_one_after_those_it_skips() {
    let mut rules = Rules::NONE;
    run(&mut rules, "gate p 1");
    assert_eq!(rules.arrive("p", None).gate, None);
    assert_eq!(rules.arrive("other", None).gate, None);
    let ticket = rules.arrive("p", None).gate.unwrap();
    assert_eq!(rules.arrive("p", None).gate, None);
    assert!(rules.held(ticket));
    assert_eq!(rules.to_string(), "p gate hits 3 waiting 1 skip 1\n");
    assert_eq!(
        rules.arm(place("p", None), Kind::Gate { skip: 0 }),
        Err(ArmError::Held)
    );
    run(&mut rules, "open p");
    assert!(!rules.held(ticket) && rules.mask() == 0);
    assert!(!rules.open(&place("p", None)));
}

#[test]
fn gates_of_two_devices_are_two() {
    let mut rules = Rules::NONE;
    run(&mut rules, "gate p a");
    run(&mut rules, "gate p b");
    assert_eq!(rules.arrive("p", None).gate, None);
    assert_eq!(rules.arrive("p", Some("c")).gate, None);
    let a = rules.arrive("p", Some("a")).gate.unwrap();
    assert_eq!(rules.waiting(&place("p", Some("b"))), Some(false));
    assert_eq!(rules.waiting(&place("p", None)), Some(true));
    let b = rules.arrive("p", Some("b")).gate.unwrap();
    run(&mut rules, "open p a");
    assert!(!rules.held(a) && rules.held(b));
    assert_eq!(rules.waiting(&place("p", Some("a"))), None);
    run(&mut rules, "open p");
    assert!(!rules.held(b));
}

#[test]
fn a_failure_comes_once_and_shows() {
    let mut rules = Rules::NONE;
    run(&mut rules, "fail p 12 2 d");
    assert_eq!(
        rules.to_string(),
        "p fail hits 0 waiting 0 errno 12 at 2 fired 0 device d\n"
    );
    let errors: Vec<_> = (0..4).map(|_| rules.arrive("p", Some("d")).errno).collect();
    assert_eq!(errors, [None, Some(12), None, None]);
    assert!(rules.to_string().contains(" fired 1 "));
    run(&mut rules, "fail p 5 d");
    assert_eq!(rules.arrive("p", Some("d")).errno, Some(5));
}

#[test]
fn kinds_add_up() {
    let mut rules = Rules::NONE;
    for line in ["delay p 5", "delay p d 6", "count p", "fail p 5", "gate p"] {
        run(&mut rules, line);
    }
    let arrival = rules.arrive("p", Some("d"));
    assert_eq!((arrival.micros, arrival.errno), (11, Some(5)));
    assert!(arrival.gate.is_some());
    assert!(rules.to_string().contains("p count hits 1 waiting 0\n"));
}

#[test]
fn there_is_an_end_to_rules() {
    let mut rules = Rules::NONE;
    for n in 0..32 {
        run(&mut rules, &format!("count p{n}"));
    }
    assert_eq!(
        rules.arm(place("one.more", None), Kind::Count),
        Err(ArmError::Full)
    );
    run(&mut rules, "count p0");
}
