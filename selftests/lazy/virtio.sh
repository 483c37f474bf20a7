#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Policies with virtio-iommu, whose units keep no table: how many requests an I/O costs, as QEMU counts them, how often
# the unit is waited for, which is a notification and a poll each, and how long requests are put off. What can be changed
# and when is the same for all units: policy.sh.
#
# Buffers of 128 KB are in one piece of memory (huge pages), or scattered: of single pages, for which a file is filled
# and every second page of it given back. The page allocator hands out single free pages first.
#
# variant virtio on stock: --iommu virtio --policy lazy --nvme 1 --trace virtio_iommu_map,virtio_iommu_unmap
# skip vtd amd: a unit with a table is not told of mappings; counts has its commands
# variant in-tree: --in-tree --iommu virtio --policy lazy --nvme 1 --trace virtio_iommu_map,virtio_iommu_unmap,virtio_queue_notify
# extra: in-tree
# timeout: 300

. /selftests/lib.sh

ktap_print_header
case $VARIANT in
in-tree) ktap_set_plan 3 ;;
*) ktap_set_plan 9 ;;
esac

disk_is_there()
{
	wait_for 30 test -b /dev/nvme0n1
}

load()
{
	load_iommu && modprobe nvme && disk_is_there && disk=$(pci_of nvme0n1) && expect type DMA-FQ "$(type_of "$disk")"
}

# events NAME: how many since the mark
events()
{
	echo "$counted" | awk -v e="$1" '$1 == e { n = $2 } END { print n + 0 }'
}

# stat WORD: of the unit, as it counts itself. The kernel's own driver does not; it waits whenever it has notified the
# device, which QEMU counts.
stat()
{
	[ "$VARIANT" != in-tree ] || { echo 0 && return; }
	sed -n "s/^$1: //p" $DRIVER_FILES/${UNIT_NAME}0/stats
}

# policy POLICY: of the disk
policy()
{
	unbind "$disk" || return 1
	case $VARIANT/$1 in
	in-tree/strict) set_type "$disk" DMA ;;
	in-tree/fq) set_type "$disk" DMA-FQ ;;
	*) set_policy "$disk" "$1" ;;
	esac && bind nvme "$disk" && disk_is_there
}

# requests POLICY [BLOCK IOMEM]: sets $ios, $maps, $unmaps, $waits, of random reads: 5000 of 4 KB if not told
requests()
{
	policy=$1 block=${2:-4k} iomem=${3:-malloc}
	case $block in
	4k) ios=5000 depth=32 ;;
	*) ios=1000 depth=16 ;;
	esac
	policy "$policy" || return 1
	if [ "$block/$iomem" = 128k/malloc ]; then
		holes || return 1
	fi
	vm_host trace mark before && waits=$(stat waits) &&
		fio --name=count --filename=/dev/nvme0n1 --direct=1 --ioengine=libaio --thread --rw=randread --bs="$block" \
			--iomem="$iomem" --iodepth=$depth --number_ios=$ios --io_size=100g >/tmp/fio.count 2>&1 &&
		waits=$(($(stat waits) - waits)) && counted=$(vm_host trace count before) && maps=$(events virtio_iommu_map) &&
		unmaps=$(events virtio_iommu_unmap) || return 1
	[ "$VARIANT" != in-tree ] || waits=$(events virtio_queue_notify)
	ktap_print_msg "$policy: $ios reads of $block, $iomem: $maps MAP, $unmaps UNMAP, $waits waits"
}

large_buffers()
{
	echo never >/sys/kernel/mm/transparent_hugepage/enabled
	echo 16 >/proc/sys/vm/nr_hugepages
	mount -t tmpfs -o huge=never none /mnt
}

holes()
{
	rm -f /mnt/pages
	fio --name=pages --filename=/mnt/pages --size=64m --rw=write --bs=64k --thread >/tmp/fio.holes &&
		fio --name=holes --filename=/mnt/pages --size=64m --rw=trim:4k --bs=4k --ioengine=falloc --thread \
			--io_size=32m >/tmp/fio.holes
}

# Each read has its buffer mapped, which the device has to be told, and waited for before the disk is. In strict mode
# each is forgotten by itself; with a queue, many in one request.
strict_sends_two_an_io()
{
	requests strict && [ $maps -ge $ios ] && [ $maps -le $((ios * 21 / 20)) ] &&
		[ $unmaps -ge $((ios * 19 / 20)) ] && [ $unmaps -le $((ios * 21 / 20)) ] &&
		[ "$waits" -ge $((ios * 19 / 10)) ] && [ "$waits" -le $((maps + unmaps)) ]
}

a_queue_sends_few_unmaps()
{
	requests fq && [ $maps -le $((ios * 21 / 20)) ] && [ $unmaps -le $((ios / 4)) ] &&
		[ "$waits" -le $((maps + unmaps)) ] &&
		requests fq-single && [ $maps -le $((ios * 21 / 20)) ] && [ $unmaps -le $((ios / 4)) ] &&
		[ "$waits" -le $((maps + unmaps)) ]
}

