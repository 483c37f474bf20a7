// SPDX-License-Identifier: GPL-2.0

//! Threads of the kernel that start together, each on a CPU of its own, and are waited for.

use crate::bindings;
use core::cell::Cell;
use kernel::{
    error::from_err_ptr,
    ffi::{
        c_int,
        c_void, //
    },
    prelude::*,
    sync::atomic::{
        Acquire,
        Atomic,
        Full,
        Relaxed, //
    },
    types::Opaque, //
};

struct Shared {
    count: u32,
    arrived: Atomic<u32>,
    stopped: Atomic<u32>,
}

/// What a thread knows of the others.
pub struct Team<'a> {
    shared: &'a Shared,
    number: u32,
    rounds: Cell<u32>,
}

impl Team<'_> {
    /// Number of this thread, and of its CPU, from 0 on.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Waits until all threads are here, or are told to stop. All call it equally often.
    pub fn together(&self) {
        let rounds = self.rounds.get() + 1;
        self.rounds.set(rounds);
        self.shared.arrived.fetch_add(1, Full);
        while self.shared.arrived.load(Acquire) < rounds * self.shared.count && self.breathe() {
            core::hint::spin_loop();
        }
    }

    /// Lets others run that wait for the CPU; false where the thread should end. May sleep.
    pub fn breathe(&self) -> bool {
        // SAFETY: In a thread, which holds no lock of ours.
        unsafe { bindings::rust_iommu_cond_resched() };
        self.shared.stopped.load(Relaxed) == 0
    }
}

#[pin_data]
struct Member<'a, F> {
    call: &'a F,
    shared: &'a Shared,
    number: u32,
    task: Cell<*mut bindings::task_struct>,
    #[pin]
    done: Opaque<bindings::completion>,
}

/// # Safety
///
/// `data` is a `Member<F>`, which is there until its completion is done.
unsafe extern "C" fn run<F: Fn(&Team<'_>) + Sync>(data: *mut c_void) -> c_int {
    // SAFETY: By the contract.
    let member = unsafe { &*data.cast::<Member<'_, F>>() };
    (member.call)(&Team {
        shared: member.shared,
        number: member.number,
        rounds: Cell::new(0),
    });
    // SAFETY: Initialised; nothing of the member or the caller is used after this, and no code of a
    // module runs in the thread any more.
    unsafe { bindings::kthread_complete_and_exit(member.done.get(), 0) }
}

/// Has `call` called by `count` threads at a time, on the CPUs 0 to `count - 1`, and waits for all.
///
/// Fails with `EINVAL` for no thread, or more than there are such CPUs; with `EINTR` where the caller
/// got a signal: then the threads were told to stop, and have. Context: may sleep.
pub fn on_cpus<F: Fn(&Team<'_>) + Sync>(count: u32, call: F) -> Result {
    // SAFETY: Only reads which CPUs are there.
    if count == 0 || !(0..count).all(|cpu| unsafe { bindings::rust_iommu_cpu_online(cpu) }) {
        return Err(EINVAL);
    }
    let shared = Shared {
        count,
        arrived: Atomic::new(0),
        stopped: Atomic::new(0),
    };
    let (call, shared) = (&call, &shared);
    let mut members = KVec::with_capacity(count as usize, GFP_KERNEL)?;
    let created = (0..count).try_for_each(|number| {
        let member = KBox::pin_init(
            pin_init!(Member {
                call,
                shared,
                number,
                task: Cell::new(core::ptr::null_mut()),
                done <- Opaque::ffi_init(|done: *mut bindings::completion| {
                    // SAFETY: Memory for a completion, which stays in place.
                    unsafe { bindings::init_completion(done) };
                }),
            }),
            GFP_KERNEL,
        )?;
        let data = core::ptr::from_ref(&*member).cast_mut().cast();
        // SAFETY: The member is of the type that the function wants, and outlives the thread: below
        // it is either stopped before it begins, or waited for.
        let task = from_err_ptr(unsafe {
            bindings::kthread_create_on_cpu(
                Some(run::<F>),
                data,
                number,
                c"rust_iommu/%u".as_char_ptr(),
            )
        })?;
        member.task.set(task);
        members.push_within_capacity(member).map_err(|_| ENOMEM)
    });
    if let Err(error) = created {
        for member in &members {
            // SAFETY: Created and not woken, so it ends without having begun.
            unsafe { bindings::kthread_stop(member.task.get()) };
        }
        return Err(error);
    }

    for member in &members {
        // SAFETY: Created and not woken, so it is there.
        unsafe { bindings::wake_up_process(member.task.get()) };
    }
    let mut result = Ok(());
    for member in &members {
        // SAFETY: Initialised with the member.
        if unsafe { bindings::wait_for_completion_interruptible(member.done.get()) } != 0 {
            shared.stopped.store(1, Relaxed);
            result = Err(EINTR);
            // SAFETY: As above.
            unsafe { bindings::wait_for_completion(member.done.get()) };
        }
    }
    result
}
