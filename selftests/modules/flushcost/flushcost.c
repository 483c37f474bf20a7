// SPDX-License-Identifier: GPL-2.0
/*
 * Makes a function take longer: that by which an IOMMU driver submits an invalidation and waits for
 * it. In C because there are no kprobes in Rust. One caller at a time, as a hypervisor that shadows the
 * page tables serves them.
 */

#include <linux/delay.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/spinlock.h>

static char *symbol = "";
module_param(symbol, charp, 0444);
MODULE_PARM_DESC(symbol, "The function");

static unsigned int cost_us;
module_param(cost_us, uint, 0644);
MODULE_PARM_DESC(cost_us, "Microseconds that a call of it takes more, up to 1000");

static ulong calls;
module_param(calls, ulong, 0444);
MODULE_PARM_DESC(calls, "How often it was called");

static DEFINE_RAW_SPINLOCK(busy);

static int flushcost_pre(struct kprobe *probe, struct pt_regs *regs)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&busy, flags);
	calls++;
	if (cost_us)
		udelay(min(cost_us, 1000U));
	raw_spin_unlock_irqrestore(&busy, flags);
	return 0;
}
NOKPROBE_SYMBOL(flushcost_pre);

static struct kprobe flushcost_probe = {
	.pre_handler = flushcost_pre,
};

static int __init flushcost_init(void)
{
	int ret;

	flushcost_probe.symbol_name = symbol;
	ret = register_kprobe(&flushcost_probe);
	if (ret)
		pr_err("flushcost: no function '%s' to be probed (%d)\n", symbol, ret);
	return ret;
}

static void __exit flushcost_exit(void)
{
	unregister_kprobe(&flushcost_probe);
}

module_init(flushcost_init);
module_exit(flushcost_exit);

MODULE_DESCRIPTION("Invalidations that cost more");
MODULE_LICENSE("GPL");