# A buffer that comes back costs nothing. Some do not: what was kept for too long, what has no place.
what_comes_back_is_not_told()
{
	requests lazy && [ $maps -le $((ios / 10)) ] && [ $unmaps -le $((ios / 10)) ] &&
		[ "$waits" -le $((ios / 10)) ] && grep "used again" $DRIVER_FILES/groups | sed 's/^ */# /'
}

# In one piece it is as 4 KB. The pieces of a scattered buffer are a MAP each, but are waited for once: they get
# addresses side by side, and are forgotten with one UNMAP. That one the kernel wants at once, with a queue too
# (dma_iova_unlink).
large_buffers_cost_no_more_waits()
{
	most=21
	for policy in strict fq; do
		requests $policy 128k shmhuge && [ $maps -ge $ios ] && [ $maps -le $((ios * 21 / 20)) ] &&
			[ "$waits" -le $((ios * most / 10)) ] || return 1
		most=13
	done
	for policy in strict fq; do
		requests $policy 128k malloc && [ $maps -ge $((ios * 2)) ] && [ $unmaps -le $((ios * 21 / 20)) ] &&
			[ "$waits" -le $((ios * 21 / 10)) ] || return 1
	done
	scattered=$maps
}

# Under lazy the pieces of a scattered buffer are mapped one by one, the first time.
large_buffers_that_come_back()
{
	requests lazy 128k shmhuge && [ $maps -le $((ios / 10)) ] && [ "$waits" -le $((ios / 10)) ] &&
		requests lazy 128k malloc && [ $maps -le $((scattered / 4)) ] && [ "$waits" -le $((maps + unmaps)) ]
}

# All that is known of an endpoint the unit was asked for.
every_endpoint_was_asked_for()
{
	endpoints=$(ls /sys/class/iommu/${UNIT_NAME}0/devices | wc -l)
	ktap_print_msg "$(stat probes) PROBE for $endpoints endpoints"
	[ "$endpoints" -gt 1 ] && [ "$(stat probes)" -ge "$endpoints" ]
}

kept()
{
	kept_of "$disk"
}

# Without a maximum age they stay; a change of the age or of the policy ends all.
what_is_kept_goes()
{
	sysfs=/sys/bus/pci/devices/$disk/rust_iommu
	echo 0 >$sysfs/max_age_ms && fio_read nvme0n1 1 && sleep 2 && [ "$(kept)" -gt 0 ] || return 1
	echo 300 >$sysfs/max_age_ms && expect kept 0 "$(kept)" &&
		fio_read nvme0n1 1 && sleep 1 && expect "kept after a second" 0 "$(kept)" &&
		echo 0 >$sysfs/max_age_ms && fio_read nvme0n1 1 && [ "$(kept)" -gt 0 ] &&
		set_policy "$disk" strict && expect "kept with strict" 0 "$(kept)" &&
		set_policy "$disk" lazy && fio_verify nvme0n1 8 && echo 1000 >$sysfs/max_age_ms && unbind "$disk" &&
		expect "left mapped" "" "$(log_since_mark | grep "driver .* left ")" && bind nvme "$disk" && disk_is_there
}

no_faults()
{
	expect faults "" "$(faults)" && expect refused "refused: 0" "$(grep refused $DRIVER_FILES/${UNIT_NAME}0/stats)"
}

# For Documentation/virtio-iommu.rst, and to see that what is counted is what a driver does that is known.
in_tree()
{
	requests "$1" && [ $maps -ge $ios ] && requests "$1" 128k shmhuge && [ $maps -ge $ios ] &&
		requests "$1" 128k malloc && [ $maps -ge $((ios * 2)) ] && [ "$waits" -ge $ios ]
}

mark_log
ktap_test_result "Y5 load" load
if [ "$VARIANT" = in-tree ]; then
	large_buffers
	ktap_test_result "requests of the kernel's own driver: strict" in_tree strict
	ktap_test_result "requests of the kernel's own driver: fq" in_tree fq
	ktap_finished
fi
ktap_test_result "each endpoint was asked for its properties" every_endpoint_was_asked_for
ktap_test_result "F4 strict: one MAP and one UNMAP an I/O, and a wait each" strict_sends_two_an_io
ktap_test_result "F4 a queue: one MAP an I/O, few UNMAPs" a_queue_sends_few_unmaps
ktap_test_result "F4 lazy: what comes back is not told" what_comes_back_is_not_told
large_buffers
ktap_test_result "F4 128 KB, also scattered: two waits an I/O at most" large_buffers_cost_no_more_waits
ktap_test_result "F4 lazy: nor are 128 KB that come back" large_buffers_that_come_back
ktap_test_result "F4 what is kept goes in time" what_is_kept_goes
ktap_test_result "no faults" no_faults
ktap_finished
