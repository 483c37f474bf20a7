/* SPDX-License-Identifier: GPL-2.0 */
/* Input of bindgen: headers with what the kernel's own Rust bindings lack. */

#include <linux/generic_pt/iommu.h>
#include "shim.h"
