// SPDX-License-Identifier: GPL-2.0
/* One line a function: the reasons are with their users in the .rs files. */

#include <linux/cpumask.h>
#include <linux/device.h>
#include <linux/dma-map-ops.h>
#include <linux/export.h>
#include <linux/hrtimer.h>
#include <linux/io.h>
#include <linux/iommu.h>
#include <linux/kernfs.h>
#include <linux/memremap.h>
#include <linux/moduleparam.h>
#include <linux/msi.h>
#include <linux/pci-ats.h>
#include <linux/preempt.h>
#include <linux/scatterlist.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/sysfs.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/vmalloc.h>
#include <linux/workqueue.h>
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

bool rust_iommu_has_store_pair(void)
{
	return system_has_cmpxchg128();
}
EXPORT_SYMBOL_GPL(rust_iommu_has_store_pair);

/* Physical addresses that hardware is given would need a bit set. */
bool rust_iommu_memory_is_encrypted(void)
{
	return cc_platform_has(CC_ATTR_MEM_ENCRYPT);
}
EXPORT_SYMBOL_GPL(rust_iommu_memory_is_encrypted);

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

bool rust_iommu_pci_ats_supported(struct pci_dev *pdev)
{
	return pci_ats_supported(pdev);
}
EXPORT_SYMBOL_GPL(rust_iommu_pci_ats_supported);

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

bool rust_iommu_fatal_signal_pending(void)
{
	return fatal_signal_pending(current);
}
EXPORT_SYMBOL_GPL(rust_iommu_fatal_signal_pending);

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

/* What drivers/iommu/dma-iommu.c and kernel/dma/mapping.c look at, see lazy/twin.rs. */
void rust_iommu_twin_init(struct device *twin, struct device *dev, const char *name)
{
	twin->init_name = name;
	twin->iommu_group = dev->iommu_group;
	twin->iommu = dev->iommu;
	twin->dma_mask = dev->dma_mask;
	twin->coherent_dma_mask = dev->coherent_dma_mask;
	twin->dma_parms = dev->dma_parms;
	twin->bus_dma_limit = dev->bus_dma_limit;
	set_dev_node(twin, dev_to_node(dev));
	dev_set_dma_iommu(twin);
}
EXPORT_SYMBOL_GPL(rust_iommu_twin_init);

/* What is unmapped is left to a later flush of the domain. */
size_t rust_iommu_unmap_deferred(struct iommu_domain *domain, unsigned long iova, size_t size)
{
	struct iommu_iotlb_gather gather;

	iommu_iotlb_gather_init(&gather);
	gather.queued = true;
	return iommu_unmap_fast(domain, iova, size, &gather);
}
EXPORT_SYMBOL_GPL(rust_iommu_unmap_deferred);

#ifndef CONFIG_ARCH_HAS_DMA_OPS
#error "a kernel without dma_map_ops cannot give a device operations of ours"
#endif

/*
 * dma_map_phys() and its like read the operations first and the flag later. Whoever has read
 * that there are none has to be done before the flag goes: it would map nothing at all.
 */
void rust_iommu_dma_ops_set(struct device *dev, const struct dma_map_ops *ops, bool running)
{
	set_dma_ops(dev, ops);
	if (running)
		synchronize_rcu_tasks();
	dev_clear_dma_iommu(dev);
	/* Whoever has still seen the flag maps and unmaps by the core's ways; these end here. */
	if (running)
		synchronize_rcu_tasks();
}
EXPORT_SYMBOL_GPL(rust_iommu_dma_ops_set);

/* Nobody maps or unmaps for the device. */
void rust_iommu_dma_ops_clear(struct device *dev)
{
	dev_set_dma_iommu(dev);
	set_dma_ops(dev, NULL);
}
EXPORT_SYMBOL_GPL(rust_iommu_dma_ops_clear);

bool rust_iommu_uses_dma_iommu(struct device *dev)
{
	return dev_dma_iommu(dev);
}
EXPORT_SYMBOL_GPL(rust_iommu_uses_dma_iommu);

u64 rust_iommu_seg_boundary(struct device *dev)
{
	return dma_get_seg_boundary(dev);
}
EXPORT_SYMBOL_GPL(rust_iommu_seg_boundary);

unsigned int rust_iommu_max_seg_size(struct device *dev)
{
	return dma_get_max_seg_size(dev);
}
EXPORT_SYMBOL_GPL(rust_iommu_max_seg_size);

