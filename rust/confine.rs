// SPDX-License-Identifier: GPL-2.0

//! What an administrator keeps a group's devices from: domains that devices of other groups are on
//! (`sealed`), and addresses outside an aperture. `Documentation/ownership.rst` says what for.
//!
//! A group's devices share a domain, so what is said of one is said of all, and of those that join them.

use crate::{
    attached,
    domain::Domain,
    driver::Driver,
    endpoint::{
        Device,
        Endpoint,
        State, //
    },
    group::{
        are_trusted,
        in_use,
        Group,
        Member, //
    },
    inject,
    named,
    pci::Function,
    policy::{
        change::has_single_queue,
        group_type,
        name::Base, //
    },
    pt::PageTable,
    top::Growth, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex, //
    }, //
};

pub mod aperture;

use self::aperture::{
    Aperture,
    Refusal, //
};

/// What holds for all devices of a group. Whose endpoints have the same one are in one group.
#[pin_data]
pub(crate) struct Confinement {
    /// No device of another group is on a domain that one of these is on. Changed with the lock of the group's
    /// members held.
    pub(crate) sealed: Atomic<bool>,
    /// A leaf.
    #[pin]
    apertures: Mutex<Apertures>,
}

/// What domains for the group's devices can map; `None`: all that their tables have.
#[derive(Default)]
struct Apertures {
    /// For new domains.
    now: Option<Aperture>,
    /// While that is changed, what it was; else the same. Domains of owners have to fit in both.
    before: Option<Aperture>,
    /// Of the default domain that a device of the group has come to last. An identity domain is none that counts:
    /// it is for groups without an aperture, and for devices that leave their group.
    default: Option<Aperture>,
}

impl Confinement {
    /// Errors: `ENOMEM`. Context: may sleep.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                sealed: Atomic::new(false),
                apertures <- named::mutex!(Apertures::default(), "iommu group apertures"),
            }),
            GFP_KERNEL,
        )
    }
}

/// Whether a device of another group is on the domain that this one is on, or either may come back to it.
fn has_company<D: Driver>(device: &Device<D>) -> bool {
    // It neither comes to a domain meanwhile nor leaves one.
    let place = device.place.lock();
    let (State::Paging(at) | State::Blocked(Some(at))) = &place.state else {
        return false;
    };
    let nodes = at.domain.attached.lock();
    let mut others = nodes.iter().map(|node| &node.endpoint);
    others.any(|other| !other.shares_group(&device.endpoint))
}

/// Whether one of them has company.
fn have_company<D: Driver>(members: &[Arc<Device<D>>]) -> bool {
    members.iter().any(|device| has_company(device))
}

/// Seals the devices of a group, or ends that: as long as they are sealed, a domain that one of them is
/// on has no device of another group on it.
///
/// Errors: `EBUSY` if there is one now; nothing is sealed then, but who comes at the same moment may have been
/// refused. Context: may sleep.
pub(crate) fn seal<D: Driver>(group: &Group<D>, sealed: bool) -> Result {
    let members = group.members.lock();
    if group.confinement.sealed.load(Relaxed) == sealed {
        return Ok(());
    }
    if sealed && have_company(&members) {
        return Err(EBUSY);
    }
    group.confinement.sealed.store(sealed, Relaxed);
    // Who comes to a domain looks with the lock of its list held, which is taken here for each of them: either
    // that sees the seal, or this sees who came.
    if sealed && have_company(&members) {
        group.confinement.sealed.store(false, Relaxed);
        return Err(EBUSY);
    }
    Ok(())
}

/// Which addresses a new table can map, or one that nobody narrows any more.
pub(crate) fn of_table<T: PageTable>(table: &T) -> Option<Aperture> {
    let domain = table.as_iommu_domain();
    // SAFETY: Part of the table, and constant once somebody else has it.
    let geometry = unsafe { (*domain).geometry };
    Aperture::new(geometry.aperture_start, geometry.aperture_end)
}

/// What a new domain for a device is like.
pub(crate) struct Limits {
    /// All addresses that its table has.
    most: Aperture,
    /// What of these it can map.
    pub(crate) aperture: Aperture,
    /// The sizes of its pages, a bit each.
    pub(crate) page_sizes: usize,
}

