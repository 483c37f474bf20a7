/* SPDX-License-Identifier: GPL-2.0 */
/*
 * C inlines and macros that Rust cannot call, as functions; and prototypes that
 * only a private header of the kernel has.
 */
#ifndef RUST_IOMMU_SHIM_H
#define RUST_IOMMU_SHIM_H

#include <linux/cc_platform.h>
#include <linux/dma-mapping.h>
#include <linux/dma-map-ops.h>
#include <linux/hrtimer.h>
#include <linux/iommu.h>
#include <linux/irq.h>
#include <linux/pci.h>
#include <linux/ratelimit.h>
#include <linux/scatterlist.h>
#include <linux/virtio.h>
#include <linux/generic_pt/iommu.h>

/* drivers/iommu/iommu-pages.h; exported by the kernel image. */
void *iommu_alloc_pages_node_sz(int nid, gfp_t gfp, size_t size);
void iommu_free_pages(void *virt);
void iommu_put_pages_list(struct iommu_pages_list *list);

/* Calls @expired from an interrupt, some time after rust_iommu_timer_start(). */
struct rust_iommu_timer {
	void (*expired)(void *data);
	void *data;
	struct hrtimer timer;
};

/* Calls @run in process context, some time after rust_iommu_work_start(). */
struct rust_iommu_work {
	void (*run)(void *data);
	void *data;
	struct work_struct work;
};

/* What a driver's devices, and its units, have in sysfs, below the directory rust_iommu. */
enum rust_iommu_attribute {
	RUST_IOMMU_POLICY,
	RUST_IOMMU_MAX_AGE_MS,
	RUST_IOMMU_SEALED,
	RUST_IOMMU_APERTURE,
	RUST_IOMMU_PAGE_SIZES,
	RUST_IOMMU_RESERVED_REGIONS,
	RUST_IOMMU_DOMAIN,
	RUST_IOMMU_MAPPINGS,
	RUST_IOMMU_MAPPED_BYTES,
	RUST_IOMMU_INVALIDATIONS,
	RUST_IOMMU_FAULTS,
	RUST_IOMMU_MERGED_BY,
	RUST_IOMMU_UNIT_INVALIDATIONS,
	RUST_IOMMU_UNIT_TIMEOUTS,
	RUST_IOMMU_UNIT_FAULTS,
	RUST_IOMMU_UNIT_MAPPINGS,
	RUST_IOMMU_UNIT_MAPPED_BYTES,
	RUST_IOMMU_ATTRIBUTES,
};

typedef ssize_t (*rust_iommu_show)(struct device *dev, enum rust_iommu_attribute which, char *text);
typedef ssize_t (*rust_iommu_store)(struct device *dev, enum rust_iommu_attribute which,
				    const char *text, size_t length);

struct rust_iommu_attributes {
	rust_iommu_show show;
	rust_iommu_store store;
	struct dev_ext_attribute all[RUST_IOMMU_ATTRIBUTES];
	struct attribute *of_device[RUST_IOMMU_ATTRIBUTES + 1];
	struct attribute *of_unit[RUST_IOMMU_ATTRIBUTES + 1];
	struct attribute_group device;
	struct attribute_group unit;
	const struct attribute_group *unit_groups[2];
};

int rust_iommu_attributes_add(struct rust_iommu_attributes *attributes, struct device *dev);
void rust_iommu_attributes_init(struct rust_iommu_attributes *attributes, rust_iommu_show show,
				rust_iommu_store store);
void rust_iommu_attributes_remove(struct rust_iommu_attributes *attributes, struct device *dev);
void rust_iommu_compose_msi(struct irq_data *data, u64 *address, u32 *payload);
void rust_iommu_cond_resched(void);
bool rust_iommu_cpu_online(unsigned int cpu);
void rust_iommu_device_locks_begin(void);
void rust_iommu_device_locks_end(void);
bool rust_iommu_device_trylock(struct device *dev);
void rust_iommu_device_unlock(struct device *dev);
int rust_iommu_dma_mapping_error(struct device *dev, dma_addr_t addr);
void rust_iommu_dma_ops_clear(struct device *dev);
void rust_iommu_dma_ops_set(struct device *dev, const struct dma_map_ops *ops, bool running);
void rust_iommu_dma_sync_for_cpu(struct device *dev, dma_addr_t addr, size_t size,
				 enum dma_data_direction dir);
