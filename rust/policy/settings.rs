// SPDX-License-Identifier: GPL-2.0

//! The framework's parameters: what holds for every device that nothing else is said of.

use super::name::Policy;
use crate::{
    bindings,
    module_parameters, //
};
use kernel::prelude::*;

/// Looks at the parameters once, when the module is loaded. Errors, with a message: `EINVAL`.
pub(crate) fn check() -> Result {
    let text = policy_text();
    if !text.is_empty() && Policy::parse(text.to_bytes()).is_none() {
        pr_err!(
            "policy={}: must be strict, fq, fq-single, lazy or identity\n",
            text
        );
        return Err(EINVAL);
    }
    let mb = window_mb();
    if mb != 0 && !(mb.is_power_of_two() && (2..=16384).contains(&mb)) {
        pr_err!("lazy_window_mb={mb}: must be 0, or a power of two from 2 to 16384\n");
        return Err(EINVAL);
    }
    Ok(())
}

fn policy_text() -> &'static CStr {
    // SAFETY: A string that is set before the module's code runs, and stays.
    unsafe { CStr::from_char_ptr(bindings::rust_iommu_policy_parameter()) }
}

/// What every device gets; `None` if the kernel's own parameters decide.
pub(crate) fn policy() -> Option<Policy> {
    Policy::parse(policy_text().to_bytes())
}

/// Which queue default domains have if they have one.
pub(crate) fn single_queue() -> bool {
    policy() == Some(Policy::FqSingle)
}

/// Size of windows; 0: not said.
pub(crate) fn window_mb() -> u32 {
    module_parameters::lazy_window_mb.value()
}

/// How long an unmapped IOVA may stay reachable under the policy `lazy`; 0: until all were used.
pub(crate) fn max_age_ms() -> u32 {
    module_parameters::max_age_ms.value()
}