/// What a new domain for the device is like.
///
/// Errors: as for a new domain. Context: may sleep.
pub(crate) fn limits<D: Driver>(device: &Device<D>) -> Result<Limits> {
    let endpoint = &device.endpoint;
    let config = D::table_config(&endpoint.unit, &endpoint.facts)?;
    let node = kernel::bindings::NUMA_NO_NODE;
    // The code that makes tables has the last word.
    // SAFETY: Nothing is mapped in it.
    let table = unsafe { D::Table::for_domain(config, node, Growth::<D>::OPERATIONS) };
    let table = KBox::pin_init(table, GFP_KERNEL)?;
    let most = of_table(&*table).ok_or(EINVAL)?;
    // SAFETY: Part of the table, which nobody else has.
    let page_sizes = unsafe { (*table.as_iommu_domain()).pgsize_bitmap };
    let narrowed = aperture_of(endpoint);
    let aperture = narrowed.map_or(Some(most), |narrowed| most.and(&narrowed));
    Ok(Limits {
        most,
        aperture: aperture.ok_or(EINVAL)?,
        page_sizes,
    })
}

/// What a new domain for the endpoint is narrowed to. Context: may sleep.
pub(crate) fn aperture_of<D: Driver>(endpoint: &Endpoint<D>) -> Option<Aperture> {
    endpoint.confinement.as_ref()?.apertures.lock().now
}

/// Whether the endpoint's domains are narrowed, or may be after a change that is under way. Context: may sleep.
pub(crate) fn is_narrowed<D: Driver>(endpoint: &Endpoint<D>) -> bool {
    let Some(confinement) = endpoint.confinement.as_ref() else {
        return false;
    };
    let apertures = confinement.apertures.lock();
    apertures.now.or(apertures.before).is_some()
}

/// Whether an endpoint may come to a domain, as far as its group's aperture goes. It may where its group is already:
/// the core does not take no for an answer there.
///
/// Errors: `EINVAL` for one of an owner that could map more; `EBUSY` for a default domain that could, as it was
/// made before the aperture was changed. Context: may sleep.
pub(crate) fn check<D: Driver>(endpoint: &Endpoint<D>, domain: &Domain<D>) -> Result {
    let Some(confinement) = endpoint.confinement.as_ref() else {
        return Ok(());
    };
    if attached::has_group(&domain.attached.lock(), endpoint) {
        return Ok(());
    }
    let apertures = confinement.apertures.lock();
    let fits = |limit: Option<Aperture>| {
        let aperture = domain.aperture();
        limit.is_none_or(|limit| aperture.is_some_and(|aperture| aperture.is_in(&limit)))
    };
    if !domain.is_default() {
        let both = fits(apertures.now) && fits(apertures.before);
        return both.then_some(()).ok_or(EINVAL);
    }
    // The core does not expect that going back fails.
    let is_back = [apertures.before, apertures.default].contains(&domain.narrowed);
    (is_back || fits(apertures.now)).then_some(()).ok_or(EBUSY)
}

/// An endpoint has come to a default domain that was narrowed so. Context: may sleep.
pub(crate) fn note<D: Driver>(endpoint: &Endpoint<D>, narrowed: Option<Aperture>) {
    if let Some(confinement) = endpoint.confinement.as_ref() {
        confinement.apertures.lock().default = narrowed;
    }
}

/// The range that firmware needs for a device and that is not in `aperture`, if there is one.
fn left_out<D: Driver>(device: &Device<D>, aperture: &Aperture) -> Option<Aperture> {
    let ranges = device.firmware.lock();
    let mut ranges = ranges.iter().filter_map(|range| {
        let more = range.bytes.checked_sub(1)?;
        Aperture::new(range.iova, range.iova.saturating_add(more))
    });
    ranges.find(|range| !range.is_in(aperture))
}

/// Whether a device may join a group, in whose default domain the core would map what firmware needs for it.
///
/// Errors: `ENODEV` if that is not in the group's aperture. Context: may sleep; the lock of the group's members
/// is held.
pub(crate) fn admit<D: Driver>(confinement: &Confinement, device: &Device<D>) -> Result {
    let (now, before) = {
        let apertures = confinement.apertures.lock();
        (apertures.now, apertures.before)
    };
    let limits = [now, before].into_iter().flatten();
    if let Some(range) = limits.filter_map(|limit| left_out(device, &limit)).next() {
        let (first, last) = (range.first(), range.last());
        pr_err!(
            "{}: not in its group: the aperture leaves out {first:#x}-{last:#x}, which firmware needs\n",
            &*device.name
        );
        return Err(ENODEV);
    }
    Ok(())
}