/* What an entry says, and the entry after it: one call for what are three. */
phys_addr_t rust_iommu_sg_phys(struct scatterlist *sg)
{
	return sg_phys(sg);
}
EXPORT_SYMBOL_GPL(rust_iommu_sg_phys);

bool rust_iommu_sg_is_peer(struct scatterlist *sg)
{
	return is_pci_p2pdma_page(sg_page(sg));
}
EXPORT_SYMBOL_GPL(rust_iommu_sg_is_peer);

phys_addr_t rust_iommu_page_to_phys(struct page *page)
{
	return page_to_phys(page);
}
EXPORT_SYMBOL_GPL(rust_iommu_page_to_phys);

struct page *rust_iommu_phys_to_page(phys_addr_t phys)
{
	return phys_to_page(phys);
}
EXPORT_SYMBOL_GPL(rust_iommu_phys_to_page);

/* A kernel mapping of pages side by side; vunmap() ends it. */
void *rust_iommu_vmap(struct page **pages, unsigned int count)
{
	return vmap(pages, count, VM_MAP, PAGE_KERNEL);
}
EXPORT_SYMBOL_GPL(rust_iommu_vmap);

static enum hrtimer_restart rust_iommu_timer_expired(struct hrtimer *hrtimer)
{
	struct rust_iommu_timer *timer = container_of(hrtimer, struct rust_iommu_timer, timer);

	timer->expired(timer->data);
	return HRTIMER_NORESTART;
}

void rust_iommu_timer_init(struct rust_iommu_timer *timer, void (*expired)(void *data), void *data)
{
	timer->expired = expired;
	timer->data = data;
	hrtimer_setup(&timer->timer, rust_iommu_timer_expired, CLOCK_MONOTONIC, HRTIMER_MODE_REL);
}
EXPORT_SYMBOL_GPL(rust_iommu_timer_init);

void rust_iommu_timer_start(struct rust_iommu_timer *timer, s64 ns)
{
	hrtimer_start(&timer->timer, ns_to_ktime(ns), HRTIMER_MODE_REL);
}
EXPORT_SYMBOL_GPL(rust_iommu_timer_start);

void rust_iommu_timer_stop(struct rust_iommu_timer *timer)
{
	hrtimer_cancel(&timer->timer);
}
EXPORT_SYMBOL_GPL(rust_iommu_timer_stop);

static void rust_iommu_work_run(struct work_struct *item)
{
	struct rust_iommu_work *work = container_of(item, struct rust_iommu_work, work);

	work->run(work->data);
}

void rust_iommu_work_init(struct rust_iommu_work *work, void (*run)(void *data), void *data)
{
	work->run = run;
	work->data = data;
	INIT_WORK(&work->work, rust_iommu_work_run);
}
EXPORT_SYMBOL_GPL(rust_iommu_work_init);

void rust_iommu_work_start(struct rust_iommu_work *work)
{
	queue_work(system_dfl_wq, &work->work);
}
EXPORT_SYMBOL_GPL(rust_iommu_work_start);

void rust_iommu_work_stop(struct rust_iommu_work *work)
{
	disable_work_sync(&work->work);
}
EXPORT_SYMBOL_GPL(rust_iommu_work_stop);

void rust_iommu_preempt_disable(void)
{
	preempt_disable();
}
EXPORT_SYMBOL_GPL(rust_iommu_preempt_disable);

void rust_iommu_preempt_enable(void)
{
	preempt_enable();
}
EXPORT_SYMBOL_GPL(rust_iommu_preempt_enable);
static char *policy = "";
module_param(policy, charp, 0444);
MODULE_PARM_DESC(policy, "strict, fq, fq-single, lazy or identity, for every device (default: as the kernel's parameters say)");

/* Pages of one allocation: only the first of them is counted. */
bool rust_iommu_pages_are_one(struct page *page, size_t size)
{
	return size <= PAGE_SIZE || !page_ref_count(page + 1);
}
EXPORT_SYMBOL_GPL(rust_iommu_pages_are_one);

const char *rust_iommu_policy_parameter(void)
{
	return policy;
}

/* The attribute of a device's group, as a file; kernfs_put() gives it back. */
static struct kernfs_node *rust_iommu_group_file(struct device *dev, const char *name,
						 struct kobject **group)
{
	struct kernfs_node *link = kernfs_find_and_get(dev->kobj.sd, "iommu_group");
	struct kernfs_node *file = NULL;

	if (!link)
		return NULL;
	if (kernfs_type(link) == KERNFS_LINK) {
		*group = link->symlink.target_kn->priv;
		file = kernfs_find_and_get(link->symlink.target_kn, name);
	}
	kernfs_put(link);
	return file;
}

