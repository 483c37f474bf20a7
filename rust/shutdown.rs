// SPDX-License-Identifier: GPL-2.0

//! What a driver's module runs, and how it is ended before the module is unloaded.
//!
//! The IOMMU core holds a reference to the module for every device that it has attached, so
//! `rmmod` alone is always refused. Writing 1 to the module's parameter `shutdown` ends what
//! it runs, if nobody uses it; after that `rmmod` works.

use crate::{
    bindings,
    late::LateLock, //
};
use core::marker::PhantomData;
use kernel::{
    error::from_result,
    prelude::*,
    str::{
        kstrtobool,
        CStr, //
    },
    sync::{
        lock::mutex::MutexBackend,
        static_lock_class,
        GlobalLockBackend,
        LockClassKey, //
    },
    ModuleMetadata, //
};

/// What a module runs from its start until it is shut down or unloaded.
pub trait Running: Sized + Send + Unpin + 'static {
    /// Ends it.
    ///
    /// Errors: `EBUSY` while something depends on it, or others; it then goes on as before.
    ///
    /// Context: may sleep.
    fn shut_down(self) -> Result<(), (Self, Error)>;
}

/// The lock of a [`Service`].
#[doc(hidden)]
pub struct ServiceLock<R: Running>(PhantomData<R>);

impl<R: Running> GlobalLockBackend for ServiceLock<R> {
    const NAME: &'static CStr = c"iommu service";
    type Item = Option<R>;
    type Backend = MutexBackend;

    fn get_lock_class() -> Pin<&'static LockClassKey> {
        static_lock_class!()
    }
}

/// The place in a static for what a module runs; made by
/// [`shutdown_parameter!`](crate::shutdown_parameter).
pub struct Service<R: Running>(LateLock<ServiceLock<R>>);

impl<R: Running> Service<R> {
    /// # Safety
    ///
    /// The result is stored in the only static of this type.
    #[doc(hidden)]
    pub const unsafe fn new() -> Self {
        // SAFETY: The lock's type belongs to this type, of which there is one static.
        Self(unsafe { LateLock::new(None) })
    }

    /// Runs what `start` makes, until it is shut down or the result is dropped.
    ///
    /// Errors: those of `start`; `EBUSY` if something runs.
    pub fn start(&'static self, start: impl FnOnce() -> Result<R>) -> Result<Started<R>> {
        let mut place = self.0.get()?.lock();
        if place.is_some() {
            return Err(EBUSY);
        }
        *place = Some(start()?);
        Ok(Started(self))
    }

    fn shut_down(&'static self) -> Result {
        let mut place = self.0.get()?.lock();
        // Given to insmod, or a second time.
        let running = place.take().ok_or(ENODEV)?;
        running.shut_down().map_err(|(running, error)| {
            *place = Some(running);
            error
        })
    }

    /// `kernel_param_ops::set` of the parameter.
    ///
    /// # Safety
    ///
    /// Called by the kernel as this operation, of a parameter whose `arg` is a `Service<R>`.
    #[doc(hidden)]
    pub unsafe extern "C" fn set(
        value: *const c_char,
        param: *const bindings::kernel_param,
    ) -> c_int {
        from_result(|| {
            if value.is_null() {
                return Err(EINVAL);
            }
            // SAFETY: Not null, so it is a string.
            let value = unsafe { CStr::from_char_ptr(value) };
            if !kstrtobool(value)? {
                return Err(EINVAL);
            }
            // SAFETY: By the contract.
            let arg = unsafe { (*param).__bindgen_anon_1.arg };
            // SAFETY: By the contract; it is a static.
            let service = unsafe { &*arg.cast::<Self>() };
            service.shut_down()?;
            Ok(0)
        })
    }
}

/// Drops what runs when this is dropped, at the latest.
pub struct Started<R: Running>(&'static Service<R>);

impl<R: Running> Drop for Started<R> {
    fn drop(&mut self) {
        let running = self.0 .0.get().map(|place| place.lock().take());
        drop(running);
    }
}

/// A parameter in the section where the kernel looks for them.
#[doc(hidden)]
#[repr(transparent)]
pub struct Parameter(bindings::kernel_param);

// SAFETY: The kernel's, which locks it; nothing here reads it but during its calls.
unsafe impl Sync for Parameter {}

impl Parameter {
    /// Written by root only, and never read.
    const MODE: u16 = 0o200;

    #[doc(hidden)]
    pub const fn new<R: Running, M: ModuleMetadata>(
        operations: &'static Operations,
        service: &'static Service<R>,
    ) -> Self {
        Self(bindings::kernel_param {
            name: kernel::str::as_char_ptr_in_const_context(c"shutdown"),
            mod_: M::THIS_MODULE.as_ptr(),
            ops: &raw const operations.0,
            perm: Self::MODE,
            level: -1,
            flags: 0,
            __bindgen_anon_1: bindings::kernel_param__bindgen_ty_1 {
                arg: core::ptr::from_ref(service).cast_mut().cast(),
            },
        })
    }
}

/// The operations of a [`Parameter`].
#[doc(hidden)]
pub struct Operations(bindings::kernel_param_ops);

// SAFETY: Constant.
unsafe impl Sync for Operations {}

impl Operations {
    #[doc(hidden)]
    pub const fn new<R: Running>() -> Self {
        Self(bindings::kernel_param_ops {
            set: Some(Service::<R>::set),
            ..pin_init::zeroed()
        })
    }
}

/// Declares what a module runs, and its parameter `shutdown`.
///
/// ```ignore
/// iommu::shutdown_parameter!(static SERVICE: Service<MyRunning>, module: MyModule);
/// ```
#[macro_export]
macro_rules! shutdown_parameter {
    (static $name:ident: Service<$running:ty>, module: $module:ty) => {
        static $name: $crate::shutdown::Service<$running> =
            // SAFETY: The type is one of this module, which has one such static.
            unsafe { $crate::shutdown::Service::new() };

        const _: () = {
            static OPERATIONS: $crate::shutdown::Operations =
                $crate::shutdown::Operations::new::<$running>();

            #[link_section = "__param"]
            #[used(compiler)]
            static PARAMETER: $crate::shutdown::Parameter =
                $crate::shutdown::Parameter::new::<$running, $module>(&OPERATIONS, &$name);

            #[link_section = ".modinfo"]
            #[used(compiler)]
            static INFO: [u8; 60] =
                *b"parm=shutdown:write 1 to end what runs, before rmmod (bool)\0";
        };
    };
}
