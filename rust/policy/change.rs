// SPDX-License-Identifier: GPL-2.0

//! From one policy to another, and to the one a device starts with.

use super::{
    group_type,
    mapper,
    name::{
        plan,
        shown,
        Base,
        Overlay,
        Plan,
        Policy, //
    },
    overlay,
    settings, //
};
use crate::{
    confine,
    driver::Driver,
    endpoint::{
        Device,
        State, //
    },
    group::{
        are_trusted,
        in_use,
        uses_dma_api,
        Group,
        Member, //
    },
    invalidation::Invalidation,
    pci::Function,
    pt::PageTable,
    raw, //
};
use kernel::{
    bindings,
    prelude::*,
    sync::{
        atomic::Relaxed,
        Arc, //
    },
};

/// Which queue the group's default domain has, or would have if it were given one.
pub(crate) fn has_single_queue<D: Driver>(device: &Device<D>) -> bool {
    match &device.place.lock().state {
        State::Paging(at) if at.domain.is_default() => at.domain.single_queue,
        _ => device.single_queue.load(Relaxed),
    }
}

/// Whether somebody has taken the group away from its default domain.
fn is_claimed<D: Driver>(device: &Device<D>) -> bool {
    device.place.lock().is_claimed()
}

/// What the device runs under, or will when a driver is bound.
///
/// Errors: as for [`group_type::read`]. Context: may sleep; takes `group->mutex`.
pub(crate) fn current<D: Driver>(member: &Member<D>, function: &Function<'_>) -> Result<Policy> {
    let device = &member.device;
    let base = group_type::read(function.as_device(), has_single_queue(device))?;
    Ok(shown(base, device.overlay()))
}

/// Whether something of the device's driver is still in the group's default domain although nobody may own the
/// group: the driver core frees DMA memory that the driver had tied to the device, and then goes what we have
/// there on its behalf.
fn is_ending<D: Driver>(device: &Device<D>) -> bool {
    // A driver may have gone without a notice, see `binding.rs`; it had nothing of ours.
    uses_dma_api(device) && !raw::driver(&device.dev).is_null()
}

/// The type that the core is to give a group's first default domain; 0: as the kernel's parameters say.
///
/// Later ones are what the user says, but with an aperture, or while that is changed, there has to be one that
/// translates.
///
/// And not while a driver's memory is being freed. The core is told then that the device needs a type of which
/// there is no domain, and refuses whatever it was asked for. An attach that fails would be too late: the new
/// domain is the default one meanwhile, and to that the DMA API goes. And not even the type that there is may be
/// written: the core would take the device's DMA operations for its own.
///
/// Context: may sleep; `group->mutex` is held, so that no driver gives up the group's ownership meanwhile.
pub(crate) fn default_type<D: Driver>(device: &Device<D>, dev: &kernel::device::Device) -> u32 {
    // What was never attached has nothing in a default domain, and a first one is not refused.
    let is_placed = !matches!(device.place.lock().state, State::Untouched);
    if is_placed && is_ending(device) {
        pr_info!(
            "{}: its driver's memory is being freed, the default domain stays\n",
            &*device.name
        );
        return bindings::IOMMU_DOMAIN_PLATFORM;
    }
    let find = || D::ops().registry().ok()?.lock().groups.find(dev);
    if confine::is_narrowed(&device.endpoint) {
        // The core goes by one answer where those of a group differ, and it must be the one above.
        let ends = |member: Member<D>| {
            let members = member.group.members.lock();
            members.iter().any(|device| is_ending(device))
        };
        return match find().is_some_and(ends) {
            true => 0,
            false => bindings::IOMMU_DOMAIN_DMA,
        };
    }
    if is_placed {
        return 0;
    }
    let member = find();
    // All of the group have joined it before it has a default domain.
    let trusted = member.is_some_and(|member| are_trusted(&member.group.members.lock()));
    match settings::policy() {
        None => 0,
        Some(Policy::Identity) if trusted => bindings::IOMMU_DOMAIN_IDENTITY,
        Some(_) => bindings::IOMMU_DOMAIN_DMA,
    }
}

/// Gives a new device's group its queue, if that is what every device gets; and takes it away where a
/// device is not trusted, as the core does not look at a group's type again. Context: may sleep.
pub(crate) fn apply_default<D: Driver>(member: &Member<D>, function: &Function<'_>) {
    let trusted = are_trusted(&member.group.members.lock());
    let policy = match settings::policy() {
        _ if !trusted => Policy::Strict,
        Some(policy @ (Policy::Fq | Policy::FqSingle)) => policy,
        Some(Policy::Lazy) if D::Table::IS_REMOTE => Policy::Lazy,
        _ => return,
    };
    if let Err(e) = change(member, function, policy) {
        pr_warn!(
            "{function}: policy {} not set (error {})\n",
            policy.name(),
            e.to_errno()
        );
    }
}

/// A driver that was just made known is about to probe the device. Where its policy needs operations of
/// ours and they cannot be had, the policy is that of the default domain, with a message.
///
/// Context: may sleep; the device's lock is held.
pub(crate) fn start<D: Driver>(member: &Member<D>, function: &Function<'_>) {
    let device = &member.device;
    let members = member.group.members.lock();
    if device.overlay() == Overlay::None || !uses_dma_api(device) {
        return;
    }
    match mapper::start(device, function, false) {
        // Without a domain that translates the policy is identity, whatever lies above.
        Ok(()) | Err(ENODEV) => {}
        Err(e) => decline(&members, device, function, e),
    }
}

