// SPDX-License-Identifier: GPL-2.0

//! A unit's own message signalled interrupt.
//!
//! An IOMMU reports its events with an MSI that it keeps in registers of its own,
//! outside of PCI. Such an interrupt is a small domain of one interrupt on top of
//! the CPU vector domain: that one picks CPU and vector, this one tells the unit.
//!
//! C headers: `include/linux/irqdomain.h`, `include/linux/irq.h`

use core::{
    marker::PhantomData,
    ptr::{
        null_mut,
        NonNull, //
    }, //
};

use kernel::{
    error::{
        from_err_ptr,
        from_result,
        to_result, //
    },
    prelude::*,
    str::CString,
    sync::Arc, //
};

use crate::bindings;

/// Where a unit keeps its message.
///
/// `write_message`, `mask` and `unmask` are called with interrupts off and under
/// the raw lock of the interrupt's descriptor: they access registers and nothing
/// else. In particular they take no lock, which the descriptor's lock already does
/// for them: no two of these three run at the same time for one interrupt.
pub trait MsiHw: Send + Sync + 'static {
    /// Makes the unit send `data` to `address` for its events from now on.
    fn write_message(&self, address: u64, data: u32);

    /// Stops the unit from sending. An event meanwhile stays pending in the unit.
    fn mask(&self);

    /// Lets the unit send, at once if an event is pending.
    fn unmask(&self);

    /// The unit has sent its message. Interrupt context (a thread's where the kernel
    /// threads interrupts): spin locks that disable interrupts may be taken, nothing may
    /// sleep. May run while another CPU masks or moves the interrupt.
    fn handle(&self);
}

/// A unit's interrupt: allocated, listed in `/proc/interrupts`, handled.
///
/// Its CPU can be chosen like that of any interrupt (`/proc/irq/N/smp_affinity`).
/// Dropping it waits for a running handler, masks the unit, and gives the interrupt
/// back; it may sleep.
///
/// It keeps `H` alive: `H` must not own the `MsiIrq`, or neither is ever dropped.
pub struct MsiIrq<H: MsiHw> {
    line: Line,
    _hw: PhantomData<Arc<H>>,
}

impl<H: MsiHw> MsiIrq<H> {
    /// Allocates an interrupt, tells the unit its message, and unmasks it. May sleep.
    ///
    /// `handle` may be called before this returns. `name`, which is copied, must not
    /// be that of another unit's interrupt.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or what the vector domain answers, such as `ENOSPC` without a free
    /// vector.
    pub fn request(hw: Arc<H>, name: &CStr) -> Result<Self> {
        Ok(Self {
            line: Line::request(hw, name)?,
            _hw: PhantomData,
        })
    }

    /// Returns the interrupt's number, as in `/proc/interrupts`.
    pub fn irq(&self) -> u32 {
        self.line.irq()
    }
}

/// What the C structures point to.
struct Shared {
    hw: Arc<dyn MsiHw>,
    name: CString,
}

/// The parts of an interrupt. Not generic, so that the interrupt core only ever
/// points into this module, and the fields are dropped in the order that takes the
/// interrupt down: each after those that use it.
struct Line {
    action: Action,
    _virq: Virq,
    _domain: Domain,
    _fwnode: Fwnode,
    _shared: KBox<Shared>,
}

impl Line {
    fn request(hw: Arc<dyn MsiHw>, name: &CStr) -> Result<Self> {
        let name = CString::try_from(name)?;
        let shared = KBox::new(Shared { hw, name }, GFP_KERNEL)?;
        let fwnode = Fwnode::new(&shared.name)?;
        let domain = Domain::new(&fwnode, &shared)?;
        let virq = Virq::new(&domain)?;
        let action = Action::new(&virq, &shared)?;
        Ok(Self {
            action,
            _virq: virq,
            _domain: domain,
            _fwnode: fwnode,
            _shared: shared,
        })
    }

    fn irq(&self) -> u32 {
        self.action.irq
    }
}

/// The name of an interrupt domain.
struct Fwnode(NonNull<bindings::fwnode_handle>);

// SAFETY: plain memory of the kernel's; any thread may free it.
unsafe impl Send for Fwnode {}

// SAFETY: `&Fwnode` offers nothing but the pointer's value.
unsafe impl Sync for Fwnode {}

impl Fwnode {
    fn new(name: &CStr) -> Result<Self> {
        // SAFETY: the name is a C string, which the callee copies.
        let fwnode = unsafe {
            bindings::__irq_domain_alloc_fwnode(
                bindings::IRQCHIP_FWNODE_NAMED,
                0,
                name.as_char_ptr(),
                null_mut(),
                null_mut(),
            )
        };
        Ok(Self(NonNull::new(fwnode).ok_or(ENOMEM)?))
    }
}

impl Drop for Fwnode {
    fn drop(&mut self) {
        // SAFETY: allocated by `new()`; `Line` drops the domain that uses it first.
        unsafe { bindings::irq_domain_free_fwnode(self.0.as_ptr()) };
    }
}

