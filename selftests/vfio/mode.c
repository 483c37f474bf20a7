// SPDX-License-Identifier: GPL-2.0
/*
 * Linked to the kernel's VFIO selftests: some of them take their library's default way to the
 * IOMMU, iommufd, and have no option for a kernel without it.
 */

#include <stdlib.h>

#include <libvfio/iommu.h>

static void __attribute__((constructor)) set_default_iommu_mode(void)
{
	const char *mode = getenv("VFIO_DEFAULT_MODE");

	if (mode)
		default_iommu_mode = mode;
}
