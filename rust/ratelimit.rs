// SPDX-License-Identifier: GPL-2.0

//! Limits how often a message is printed, for events that a device can cause.
//!
//! C header: [`include/linux/ratelimit.h`](srctree/include/linux/ratelimit.h)

use crate::bindings;
use kernel::{
    prelude::*,
    types::Opaque, //
};

/// At most `burst` messages in an interval.
#[pin_data]
pub struct RateLimit {
    #[pin]
    state: Opaque<bindings::ratelimit_state>,
}

// SAFETY: `___ratelimit()` locks the state.
unsafe impl Send for RateLimit {}
// SAFETY: As above.
unsafe impl Sync for RateLimit {}

impl RateLimit {
    /// A limit of `burst` messages in `seconds`.
    pub fn new(seconds: u32, burst: u32) -> impl PinInit<Self> {
        pin_init!(Self {
            state <- Opaque::ffi_init(move |slot| {
                // SAFETY: `slot` is valid and nobody else has it yet.
                unsafe { bindings::rust_iommu_ratelimit_init(slot, seconds, burst) }
            }),
        })
    }

    /// Whether a message may be printed now. What was suppressed is reported by the
    /// kernel when the interval is over. Context: any.
    pub fn allows(&self) -> bool {
        // SAFETY: The state is initialised; the function's name is only printed.
        unsafe { bindings::___ratelimit(self.state.get(), c"rust_iommu".as_char_ptr()) != 0 }
    }
}