/// The domain of the one interrupt.
struct Domain(NonNull<bindings::irq_domain>);

// SAFETY: the interrupt core locks its domains itself, whatever the thread.
unsafe impl Send for Domain {}

// SAFETY: as above; `&Domain` only lets interrupts be allocated.
unsafe impl Sync for Domain {}

impl Domain {
    fn new(fwnode: &Fwnode, shared: &KBox<Shared>) -> Result<Self> {
        let info = bindings::irq_domain_info {
            fwnode: fwnode.0.as_ptr(),
            size: 1,
            hwirq_max: 1,
            ops: &DOMAIN_OPS.0,
            host_data: cookie(shared),
            // SAFETY: set by the kernel at boot and never changed after.
            parent: unsafe { bindings::x86_vector_domain },
            ..pin_init::zeroed()
        };
        // SAFETY: `info` and what it points to are valid; the name is alive as long
        // as the domain (`Line` drops it later), the operations for ever.
        let domain = from_err_ptr(unsafe { bindings::irq_domain_instantiate(&info) })?;
        Ok(Self(NonNull::new(domain).ok_or(ENOMEM)?))
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        // SAFETY: made by `new()`; `Line` drops its only interrupt first.
        unsafe { bindings::irq_domain_remove(self.0.as_ptr()) };
    }
}

/// The interrupt number, with CPU vector and message behind it.
struct Virq(u32);

impl Virq {
    fn new(domain: &Domain) -> Result<Self> {
        // The vector domain wants to know who asks; it treats all MSIs alike.
        let mut info = bindings::irq_alloc_info {
            type_: bindings::irq_alloc_type_X86_IRQ_ALLOC_TYPE_DMAR,
            ..pin_init::zeroed()
        };
        // SAFETY: the domain is alive; `info` is what it and its parent expect, and
        // is only looked at during the call.
        let virq = unsafe {
            bindings::__irq_domain_alloc_irqs(
                domain.0.as_ptr(),
                -1,
                1,
                bindings::NUMA_NO_NODE,
                (&raw mut info).cast(),
                false,
                core::ptr::null(),
            )
        };
        to_result(virq)?;
        Ok(Self(u32::try_from(virq)?))
    }
}

impl Drop for Virq {
    fn drop(&mut self) {
        // SAFETY: allocated by `new()`; `Line` frees its handler first.
        unsafe { bindings::irq_domain_free_irqs(self.0, 1) };
    }
}

/// The handler of the interrupt.
struct Action {
    irq: u32,
    cookie: NonNull<c_void>,
}

// SAFETY: the pointer is only compared by the interrupt core here.
unsafe impl Send for Action {}

// SAFETY: `&Action` offers nothing but the number.
unsafe impl Sync for Action {}

impl Action {
    fn new(virq: &Virq, shared: &KBox<Shared>) -> Result<Self> {
        let cookie = cookie(shared);
        // SAFETY: the number is ours. The cookie is what the handler expects, and
        // it and the name stay until the action is gone: `Line` drops them later.
        to_result(unsafe {
            bindings::request_threaded_irq(
                virq.0,
                Some(handle_callback),
                None,
                // Not IRQF_NO_THREAD: such a handler could only take raw spin locks.
                0,
                shared.name.as_char_ptr(),
                cookie,
            )
        })?;
        Ok(Self {
            irq: virq.0,
            cookie: NonNull::new(cookie).ok_or(EINVAL)?,
        })
    }
}

impl Drop for Action {
    fn drop(&mut self) {
        // SAFETY: requested by `new()` with this cookie. Masks the unit, and waits
        // until no CPU runs the handler.
        unsafe { bindings::free_irq(self.irq, self.cookie.as_ptr()) };
    }
}

/// Returns the address of `shared` as the C structures keep it.
fn cookie(shared: &KBox<Shared>) -> *mut c_void {
    core::ptr::from_ref::<Shared>(shared).cast_mut().cast()
}

/// A C structure of constants. The interrupt core reads it from any CPU.
#[repr(transparent)]
struct Constant<T>(T);

// SAFETY: never written; the pointers inside are to functions and string literals.
unsafe impl<T> Sync for Constant<T> {}

static DOMAIN_OPS: Constant<bindings::irq_domain_ops> = Constant(bindings::irq_domain_ops {
    alloc: Some(alloc_callback),
    free: Some(bindings::irq_domain_free_irqs_common),
    activate: Some(activate_callback),
    ..pin_init::zeroed()
});

static CHIP: Constant<bindings::irq_chip> = Constant(bindings::irq_chip {
    name: c"IOMMU-MSI".to_bytes_with_nul().as_ptr(),
    irq_ack: Some(bindings::irq_chip_ack_parent),
    irq_mask: Some(mask_callback),
    irq_unmask: Some(unmask_callback),
    irq_retrigger: Some(bindings::irq_chip_retrigger_hierarchy),
    irq_set_affinity: Some(set_affinity_callback),
    // The message is three registers that cannot change at once: it is rewritten
    // only while masked, which MOVE_DEFERRED and PRE_STARTUP see to.
    flags: (bindings::IRQCHIP_SKIP_SET_WAKE
        | bindings::IRQCHIP_MOVE_DEFERRED
        | bindings::IRQCHIP_AFFINITY_PRE_STARTUP) as c_ulong,
    ..pin_init::zeroed()
});

