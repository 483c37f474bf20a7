/* SPDX-License-Identifier: GPL-2.0 */
/*
 * C inlines and macros that Rust cannot call, as functions; and prototypes that
 * only a private header of the kernel has.
 */
#ifndef RUST_IOMMU_SHIM_H
#define RUST_IOMMU_SHIM_H

#include <linux/dma-mapping.h>
#include <linux/iommu.h>
#include <linux/irq.h>
#include <linux/pci.h>
#include <linux/ratelimit.h>
#include <linux/scatterlist.h>
#include <linux/generic_pt/iommu.h>

/* drivers/iommu/iommu-pages.h; exported by the kernel image. */
void *iommu_alloc_pages_node_sz(int nid, gfp_t gfp, size_t size);
void iommu_free_pages(void *virt);
void iommu_put_pages_list(struct iommu_pages_list *list);

void rust_iommu_compose_msi(struct irq_data *data, u64 *address, u32 *payload);
void rust_iommu_cond_resched(void);
bool rust_iommu_cpu_online(unsigned int cpu);
void rust_iommu_device_locks_begin(void);
void rust_iommu_device_locks_end(void);
bool rust_iommu_device_trylock(struct device *dev);
void rust_iommu_device_unlock(struct device *dev);
int rust_iommu_dma_mapping_error(struct device *dev, dma_addr_t addr);
void rust_iommu_dma_sync_for_cpu(struct device *dev, dma_addr_t addr, size_t size,
				 enum dma_data_direction dir);
void rust_iommu_dma_sync_for_device(struct device *dev, dma_addr_t addr, size_t size,
				    enum dma_data_direction dir);
int rust_iommu_dev_to_node(struct device *dev);
int rust_iommu_pci_domain_nr(struct pci_bus *bus);
struct pci_dev *rust_iommu_pci_physfn(struct pci_dev *pdev);
struct pci_dev *rust_iommu_pci_real_dma_dev(struct pci_dev *pdev);
void *rust_iommu_phys_to_virt(phys_addr_t phys);
void rust_iommu_pt_deinit(struct pt_iommu *table);
void rust_iommu_ratelimit_init(struct ratelimit_state *rs, u32 seconds, u32 burst);
void rust_iommu_sg_set(struct scatterlist *sg, phys_addr_t phys, unsigned int length);
bool rust_iommu_store_pair(u64 *entry, u64 lo, u64 hi);
phys_addr_t rust_iommu_top_of_ram(void);
phys_addr_t rust_iommu_virt_to_phys(void *virt);

#endif