void rust_iommu_dma_sync_for_device(struct device *dev, dma_addr_t addr, size_t size,
				    enum dma_data_direction dir);
int rust_iommu_dev_to_node(struct device *dev);
bool rust_iommu_fatal_signal_pending(void);
int rust_iommu_group_type_show(struct device *dev, char *text);
int rust_iommu_group_type_store(struct device *dev, const char *text);
unsigned int rust_iommu_max_seg_size(struct device *dev);
int rust_iommu_pci_domain_nr(struct pci_bus *bus);
bool rust_iommu_pci_ats_supported(struct pci_dev *pdev);
struct pci_dev *rust_iommu_pci_physfn(struct pci_dev *pdev);
struct pci_dev *rust_iommu_pci_real_dma_dev(struct pci_dev *pdev);
phys_addr_t rust_iommu_page_to_phys(struct page *page);
bool rust_iommu_pages_are_one(struct page *page, size_t size);
struct page *rust_iommu_phys_to_page(phys_addr_t phys);
void *rust_iommu_phys_to_virt(phys_addr_t phys);
const char *rust_iommu_policy_parameter(void);
void rust_iommu_preempt_disable(void);
void rust_iommu_preempt_enable(void);
void rust_iommu_pt_deinit(struct pt_iommu *table);
void rust_iommu_ratelimit_init(struct ratelimit_state *rs, u32 seconds, u32 burst);
u64 rust_iommu_seg_boundary(struct device *dev);
void rust_iommu_set_shadow_on_flush(struct device *dev, bool on);
bool rust_iommu_sg_is_peer(struct scatterlist *sg);
phys_addr_t rust_iommu_sg_phys(struct scatterlist *sg);
void rust_iommu_sg_set(struct scatterlist *sg, phys_addr_t phys, unsigned int length);
bool rust_iommu_has_store_pair(void);
bool rust_iommu_memory_is_encrypted(void);
bool rust_iommu_store_pair(u64 *entry, u64 lo, u64 hi);
void rust_iommu_timer_init(struct rust_iommu_timer *timer, void (*expired)(void *data), void *data);
void rust_iommu_timer_start(struct rust_iommu_timer *timer, s64 ns);
void rust_iommu_timer_stop(struct rust_iommu_timer *timer);
phys_addr_t rust_iommu_top_of_ram(void);
void rust_iommu_twin_init(struct device *twin, struct device *dev, const char *name);
size_t rust_iommu_unmap_deferred(struct iommu_domain *domain, unsigned long iova, size_t size);
bool rust_iommu_uses_dma_iommu(struct device *dev);
phys_addr_t rust_iommu_virt_to_phys(void *virt);
void rust_iommu_virtio_clear_feature(struct virtio_device *vdev, unsigned int bit);
void rust_iommu_virtio_config_read(struct virtio_device *vdev, unsigned int offset, void *to,
				   size_t bytes);
void rust_iommu_virtio_config_write(struct virtio_device *vdev, unsigned int offset, u8 value);
void rust_iommu_virtio_del_vqs(struct virtio_device *vdev);
struct device *rust_iommu_virtio_device(struct virtio_device *vdev);
int rust_iommu_virtio_find_vqs(struct virtio_device *vdev, unsigned int count,
			       struct virtqueue **vqs, struct virtqueue_info *infos);
bool rust_iommu_virtio_has_feature(struct virtio_device *vdev, unsigned int bit);
void rust_iommu_virtio_ready(struct virtio_device *vdev);
int rust_iommu_virtqueue_add(struct virtqueue *vq, phys_addr_t out, unsigned int out_bytes,
			     phys_addr_t in, unsigned int in_bytes, void *token);
void *rust_iommu_vmap(struct page **pages, unsigned int count);
void rust_iommu_work_init(struct rust_iommu_work *work, void (*run)(void *data), void *data);
void rust_iommu_work_start(struct rust_iommu_work *work);
void rust_iommu_work_stop(struct rust_iommu_work *work);

#endif