/// `irq_domain_ops::alloc`: gives the interrupt its vector and this file's chip.
///
/// # Safety
///
/// Called by the interrupt core for a domain made by [`Domain::new`], with the
/// argument of [`Virq::new`].
unsafe extern "C" fn alloc_callback(
    domain: *mut bindings::irq_domain,
    virq: c_uint,
    count: c_uint,
    arg: *mut c_void,
) -> c_int {
    from_result(|| {
        // SAFETY: all arguments are passed on as they came, to the vector domain.
        to_result(unsafe { bindings::irq_domain_alloc_irqs_parent(domain, virq, count, arg) })?;
        // SAFETY: the domain is alive during the call.
        let shared = unsafe { (*domain).host_data };
        // SAFETY: `virq` was just allocated in `domain`; chip, flow handler and name
        // are static, and `shared` outlives the interrupt (`Line` drops it last).
        unsafe {
            bindings::irq_domain_set_info(
                domain,
                virq,
                0,
                &CHIP.0,
                shared,
                Some(bindings::handle_edge_irq),
                null_mut(),
                c"edge".as_char_ptr(),
            )
        };
        Ok(0)
    })
}

/// `irq_domain_ops::activate`: the vector is known, tell the unit.
///
/// # Safety
///
/// `data` is that of an interrupt set up by [`alloc_callback`], in our domain.
unsafe extern "C" fn activate_callback(
    _domain: *mut bindings::irq_domain,
    data: *mut bindings::irq_data,
    _reserve: bool,
) -> c_int {
    // SAFETY: as this function requires.
    unsafe { update_message(data) };
    0
}

/// `irq_chip::irq_mask`.
///
/// # Safety
///
/// `data` is that of an interrupt set up by [`alloc_callback`], in our domain.
unsafe extern "C" fn mask_callback(data: *mut bindings::irq_data) {
    // SAFETY: as this function requires.
    unsafe { shared(data) }.hw.mask();
}

/// `irq_chip::irq_unmask`.
///
/// # Safety
///
/// `data` is that of an interrupt set up by [`alloc_callback`], in our domain.
unsafe extern "C" fn unmask_callback(data: *mut bindings::irq_data) {
    // SAFETY: as this function requires.
    unsafe { shared(data) }.hw.unmask();
}

/// `irq_chip::irq_set_affinity`: lets the vector domain move the interrupt, and
/// tells the unit where it went.
///
/// # Safety
///
/// `data` is that of an interrupt set up by [`alloc_callback`], in our domain;
/// `mask` is valid.
unsafe extern "C" fn set_affinity_callback(
    data: *mut bindings::irq_data,
    mask: *const bindings::cpumask,
    force: bool,
) -> c_int {
    // SAFETY: the arguments are passed on as they came.
    let ret = unsafe { bindings::irq_chip_set_affinity_parent(data, mask, force) };
    // CAST: a constant of C, 2.
    if ret >= 0 && ret != bindings::IRQ_SET_MASK_OK_DONE as c_int {
        // SAFETY: as this function requires.
        unsafe { update_message(data) };
    }
    ret
}

/// The handler itself.
///
/// # Safety
///
/// `cookie` is that of [`Action::new`].
unsafe extern "C" fn handle_callback(_irq: c_int, cookie: *mut c_void) -> bindings::irqreturn_t {
    // SAFETY: `Line` keeps it alive until `free_irq()` has returned.
    let shared = unsafe { &*cookie.cast::<Shared>() };
    shared.hw.handle();
    bindings::irqreturn::IRQ_HANDLED
}

/// Returns what [`Domain::new`] was given.
///
/// # Safety
///
/// `data` is that of an interrupt set up by [`alloc_callback`], in our domain, and
/// is not freed during `'a`.
unsafe fn shared<'a>(data: *mut bindings::irq_data) -> &'a Shared {
    // SAFETY: `alloc_callback()` set it.
    let cookie = unsafe { (*data).chip_data };
    // SAFETY: `Line` drops it after the interrupt; nobody has it mutably.
    unsafe { &*cookie.cast::<Shared>() }
}

/// Asks the vector domain for the interrupt's message and gives it to the unit.
///
/// # Safety
///
/// As for [`shared`].
unsafe fn update_message(data: *mut bindings::irq_data) {
    let mut address = 0;
    let mut payload = 0;
    // SAFETY: the interrupt's parent data is that of the vector domain, whose chip
    // can compose messages; the two pointers are to local variables.
    unsafe { bindings::rust_iommu_compose_msi(data, &mut address, &mut payload) };
    // SAFETY: as this function requires.
    unsafe { shared(data) }.hw.write_message(address, payload);
}
