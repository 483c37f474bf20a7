// SPDX-License-Identifier: GPL-2.0

//! What a policy is called, and which of the core's domains it needs.
//!
//! Pure: compiled into the kernel and into the host tests alike.

/// When the hardware's caches are told that an IOVA was unmapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Before the unmapping is over.
    Strict,
    /// Some time later: a queue of the core for each CPU.
    Fq,
    /// Some time later: one large queue of the core.
    FqSingle,
    /// When a window of IOVAs is used up, or after a maximum age.
    Lazy,
    /// Never: addresses are not translated.
    Identity,
}

impl Policy {
    /// All there are.
    pub const ALL: [Self; 5] = [
        Self::Strict,
        Self::Fq,
        Self::FqSingle,
        Self::Lazy,
        Self::Identity,
    ];

    /// The name that users write and read.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Fq => "fq",
            Self::FqSingle => "fq-single",
            Self::Lazy => "lazy",
            Self::Identity => "identity",
        }
    }

    /// Reads a name, with white space around it. `None` if it is not one.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = text.trim_ascii();
        Self::ALL
            .into_iter()
            .find(|policy| policy.name().as_bytes() == text)
    }

    /// Whether a device that is not trusted may have it: nothing is reachable once it was unmapped.
    pub const fn suits_untrusted(self) -> bool {
        matches!(self, Self::Strict)
    }
}

/// The type of a group's default domain, as the core has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// Addresses are not translated.
    Identity,
    /// Unmapping waits for the invalidation.
    Strict,
    /// Unmapping is queued.
    Queue {
        /// In one queue for all CPUs.
        single: bool,
    },
}

/// What is done differently from what the default domain says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum Overlay {
    /// Nothing.
    #[default]
    None,
    /// Unmapping waits for the invalidation.
    Strict,
    /// Streaming mappings go to a window.
    Lazy,
}

impl Overlay {
    /// Back from a number.
    pub const fn from_u32(value: u32) -> Self {
        match value {
            1 => Self::Strict,
            2 => Self::Lazy,
            _ => Self::None,
        }
    }
}

/// What a device runs under.
pub const fn shown(base: Base, overlay: Overlay) -> Policy {
    match (base, overlay) {
        (Base::Identity, _) => Policy::Identity,
        (_, Overlay::Lazy) => Policy::Lazy,
        (Base::Strict, _) | (_, Overlay::Strict) => Policy::Strict,
        (Base::Queue { single: false }, Overlay::None) => Policy::Fq,
        (Base::Queue { single: true }, Overlay::None) => Policy::FqSingle,
    }
}

/// What has to be done for a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What the default domain is to be; `None`: as it is.
    pub base: Option<Base>,
    /// For the change of the default domain a new one is needed, which the core makes only while no
    /// driver uses the group's.
    pub new_domain: bool,
    /// What is done differently.
    pub overlay: Overlay,
}

/// How a device gets to `policy`.
///
/// `single` says which of its two queues the default domain has or would have; `in_use` whether a driver
/// uses the default domain.
pub fn plan(base: Base, single: bool, in_use: bool, policy: Policy) -> Plan {
    let keep = |overlay| Plan {
        base: None,
        new_domain: false,
        overlay,
    };
    let change = |base, new_domain| Plan {
        base: Some(base),
        new_domain,
        overlay: Overlay::None,
    };
    let queue = |wanted: bool| match base {
        Base::Queue { single } if single == wanted => keep(Overlay::None),
        // The core can give a queue to a domain that it is using, of the kind that was chosen when the
        // domain was made.
        Base::Strict if single == wanted => change(Base::Queue { single: wanted }, false),
        _ => change(Base::Queue { single: wanted }, true),
    };
    match (policy, base) {
        (Policy::Identity, Base::Identity) => keep(Overlay::None),
        (Policy::Identity, _) => change(Base::Identity, true),
        (Policy::Strict, Base::Strict) => keep(Overlay::None),
        (Policy::Strict, Base::Queue { .. }) if in_use => keep(Overlay::Strict),
        (Policy::Strict, _) => change(Base::Strict, true),
        (Policy::Fq, _) => queue(false),
        (Policy::FqSingle, _) => queue(true),
        (Policy::Lazy, Base::Identity) => Plan {
            overlay: Overlay::Lazy,
            ..change(Base::Strict, true)
        },
        (Policy::Lazy, _) => keep(Overlay::Lazy),
    }
}