int rust_iommu_group_type_show(struct device *dev, char *text)
{
	struct kobject *group;
	struct kernfs_node *file = rust_iommu_group_file(dev, "type", &group);
	int ret;

	if (!file)
		return -ENODEV;
	ret = group->ktype->sysfs_ops->show(group, file->priv, text);
	kernfs_put(file);
	return ret;
}
EXPORT_SYMBOL_GPL(rust_iommu_group_type_show);

int rust_iommu_group_type_store(struct device *dev, const char *text)
{
	struct kobject *group;
	struct kernfs_node *file = rust_iommu_group_file(dev, "type", &group);
	int ret;

	if (!file)
		return -ENODEV;
	ret = group->ktype->sysfs_ops->store(group, file->priv, text, strlen(text));
	kernfs_put(file);
	return ret < 0 ? ret : 0;
}
EXPORT_SYMBOL_GPL(rust_iommu_group_type_store);

void rust_iommu_set_shadow_on_flush(struct device *dev, bool on)
{
	dev->iommu->shadow_on_flush = on;
}
EXPORT_SYMBOL_GPL(rust_iommu_set_shadow_on_flush);

static const struct {
	const char *name;
	umode_t mode;
	bool unit;
} rust_iommu_attribute_names[RUST_IOMMU_ATTRIBUTES] = {
	[RUST_IOMMU_POLICY] = { "policy", 0644 },
	[RUST_IOMMU_MAX_AGE_MS] = { "max_age_ms", 0644 },
	[RUST_IOMMU_SEALED] = { "sealed", 0644 },
	[RUST_IOMMU_APERTURE] = { "aperture", 0644 },
	[RUST_IOMMU_PAGE_SIZES] = { "page_sizes", 0444 },
	[RUST_IOMMU_RESERVED_REGIONS] = { "reserved_regions", 0444 },
	[RUST_IOMMU_DOMAIN] = { "domain", 0444 },
	/* Reading these takes as long as reading all tables does: not for everybody. */
	[RUST_IOMMU_MAPPINGS] = { "mappings", 0400 },
	[RUST_IOMMU_MAPPED_BYTES] = { "mapped_bytes", 0400 },
	[RUST_IOMMU_INVALIDATIONS] = { "invalidations", 0444 },
	[RUST_IOMMU_FAULTS] = { "faults", 0444 },
	[RUST_IOMMU_MERGED_BY] = { "merged_by", 0444 },
	[RUST_IOMMU_UNIT_INVALIDATIONS] = { "invalidations", 0444, true },
	[RUST_IOMMU_UNIT_TIMEOUTS] = { "timeouts", 0444, true },
	[RUST_IOMMU_UNIT_FAULTS] = { "faults", 0444, true },
	[RUST_IOMMU_UNIT_MAPPINGS] = { "mappings", 0400, true },
	[RUST_IOMMU_UNIT_MAPPED_BYTES] = { "mapped_bytes", 0400, true },
};

static ssize_t rust_iommu_attribute_show(struct device *dev, struct device_attribute *attr,
					 char *text)
{
	struct dev_ext_attribute *this = container_of(attr, struct dev_ext_attribute, attr);
	struct rust_iommu_attributes *attributes = this->var;

	return attributes->show(dev, this - attributes->all, text);
}

static ssize_t rust_iommu_attribute_store(struct device *dev, struct device_attribute *attr,
					  const char *text, size_t length)
{
	struct dev_ext_attribute *this = container_of(attr, struct dev_ext_attribute, attr);
	struct rust_iommu_attributes *attributes = this->var;
	ssize_t ret;

	/*
	 * Waiting for the lock could be for ever: who removes the attributes waits for this, and may
	 * hold it.
	 */
	if (!device_trylock(dev))
		return restart_syscall();
	ret = attributes->store(dev, this - attributes->all, text, length);
	device_unlock(dev);
	return ret;
}

