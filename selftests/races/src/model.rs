// SPDX-License-Identifier: GPL-2.0

//! Who may do DMA with the devices of a group: a model of the kernel's DMA ownership.
//!
//! A group is devices that the IOMMU cannot tell apart, so all of them belong to drivers that use
//! the DMA API, or all of them to one owner that decides on DMA itself (VFIO). Two
//! implementations of that rule are here, to be compared with each other and with the kernel:
//!
//! - [`Counted`] is what the kernel does (`iommu_device_use_default_domain()`,
//!   `iommu_device_claim_dma_owner()` and their counterparts in `drivers/iommu/iommu.c`): a
//!   counter and an owner for the group; nobody looks at its devices.
//! - [`Scanned`] is the rule as such: it keeps nothing, and looks at the devices of the group.
//!
//! The steps that a device goes through while a driver is bound and unbound are those of
//! `really_probe()` and `__device_release_driver()` in `drivers/base/dd.c`. Each step is atomic,
//! for it happens under `group->mutex`, or concerns the device alone, whose lock keeps binding
//! and unbinding apart. So every interleaving of any number of threads is an order of steps.
//!
//! Not modelled: a driver that uses the DMA API and attaches a domain of its own without a claim
//! (`iommu_attach_device()`, which is for groups of one device), claims by group (VFIO's
//! container, which is a claim that nobody shares), PASIDs, and devices that come and go.

/// Why something was refused, as a negative C error number says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errno {
    /// `EPERM`: the group belongs to somebody else.
    Perm = 1,
    /// `EBUSY`: the same, as a binding driver is told, or whoever attaches a second domain.
    Busy = 16,
    /// `EINVAL`: a device does not let the type be changed; not by the rules here.
    Invalid = 22,
    /// `EALREADY`: the device is claimed already.
    Already = 114,
}

/// What a step returns.
pub type Answer = Result<(), Errno>;

/// Whom a claim is for. Devices with the same key may be claimed together.
pub type Key = u8;

/// What a driver does about DMA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Uses the DMA API.
    Kernel,
    /// Manages DMA by itself (`driver_managed_dma`), and may claim.
    Managed,
}

/// How far a driver is with a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No driver.
    Unbound,
    /// `dev->driver` is set, `dma_configure` has not been called.
    Binding,
    /// `dma_configure` has succeeded, the driver's probe runs.
    Probing,
    /// The probe has succeeded.
    Bound,
    /// The driver's remove runs.
    Removing,
    /// The probe has failed.
    Failed,
    /// `dma_cleanup` has been called, or `dma_configure` has failed; `dev->driver` is still set.
    Cleaned,
}

/// The right to decide on the group's DMA, held through one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// For whom.
    pub key: Key,
    /// The group's domain was attached through this claim.
    pub attached: bool,
}

/// A device of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// How far its driver is.
    pub phase: Phase,
    /// What the driver is; means nothing where there is none.
    pub kind: Kind,
    /// The claim that is held through it.
    pub claim: Option<Claim>,
}

impl Member {
    const UNBOUND: Member = Member {
        phase: Phase::Unbound,
        kind: Kind::Kernel,
        claim: None,
    };

    /// A driver may do DMA through the DMA API: from `dma_configure` to `dma_cleanup`.
    pub fn kernel_dma(&self) -> bool {
        self.kind == Kind::Kernel
            && matches!(
                self.phase,
                Phase::Probing | Phase::Bound | Phase::Removing | Phase::Failed
            )
    }
}

/// What translates the DMA of the group's devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// The default domain, which the DMA API maps in.
    Default,
    /// Nothing gets through.
    Blocked,
    /// A domain of who has claimed.
    User,
}

/// Types of default domains, as sysfs knows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// `DMA`.
    Dma,
    /// `DMA-FQ`.
    DmaFq,
    /// `identity`.
    Identity,
}

