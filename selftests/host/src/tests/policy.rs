// SPDX-License-Identifier: GPL-2.0

//! Ways from one policy to another: all of them, as there are not many.

use iommu::policy::name::{plan, shown, Base, Overlay, Plan, Policy};

const OVERLAYS: [Overlay; 3] = [Overlay::None, Overlay::Strict, Overlay::Lazy];

/// What a group's default domain can be, and the kind of queue that it has or would have.
fn bases() -> impl Iterator<Item = (Base, bool)> {
    [false, true].into_iter().flat_map(|single| {
        [Base::Identity, Base::Strict, Base::Queue { single }].map(|base| (base, single))
    })
}

/// All there is to be asked.
fn questions() -> impl Iterator<Item = (Base, bool, bool, Policy)> {
    bases().flat_map(|(base, single)| {
        [false, true]
            .into_iter()
            .flat_map(move |in_use| Policy::ALL.map(move |policy| (base, single, in_use, policy)))
    })
}

fn base_after(base: Base, plan: &Plan) -> Base {
    plan.base.unwrap_or(base)
}

#[test]
fn y5_a_plan_leads_to_its_policy() {
    for (base, single, in_use, policy) in questions() {
        let plan = plan(base, single, in_use, policy);
        assert_eq!(
            shown(base_after(base, &plan), plan.overlay),
            policy,
            "{base:?} {single} {in_use} {policy:?}: {plan:?}"
        );
    }
}

#[test]
fn y5_what_is_shown_already_changes_nothing() {
    for (base, single) in bases() {
        for overlay in OVERLAYS {
            for in_use in [false, true] {
                let policy = shown(base, overlay);
                let plan = plan(base, single, in_use, policy);
                // But for a strict device of a queued group: without a driver the group can be strict.
                let better =
                    overlay == Overlay::Strict && !in_use && base == Base::Queue { single };
                assert!(
                    plan.base.is_none() || better,
                    "{base:?} {overlay:?}: {plan:?}"
                );
            }
        }
    }
}

/// Without a new domain the core can do one thing: give a strict one its queue.
#[test]
fn y5_domains_in_use_are_only_queued() {
    for (base, single, in_use, policy) in questions() {
        let plan = plan(base, single, in_use, policy);
        if plan.base.is_some() && !plan.new_domain {
            assert_eq!(base, Base::Strict);
            assert_eq!(plan.base, Some(Base::Queue { single }));
        }
    }
}

/// What is refused while a driver is bound is refused for a reason.
#[test]
fn y5_few_changes_need_a_new_domain() {
    for (base, single, _, policy) in questions() {
        let needed = match (base, policy) {
            (Base::Identity, Policy::Identity) => false,
            (Base::Identity, _) | (_, Policy::Identity) => true,
            (_, Policy::Fq) => single,
            (_, Policy::FqSingle) => !single,
            (_, Policy::Strict | Policy::Lazy) => false,
        };
        assert_eq!(plan(base, single, true, policy).new_domain, needed);
    }
}

#[test]
fn y5_names_are_read_as_they_are_written() {
    for policy in Policy::ALL {
        let name = policy.name();
        assert_eq!(Policy::parse(name.as_bytes()), Some(policy));
        assert_eq!(Policy::parse(format!(" {name}\n").as_bytes()), Some(policy));
        assert_eq!(Policy::parse(name.to_uppercase().as_bytes()), None);
        assert_eq!(Policy::parse(format!("{name}x").as_bytes()), None);
    }
    assert_eq!(Policy::parse(b""), None);
}

#[test]
fn y5_overlays_survive_their_numbers() {
    for overlay in OVERLAYS {
        assert_eq!(Overlay::from_u32(overlay as u32), overlay);
    }
}

/// A device that is not trusted is never left with something that it may still reach.
#[test]
fn a11_untrusted_devices_have_strict_only() {
    let suited = Policy::ALL
        .into_iter()
        .filter(|policy| policy.suits_untrusted());
    assert_eq!(suited.collect::<Vec<_>>(), [Policy::Strict]);
}