/// What is wanted, as `text` says, with a message if it is not possible for all `members`.
fn parse<D: Driver>(
    members: &[Arc<Device<D>>],
    function: &Function<'_>,
    text: &[u8],
) -> Result<Option<Aperture>> {
    let mut whole: Option<Aperture> = None;
    let mut page = 1;
    for device in members {
        let Limits {
            most, page_sizes, ..
        } = limits(device)?;
        let common = whole.map_or(Some(most), |whole| whole.and(&most));
        whole = Some(common.ok_or(EINVAL)?);
        page = page.max(1 << page_sizes.trailing_zeros());
    }
    let whole = whole.ok_or(ENODEV)?;
    let to = Aperture::parse(text, &whole, page).map_err(|refusal| {
        let (first, last) = (whole.first(), whole.last());
        match refusal {
            Refusal::NoRange => {
                pr_info!("{function}: aperture must be all, or a first and a last address\n");
            }
            Refusal::Empty => pr_info!("{function}: aperture ends before it begins\n"),
            Refusal::Unaligned => {
                pr_info!("{function}: aperture must begin and end with pages of {page:#x} bytes\n");
            }
            Refusal::Outside => {
                pr_info!("{function}: aperture must be within {first:#x}-{last:#x}\n");
            }
        }
        EINVAL
    })?;
    let left_out = |to| members.iter().find_map(|device| left_out(device, &to));
    if let Some(range) = to.and_then(left_out) {
        let (first, last) = (range.first(), range.last());
        pr_info!("{function}: aperture leaves out {first:#x}-{last:#x}, which firmware needs\n");
        return Err(EINVAL);
    }
    Ok(to)
}

/// Begins a change: new domains are narrowed to what `text` says, which is returned, and domains of owners have
/// to fit in that, too. `None` if nothing changes.
fn begin<D: Driver>(
    group: &Group<D>,
    function: &Function<'_>,
    base: Base,
    text: &[u8],
) -> Result<Option<Option<Aperture>>> {
    let members = group.members.lock();
    let apertures = &group.confinement.apertures;
    let to = parse(&members, function, text)?;
    let (before, default) = {
        let apertures = apertures.lock();
        (apertures.now, apertures.default)
    };
    // The domain may be of a change that failed, while users wrote the type.
    if before == to && (base == Base::Identity || default == to) {
        return Ok(None);
    }
    if base == Base::Identity {
        pr_info!("{function}: policy identity has no aperture\n");
        return Err(EPERM);
    }
    if !are_trusted(&members) {
        pr_info!("{function}: aperture cannot be set for a device that is not trusted\n");
        return Err(EPERM);
    }
    let is_claimed = || {
        members
            .iter()
            .any(|device| device.place.lock().is_claimed())
    };
    if in_use(&members) || is_claimed() {
        return Err(EBUSY);
    }
    apertures.lock().now = to;
    // An attach looks at it with the lock of the device's place held, which is taken here for each of them: either
    // that sees the change, or this sees who has come.
    if is_claimed() {
        apertures.lock().now = before;
        return Err(EBUSY);
    }
    Ok(Some(to))
}

/// Ends a change that was begun, or takes it back, by what the group's default domain has become; `renewed` is
/// what the core said when it was asked to make a new one.
fn end(confinement: &Confinement, to: Option<Aperture>, renewed: Result) -> Result {
    let mut apertures = confinement.apertures.lock();
    // Users change the type of the group, too, and the core makes no new domain of a type that there is.
    if apertures.default == to {
        apertures.before = to;
        return Ok(());
    }
    apertures.now = apertures.before;
    renewed.and(Err(EBUSY))
}

/// Narrows what domains for the devices of a group can map, or ends that, as `text` says, with a message
/// if it does not. The group gets a new default domain.
///
/// Errors: `EINVAL` for what is no range, or one that is not possible; `EBUSY` if a driver uses the default
/// domain, somebody else has the group, or changes its type; `EPERM` where there is no such domain, or it cannot
/// be made anew for a device that is not trusted; `EACCES`, `ENODEV`, `ENOMEM`. Nothing is changed then, but that
/// a group that somebody takes at the same moment may have got a queue, with a message.
///
/// Context: may sleep; takes `group->mutex`. The device's lock is held.
pub(crate) fn narrow<D: Driver>(
    member: &Member<D>,
    function: &Function<'_>,
    text: &[u8],
) -> Result {
    let group = &member.group;
    let dev = function.as_device();
    let _changing = group.changing.lock();
    let base = group_type::read(dev, has_single_queue(&member.device))?;
    inject::reach("aperture.begin", Some(dev))?;
    let done = begin(group, function, base, text).and_then(|begun| match begun {
        Some(to) => end(&group.confinement, to, group_type::renew(dev, base)),
        None => Ok(()),
    });
    done.inspect_err(|e| {
        if *e == EBUSY {
            pr_info!("{function}: aperture can be set only while nobody uses or owns its group\n");
        }
    })
}
