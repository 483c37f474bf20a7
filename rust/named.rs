// SPDX-License-Identifier: GPL-2.0

//! Locks of generic code, which is compiled into several modules.
//!
//! A static in a generic function exists once, and so does the lock class that `new_mutex!` puts there. The
//! name that it gives to the class is a literal, of which each module has its own. Lockdep compares
//! addresses of names, and takes a second one for a mistake. So here the name is a static too.

/// `new_mutex!` for generic code.
macro_rules! mutex {
    ($inner:expr, $name:literal) => {{
        static NAME: &kernel::str::CStr = kernel::c_str!($name);
        kernel::sync::Mutex::new($inner, NAME, kernel::sync::static_lock_class!())
    }};
}

/// `new_spinlock_irq!` for generic code.
macro_rules! spinlock_irq {
    ($inner:expr, $name:literal) => {{
        static NAME: &kernel::str::CStr = kernel::c_str!($name);
        kernel::sync::SpinLockIrq::new($inner, NAME, kernel::sync::static_lock_class!())
    }};
}

pub(crate) use {
    mutex,
    spinlock_irq, //
};
