// SPDX-License-Identifier: GPL-2.0
/*
 * vfio_copy MODE FROM TO DEVICE: has a device copy a file to another one of the same length. Both
 * are mapped into the device's address space, and all the data goes through the device.
 *
 * MODE is a way to the IOMMU, as libvfio calls it. DEVICE is the PCI address of one that libvfio can
 * drive; bound to vfio-pci.
 */

#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <linux/sizes.h>

#include <libvfio.h>

/* What is copied at once. The library's driver sends it in frames of FRAME bytes, and waits for each. */
#define PIECE SZ_256K
#define FRAME SZ_1K

/* How often a piece is tried, with other frames each time. */
#define TRIES 10

/* How much more of a piece its first frame leaves to the last one with each try; what is sent is no shorter. */
#define SHIFT SZ_64

static void map_file(struct iommu *iommu, struct iova_allocator *iovas, const char *path, struct dma_region *region)
{
	struct stat stat;
	int fd;

	fd = open(path, O_RDWR);
	VFIO_ASSERT_GE(fd, 0, "open(%s) failed", path);
	VFIO_ASSERT_EQ(fstat(fd, &stat), 0);
	VFIO_ASSERT_GT(stat.st_size, 0, "%s is empty", path);

	region->size = stat.st_size;
	region->vaddr = mmap(NULL, region->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	VFIO_ASSERT_NE(region->vaddr, MAP_FAILED);
	VFIO_ASSERT_EQ(close(fd), 0);

	region->iova = iova_allocator_alloc(iovas, region->size);
	iommu_map(iommu, region);
}

static void map_descriptors(struct iommu *iommu, struct iova_allocator *iovas, struct dma_region *region)
{
	region->size = SZ_2M;
	region->vaddr = mmap(NULL, region->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	VFIO_ASSERT_NE(region->vaddr, MAP_FAILED);
	region->iova = iova_allocator_alloc(iovas, region->size);
	iommu_map(iommu, region);
}

/*
 * QEMU's igb drops a frame that looks like an IP packet with a bad header, as one of a few hundred thousand
 * does where the data is any. The driver takes a frame that is late for lost, too, and resets the device in
 * both cases; that one writes no more. So what was lost is sent again, cut into frames elsewhere.
 */
static void copy(struct vfio_pci_device *device, iova_t from, iova_t to, u64 size)
{
	int tries, ret;
	u64 first;

	for (tries = 0; tries < TRIES; tries++) {
		first = size > FRAME ? FRAME - tries * SHIFT : size;
		ret = vfio_pci_driver_memcpy(device, from, to, first);
		if (!ret)
			ret = vfio_pci_driver_memcpy(device, from + first, to + first, size - first);
		if (ret != -ETIMEDOUT)
			break;
	}
	VFIO_ASSERT_EQ(ret, 0);
}

int main(int argc, char *argv[])
{
	struct vfio_pci_device *device;
	struct iova_allocator *iovas;
	struct dma_region from, to;
	struct iommu *iommu;
	u64 offset, size;

	if (argc != 5) {
		fprintf(stderr, "usage: %s MODE FROM TO DEVICE\n", argv[0]);
		return 2;
	}

	iommu = iommu_init(argv[1]);
	device = vfio_pci_device_init(argv[4], iommu);
	VFIO_ASSERT_NOT_NULL(device->driver.ops, "no driver for %s", argv[4]);
	iovas = iova_allocator_init(iommu);

	map_file(iommu, iovas, argv[2], &from);
	map_file(iommu, iovas, argv[3], &to);
	VFIO_ASSERT_EQ(from.size, to.size, "the files differ in length");
	map_descriptors(iommu, iovas, &device->driver.region);

	vfio_pci_driver_init(device);
	for (offset = 0; offset < from.size; offset += size) {
		size = from.size - offset < PIECE ? from.size - offset : PIECE;
		copy(device, from.iova + offset, to.iova + offset, size);
	}
	vfio_pci_driver_remove(device);

	iommu_unmap(iommu, &device->driver.region);
	iommu_unmap(iommu, &to);
	iommu_unmap(iommu, &from);
	iova_allocator_cleanup(iovas);
	vfio_pci_device_cleanup(device);
	iommu_cleanup(iommu);
	return 0;
}
