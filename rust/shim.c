// SPDX-License-Identifier: GPL-2.0
/* One line a function: the reasons are with their users in the .rs files. */

#include <linux/cpumask.h>
#include <linux/device.h>
#include <linux/export.h>
#include <linux/io.h>
#include <linux/msi.h>
#include <linux/scatterlist.h>
#include <linux/sched.h>
#include "shim.h"

void rust_iommu_pt_deinit(struct pt_iommu *table)
{
	pt_iommu_deinit(table);
}
EXPORT_SYMBOL_GPL(rust_iommu_pt_deinit);

void rust_iommu_compose_msi(struct irq_data *data, u64 *address, u32 *payload)
{
	struct irq_data *parent = data->parent_data;
	struct msi_msg msg = {};

	parent->chip->irq_compose_msi_msg(parent, &msg);
	*address = (u64)msg.address_hi << 32 | msg.address_lo;
	*payload = msg.data;
}
EXPORT_SYMBOL_GPL(rust_iommu_compose_msi);

/* One 16-byte store; false, and nothing stored, where the CPU has none. */
bool rust_iommu_store_pair(u64 *entry, u64 lo, u64 hi)
{
	u128 new = (u128)hi << 64 | lo;
	u128 old = (u128)entry[1] << 64 | entry[0];

	if (!system_has_cmpxchg128())
		return false;
	while (!try_cmpxchg128((u128 *)entry, &old, new))
		;
	return true;
}
EXPORT_SYMBOL_GPL(rust_iommu_store_pair);

phys_addr_t rust_iommu_virt_to_phys(void *virt)
{
	return virt_to_phys(virt);
}
EXPORT_SYMBOL_GPL(rust_iommu_virt_to_phys);

void *rust_iommu_phys_to_virt(phys_addr_t phys)
{
	return phys_to_virt(phys);
}
EXPORT_SYMBOL_GPL(rust_iommu_phys_to_virt);

int rust_iommu_dev_to_node(struct device *dev)
{
	return dev_to_node(dev);
}
EXPORT_SYMBOL_GPL(rust_iommu_dev_to_node);

void rust_iommu_ratelimit_init(struct ratelimit_state *rs, u32 seconds, u32 burst)
{
	ratelimit_state_init(rs, seconds * HZ, burst);
}
EXPORT_SYMBOL_GPL(rust_iommu_ratelimit_init);

int rust_iommu_dma_mapping_error(struct device *dev, dma_addr_t addr)
{
	return dma_mapping_error(dev, addr);
}
EXPORT_SYMBOL_GPL(rust_iommu_dma_mapping_error);

void rust_iommu_dma_sync_for_cpu(struct device *dev, dma_addr_t addr, size_t size,
				 enum dma_data_direction dir)
{
	dma_sync_single_for_cpu(dev, addr, size, dir);
}
EXPORT_SYMBOL_GPL(rust_iommu_dma_sync_for_cpu);

void rust_iommu_dma_sync_for_device(struct device *dev, dma_addr_t addr, size_t size,
				    enum dma_data_direction dir)
{
	dma_sync_single_for_device(dev, addr, size, dir);
}
EXPORT_SYMBOL_GPL(rust_iommu_dma_sync_for_device);

int rust_iommu_pci_domain_nr(struct pci_bus *bus)
{
	return pci_domain_nr(bus);
}
EXPORT_SYMBOL_GPL(rust_iommu_pci_domain_nr);

struct pci_dev *rust_iommu_pci_physfn(struct pci_dev *pdev)
{
	return pci_physfn(pdev);
}
EXPORT_SYMBOL_GPL(rust_iommu_pci_physfn);

/* pci_real_dma_dev() is not exported. */
struct pci_dev *rust_iommu_pci_real_dma_dev(struct pci_dev *pdev)
{
#if IS_ENABLED(CONFIG_VMD)
	if (is_vmd(pdev->bus))
		return to_pci_sysdata(pdev->bus)->vmd_dev;
#endif
	return pdev;
}
EXPORT_SYMBOL_GPL(rust_iommu_pci_real_dma_dev);

phys_addr_t rust_iommu_top_of_ram(void)
{
	return virt_to_phys(high_memory - 1) + 1;
}
EXPORT_SYMBOL_GPL(rust_iommu_top_of_ram);

void rust_iommu_cond_resched(void)
{
	cond_resched();
}
EXPORT_SYMBOL_GPL(rust_iommu_cond_resched);

bool rust_iommu_cpu_online(unsigned int cpu)
{
	return cpu < nr_cpu_ids && cpu_online(cpu);
}
EXPORT_SYMBOL_GPL(rust_iommu_cpu_online);

void rust_iommu_sg_set(struct scatterlist *sg, phys_addr_t phys, unsigned int length)
{
	sg_set_page(sg, phys_to_page(phys), length, offset_in_page(phys));
}
EXPORT_SYMBOL_GPL(rust_iommu_sg_set);

static DEFINE_MUTEX(all_device_locks);

void rust_iommu_device_locks_begin(void)
{
	mutex_lock(&all_device_locks);
}
EXPORT_SYMBOL_GPL(rust_iommu_device_locks_begin);

void rust_iommu_device_locks_end(void)
{
	mutex_unlock(&all_device_locks);
}
EXPORT_SYMBOL_GPL(rust_iommu_device_locks_end);

/* device_trylock() of many devices: lockdep counts them as one under the other lock. */
bool rust_iommu_device_trylock(struct device *dev)
{
	return mutex_trylock_nest_lock(&dev->mutex, &all_device_locks);
}
EXPORT_SYMBOL_GPL(rust_iommu_device_trylock);

void rust_iommu_device_unlock(struct device *dev)
{
	device_unlock(dev);
}
EXPORT_SYMBOL_GPL(rust_iommu_device_unlock);