/// One step of one device, or of who holds a claim through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Begins to bind a driver.
    Bind(Kind),
    /// `dma_configure`. `Busy` ends the binding.
    Configure,
    /// The probe succeeds.
    Probed,
    /// The probe fails.
    ProbeFails,
    /// Begins to unbind.
    Unbind,
    /// `dma_cleanup`, after remove or a failed probe.
    Cleanup,
    /// The driver's resources are freed and `dev->driver` is cleared.
    Finish,
    /// Claims ownership. `Perm`, `Already`.
    Claim(Key),
    /// Gives it back.
    Release,
    /// Attaches a domain to the group. `Busy`.
    Attach,
    /// Detaches it.
    Detach,
    /// Somebody writes the group's `type` in sysfs. `Perm`.
    SetType(Type),
}

/// Who decides what.
pub trait Ownership: Default {
    /// A DMA API driver comes to a device.
    fn use_default(&mut self, members: &[Member]) -> Answer;
    /// It leaves.
    fn unuse_default(&mut self);
    /// A driver claims through a device that is not claimed.
    fn claim(&mut self, members: &[Member], key: Key) -> Answer;
    /// It releases, with nothing attached through it.
    fn release(&mut self);
    /// A claim attaches a domain.
    fn attach(&mut self, members: &[Member]) -> Answer;
    /// It detaches it.
    fn detach(&mut self);
    /// The group belongs to somebody, so that its default domain must not be replaced.
    fn owned(&self, members: &[Member]) -> bool;
    /// What translates now.
    fn domain(&self, members: &[Member]) -> Domain;
}

/// The kernel's way.
#[derive(Clone, Debug)]
pub struct Counted {
    /// `group->owner_cnt`: DMA API drivers, or claims.
    pub count: u32,
    /// `group->owner`.
    pub owner: Option<Key>,
    /// `group->domain`.
    pub domain: Domain,
}

impl Default for Counted {
    fn default() -> Self {
        Self {
            count: 0,
            owner: None,
            domain: Domain::Default,
        }
    }
}

impl Ownership for Counted {
    fn use_default(&mut self, _: &[Member]) -> Answer {
        if self.count > 0 && (self.domain != Domain::Default || self.owner.is_some()) {
            return Err(Errno::Busy);
        }
        self.count += 1;
        Ok(())
    }

    fn unuse_default(&mut self) {
        // The kernel warns.
        assert!(self.count > 0, "more cleanups than uses");
        self.count -= 1;
    }

    fn claim(&mut self, _: &[Member], key: Key) -> Answer {
        if self.count > 0 {
            if self.owner != Some(key) {
                return Err(Errno::Perm);
            }
        } else if self.domain != Domain::Default {
            return Err(Errno::Busy);
        } else {
            self.domain = Domain::Blocked;
            self.owner = Some(key);
        }
        self.count += 1;
        Ok(())
    }

    fn release(&mut self) {
        if self.count > 1 {
            self.count -= 1;
            return;
        }
        // The kernel warns.
        assert!(
            self.count == 1 && self.owner.is_some(),
            "nothing to release"
        );
        *self = Self::default();
    }

    fn attach(&mut self, _: &[Member]) -> Answer {
        // One domain after the other, and blocked in between.
        if self.domain == Domain::User {
            return Err(Errno::Busy);
        }
        self.domain = Domain::User;
        Ok(())
    }

    fn detach(&mut self) {
        self.domain = if self.owner.is_some() {
            Domain::Blocked
        } else {
            Domain::Default
        };
    }

    fn owned(&self, _: &[Member]) -> bool {
        self.count > 0
    }

    fn domain(&self, _: &[Member]) -> Domain {
        self.domain
    }
}

/// The rule, by a look at the group's devices.
#[derive(Clone, Debug, Default)]
pub struct Scanned;

fn claims(members: &[Member]) -> impl Iterator<Item = Claim> + '_ {
    members.iter().filter_map(|m| m.claim)
}

impl Ownership for Scanned {
    fn use_default(&mut self, members: &[Member]) -> Answer {
        match claims(members).next() {
            Some(_) => Err(Errno::Busy),
            None => Ok(()),
        }
    }

    fn unuse_default(&mut self) {}

    fn claim(&mut self, members: &[Member], key: Key) -> Answer {
        if members.iter().any(Member::kernel_dma) || claims(members).any(|c| c.key != key) {
            return Err(Errno::Perm);
        }
        Ok(())
    }

    fn release(&mut self) {}

    fn attach(&mut self, members: &[Member]) -> Answer {
        if claims(members).any(|c| c.attached) {
            return Err(Errno::Busy);
        }
        Ok(())
    }

