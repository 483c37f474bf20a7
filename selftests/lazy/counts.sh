#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# How many invalidations the unit is told for a number of unmaps, under each policy; and that under
# strict a page is out of reach when dma_unmap returns.
#
# variant ours: --policy strict --nvme 0 --testdev --device edu --trace vtd_inv_desc_*
# variant amd on stock: --iommu amd --policy strict --nvme 0 --testdev --device edu --trace amdvi_pages_inval
# variant virtio on stock: --iommu virtio --policy strict --nvme 0 --testdev --device edu --trace virtio_iommu_unmap
# extra: ours/debug
# timeout: 300

. /selftests/lib.sh

ktap_print_header
ktap_set_plan 7

dev=$(pci_devices 1b36:0005)
edu=$(pci_devices 1234:11e8)
# Pages of a window of 64 MB.
WINDOW=16384
case $KERNEL in
debug) PAIRS=10000 PAGES=500 ;;
*) PAIRS=100000 PAGES=10000 ;;
esac
# QEMU's AMD-Vi may remember that nothing was mapped (NpCache), and is told of each new mapping too. Under lazy
# few are new, and that few are used up is for lazy/window.sh to show.
case $VARIANT in
amd) announced=1 kept=1 ;;
*) announced=0 kept=0 ;;
esac

load()
{
	load_iommu lazy_window_mb=64 && insmod /modules/rust_testdev.ko && insmod /modules/rust_bench.ko &&
		unbind "$edu" && take rust_bench "$edu"
}

# run POLICY PAIRS: how many invalidations there were for unmaps is in $told, how many seconds it took at most in $seconds
run()
{
	unbind "$edu" && set_policy "$edu" "$1" && bind rust_bench "$edu" || return 1
	# What was freed before, the core's queues flush within a second.
	sleep 1.2
	start=$(cut -d. -f1 /proc/uptime)
	flushes=$(window_of "$edu" flushes)
	vm_host trace mark counts || return 1
	answer=$(ask rust_bench "$edu" run pairs="$2") && expect failed 0 "$(answer_of failed "$answer")" &&
		vm_host trace count counts >/tmp/counts || return 1
	[ -z "$flushes" ] || flushes=$(($(window_of "$edu" flushes) - flushes))
	seconds=$(($(cut -d. -f1 /proc/uptime) - start + 1))
	told=$(awk "/^$INVALIDATION/"' { n += $2 } END { print n + 0 }' /tmp/counts)
	[ "$1" = lazy ] || told=$((told - announced * $2))
	ktap_print_msg "$1: $2 pairs, $told invalidations, at most $seconds s"
}

strict()
{
	run strict 5000 && expect invalidations 5000 "$told"
}

# 256 entries of the core's queue for each CPU, and a timer of 10 ms.
fq()
{
	run fq $PAIRS && [ "$told" -gt 0 ] && [ "$told" -le $((PAIRS / 255 + seconds * 100 + 1)) ]
}

# 32768 entries, and 1 s.
fq_single()
{
	run fq-single $PAIRS && [ "$told" -le $((PAIRS / 32767 + seconds + 1)) ]
}

# A lap, and nine tenths of the maximum age, which is 1 s. The window's own count is read before and after
# the trace: the timer may come in between.
lazy()
{
	run lazy $PAIRS || return 1
	# Nothing that comes back is forgotten in between, and there is no window.
	if [ "$VARIANT" = virtio ]; then
		[ "$told" -le $((PAIRS / 1000 + seconds)) ]
		return
	fi
	if [ $kept = 1 ]; then
		[ "$told" -le $((PAIRS / 100)) ]
		return
	fi
	[ "$told" -le "$flushes" ] && [ "$flushes" -le $((told + 2)) ] &&
		[ "$told" -le $((PAIRS / WINDOW + seconds * 10 / 9 + 1)) ] && [ "$told" -ge $((PAIRS / WINDOW)) ]
}

strict_is_at_once()
{
	set_policy "$dev" strict && races age "rust_testdev-$dev" 0 --pages $PAGES --interval 0
}

nothing_is_left()
{
	unbind "$edu" && rmmod rust_testdev && rmmod rust_bench && echo 1 >/sys/module/$DRIVER/parameters/shutdown &&
		rmmod $DRIVER && rmmod rust_iommu && leak_scan
}

ktap_test_result "load" load
ktap_test_result "A8 strict: one invalidation an unmap" strict
ktap_test_result "A10 fq: none inside unmap" fq
ktap_test_result "A10 fq-single: none inside unmap" fq_single
ktap_test_result "A8 lazy: one a lap" lazy
ktap_test_result "A11 strict: nothing is reached after an unmap" strict_is_at_once
ktap_test_result "nothing is left" nothing_is_left
ktap_finished
