/* SPDX-License-Identifier: GPL-2.0 */
/* Input of bindgen: headers with what the kernel's own Rust bindings lack. */

#include <linux/dma-map-ops.h>
#include <linux/generic_pt/iommu.h>
#include <linux/scatterlist.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/vmalloc.h>
#include "shim.h"