    fn detach(&mut self) {}

    fn owned(&self, members: &[Member]) -> bool {
        members.iter().any(Member::kernel_dma) || claims(members).next().is_some()
    }

    fn domain(&self, members: &[Member]) -> Domain {
        if claims(members).any(|c| c.attached) {
            Domain::User
        } else if claims(members).next().is_some() {
            Domain::Blocked
        } else {
            Domain::Default
        }
    }
}

/// A group of `N` devices.
#[derive(Clone, Debug)]
pub struct Group<P, const N: usize> {
    /// The devices.
    pub members: [Member; N],
    /// Type of the default domain.
    pub default_type: Type,
    /// Who decides.
    pub policy: P,
}

impl<P: Ownership, const N: usize> Default for Group<P, N> {
    fn default() -> Self {
        Self {
            members: [Member::UNBOUND; N],
            default_type: Type::Dma,
            policy: P::default(),
        }
    }
}

impl<P: Ownership, const N: usize> Group<P, N> {
    /// Whether the step can be taken now. Drivers do one thing after the other; and who has a token
    /// gives it back, after it has detached, before the device is without a driver. Rust sees to
    /// that.
    pub fn enabled(&self, at: usize, step: Step) -> bool {
        use Phase::*;
        let Member { phase, claim, .. } = self.members[at];
        match step {
            Step::Bind(_) => phase == Unbound,
            Step::Configure => phase == Binding,
            Step::Probed | Step::ProbeFails => phase == Probing,
            Step::Unbind => phase == Bound,
            Step::Cleanup => matches!(phase, Removing | Failed),
            Step::Finish => phase == Cleaned && claim.is_none(),
            Step::Claim(_) => matches!(phase, Probing | Bound | Removing),
            Step::Release | Step::Attach => claim.is_some_and(|c| !c.attached),
            Step::Detach => claim.is_some_and(|c| c.attached),
            Step::SetType(_) => true,
        }
    }

    /// Takes a step that is enabled.
    pub fn step(&mut self, at: usize, step: Step) -> Answer {
        assert!(self.enabled(at, step), "{step:?} of {:?}", self.members[at]);
        let Member { kind, claim, .. } = self.members[at];
        let mut next = self.members[at];
        let mut answer = Ok(());
        match step {
            Step::Bind(kind) => {
                next.kind = kind;
                next.phase = Phase::Binding;
            }
            Step::Configure => {
                if kind == Kind::Kernel {
                    answer = self.policy.use_default(&self.members);
                }
                next.phase = match answer {
                    Ok(()) => Phase::Probing,
                    Err(_) => Phase::Cleaned,
                };
            }
            Step::Probed => next.phase = Phase::Bound,
            Step::ProbeFails => next.phase = Phase::Failed,
            Step::Unbind => next.phase = Phase::Removing,
            Step::Cleanup => {
                if kind == Kind::Kernel {
                    self.policy.unuse_default();
                }
                next.phase = Phase::Cleaned;
            }
            Step::Finish => next.phase = Phase::Unbound,
            Step::Claim(_) if claim.is_some() => answer = Err(Errno::Already),
            Step::Claim(key) => {
                answer = self.policy.claim(&self.members, key);
                next.claim = answer.ok().map(|()| Claim {
                    key,
                    attached: false,
                });
            }
            Step::Release => {
                self.policy.release();
                next.claim = None;
            }
            Step::Attach => {
                answer = self.policy.attach(&self.members);
                next.claim = claim.map(|c| Claim {
                    attached: answer.is_ok(),
                    ..c
                });
            }
            Step::Detach => {
                self.policy.detach();
                next.claim = claim.map(|c| Claim {
                    attached: false,
                    ..c
                });
            }
            Step::SetType(to) => {
                // A flush queue can be had at any time.
                let live = to == Type::DmaFq && self.default_type == Type::Dma;
                if !live && self.policy.owned(&self.members) {
                    answer = Err(Errno::Perm);
                } else {
                    self.default_type = to;
                }
            }
        }
        self.members[at] = next;
        answer
    }

    /// What translates the DMA of each device.
    pub fn domain(&self) -> Domain {
        self.policy.domain(&self.members)
    }
}