void rust_iommu_attributes_init(struct rust_iommu_attributes *attributes, rust_iommu_show show,
				rust_iommu_store store)
{
	struct attribute **device = attributes->of_device;
	struct attribute **unit = attributes->of_unit;
	int i;

	attributes->show = show;
	attributes->store = store;
	for (i = 0; i < RUST_IOMMU_ATTRIBUTES; i++) {
		struct dev_ext_attribute *this = &attributes->all[i];

		this->var = attributes;
		this->attr.attr.name = rust_iommu_attribute_names[i].name;
		this->attr.attr.mode = rust_iommu_attribute_names[i].mode;
		this->attr.show = rust_iommu_attribute_show;
		this->attr.store = rust_iommu_attribute_store;
		if (rust_iommu_attribute_names[i].unit)
			*unit++ = &this->attr.attr;
		else
			*device++ = &this->attr.attr;
	}
	attributes->device.name = "rust_iommu";
	attributes->device.attrs = attributes->of_device;
	attributes->unit.name = "rust_iommu";
	attributes->unit.attrs = attributes->of_unit;
	attributes->unit_groups[0] = &attributes->unit;
}
EXPORT_SYMBOL_GPL(rust_iommu_attributes_init);

int rust_iommu_attributes_add(struct rust_iommu_attributes *attributes, struct device *dev)
{
	return sysfs_create_group(&dev->kobj, &attributes->device);
}
EXPORT_SYMBOL_GPL(rust_iommu_attributes_add);

void rust_iommu_attributes_remove(struct rust_iommu_attributes *attributes, struct device *dev)
{
	sysfs_remove_group(&dev->kobj, &attributes->device);
}
EXPORT_SYMBOL_GPL(rust_iommu_attributes_remove);

void rust_iommu_virtio_clear_feature(struct virtio_device *vdev, unsigned int bit)
{
	__virtio_clear_bit(vdev, bit);
}
EXPORT_SYMBOL_GPL(rust_iommu_virtio_clear_feature);

void rust_iommu_virtio_config_read(struct virtio_device *vdev, unsigned int offset, void *to,
				   size_t bytes)
{
	size_t words = bytes / 4;

	/* Each field is to be read in its own width, or in words of 32 bits if it has 64. */
	__virtio_cread_many(vdev, offset, to, words, 4);
	virtio_cread_bytes(vdev, offset + words * 4, to + words * 4, bytes % 4);
}
EXPORT_SYMBOL_GPL(rust_iommu_virtio_config_read);

void rust_iommu_virtio_config_write(struct virtio_device *vdev, unsigned int offset, u8 value)
{
	virtio_cwrite8(vdev, offset, value);
}
EXPORT_SYMBOL_GPL(rust_iommu_virtio_config_write);

void rust_iommu_virtio_del_vqs(struct virtio_device *vdev)
{
	vdev->config->del_vqs(vdev);
}
EXPORT_SYMBOL_GPL(rust_iommu_virtio_del_vqs);

struct device *rust_iommu_virtio_device(struct virtio_device *vdev)
{
	return &vdev->dev;
}
EXPORT_SYMBOL_GPL(rust_iommu_virtio_device);

int rust_iommu_virtio_find_vqs(struct virtio_device *vdev, unsigned int count,
			       struct virtqueue **vqs, struct virtqueue_info *infos)
{
	return virtio_find_vqs(vdev, count, vqs, infos, NULL);
}
EXPORT_SYMBOL_GPL(rust_iommu_virtio_find_vqs);

bool rust_iommu_virtio_has_feature(struct virtio_device *vdev, unsigned int bit)
{
	return virtio_has_feature(vdev, bit);
}
EXPORT_SYMBOL_GPL(rust_iommu_virtio_has_feature);

void rust_iommu_virtio_ready(struct virtio_device *vdev)
{
	virtio_device_ready(vdev);
}
EXPORT_SYMBOL_GPL(rust_iommu_virtio_ready);

/* Bytes that the device reads, and bytes that it writes; either may be none. */
int rust_iommu_virtqueue_add(struct virtqueue *vq, phys_addr_t out, unsigned int out_bytes,
			     phys_addr_t in, unsigned int in_bytes, void *token)
{
	/* Not sg_init_table(): it and the memset() that it calls are 50 instructions an entry. */
	struct scatterlist out_sg = {}, in_sg = {};
	struct scatterlist *sgs[2];
	unsigned int outs = 0, ins = 0;

	if (out_bytes) {
		sg_init_marker(&out_sg, 1);
		sg_set_page(&out_sg, phys_to_page(out), out_bytes, offset_in_page(out));
		sgs[outs++] = &out_sg;
	}
	if (in_bytes) {
		sg_init_marker(&in_sg, 1);
		sg_set_page(&in_sg, phys_to_page(in), in_bytes, offset_in_page(in));
		sgs[outs + ins++] = &in_sg;
	}
	return virtqueue_add_sgs(vq, sgs, outs, ins, token, GFP_ATOMIC);
}
EXPORT_SYMBOL_GPL(rust_iommu_virtqueue_add);