/// The probe of the device's driver has succeeded: the window is made that its policy asks for. Where
/// it cannot be had, the policy is that of the default domain, with a message.
///
/// Context: may sleep; the device's lock is held.
pub(crate) fn started<D: Driver>(member: &Member<D>, function: &Function<'_>) {
    let device = &member.device;
    let members = member.group.members.lock();
    // SAFETY: The lock is held.
    let mapper = unsafe { mapper::get(device) };
    let lazy = mapper.filter(|_| device.overlay() == Overlay::Lazy);
    if let Some(Err(e)) = lazy.map(|mapper| mapper.make_window()) {
        decline(&members, device, function, e);
    }
}

fn decline<D: Driver>(
    members: &[Arc<Device<D>>],
    device: &Device<D>,
    function: &Function<'_>,
    e: Error,
) {
    // A flush that fails: there was no window, so nothing was put off.
    let _ = overlay::set(members, device, Overlay::None);
    pr_warn!(
        "{function}: its policy is that of its group (error {})\n",
        e.to_errno()
    );
}

/// Which queue the group's next default domain has.
fn choose_queue<D: Driver>(group: &Group<D>, single: bool) {
    for device in group.members.lock().iter() {
        device.single_queue.store(single, Relaxed);
    }
}

fn change_base<D: Driver>(
    member: &Member<D>,
    function: &Function<'_>,
    from: Base,
    plan: &Plan,
) -> Result {
    let Some(base) = plan.base else {
        return Ok(());
    };
    let before = member.device.single_queue.load(Relaxed);
    let single = match base {
        Base::Queue { single } => single,
        // A new domain, and nobody has chosen.
        Base::Strict | Base::Identity => settings::single_queue(),
    };
    choose_queue(&member.group, single);
    group_type::change(function.as_device(), from, base, plan.new_domain).inspect_err(|_| {
        choose_queue(&member.group, before);
    })
}

/// Gives a device whose driver is at work what it needs to do something differently from its group. As
/// long as it does not, that changes nothing.
fn prepare<D: Driver>(member: &Member<D>, function: &Function<'_>, overlay: Overlay) -> Result {
    let device = &member.device;
    // Keeps the driver's end away.
    let _members = member.group.members.lock();
    if overlay == Overlay::None || !uses_dma_api(device) {
        return Ok(());
    }
    mapper::start(device, function, true)?;
    // SAFETY: The lock is held.
    let mapper = unsafe { mapper::get(device) };
    mapper
        .filter(|_| overlay == Overlay::Lazy)
        .map_or(Ok(()), |mapper| mapper.make_window())
}

/// Gives the device another policy.
///
/// Errors: `EPERM` where a device of the group is not trusted; `EBUSY` while a driver is bound, if it takes
/// a new default domain, or operations that this device cannot be given now, or not at all; `EACCES` without the
/// rights to change a group's type; `ENODEV`, `ENOMEM`; what a flush has that failed, and the policy is
/// changed then. Else it is not, but that where the core has no memory for one of several steps, a group
/// may have become a strict or a queued one.
///
/// Context: may sleep; takes `group->mutex`. The device's lock is held, or no driver can be bound.
pub(crate) fn change<D: Driver>(
    member: &Member<D>,
    function: &Function<'_>,
    policy: Policy,
) -> Result {
    if !policy.suits_untrusted() && !are_trusted(&member.group.members.lock()) {
        return Err(EPERM);
    }
    let _changing = member.group.changing.lock();
    let single = has_single_queue(&member.device);
    let base = group_type::read(function.as_device(), single)?;
    let used = in_use(&member.group.members.lock());
    let plan = match policy {
        // What is not kept any more goes in few requests.
        Policy::Lazy if D::Table::IS_REMOTE => Plan {
            overlay: Overlay::Lazy,
            ..plan(
                base,
                single,
                used,
                if single { Policy::FqSingle } else { Policy::Fq },
            )
        },
        policy => plan(base, single, used, policy),
    };
    // The core refuses it too, but of several steps only those that need a new domain.
    if plan.new_domain && (used || is_claimed(&member.device)) {
        return Err(EBUSY);
    }
    // First what can be refused: the group's type is that of its other devices too.
    prepare(member, function, plan.overlay)?;
    change_base(member, function, base, &plan)?;
    overlay::set(&member.group.members.lock(), &member.device, plan.overlay)
}

/// Changes how long what the device unmaps can stay reachable under the policy `lazy`, 0: until all were
/// used. Of what was unmapped before, nothing is reachable on return.
///
/// Errors: a flush failed; the age is changed all the same. Context: may sleep.
pub(crate) fn set_max_age<D: Driver>(member: &Member<D>, ms: u32) -> Result {
    let device = &member.device;
    let _changing = member.group.changing.lock();
    // Keeps the driver's end away.
    let _members = member.group.members.lock();
    device.max_age_ms.store(ms, Relaxed);
    // SAFETY: The lock is held.
    let Some(mapper) = (unsafe { mapper::get(device) }) else {
        return Ok(());
    };
    mapper.set_max_age(ms)?;
    // What the core has queued.
    mapper.domain.flush(&Invalidation::All).map(drop)
}
