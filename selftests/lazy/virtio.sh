#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Policies with virtio-iommu, whose units keep no table: how many requests an I/O costs, as QEMU counts them, and how
# long they are put off. What can be changed and when is the same for all units: policy.sh.
#
# variant virtio on stock: --iommu virtio --policy lazy --nvme 1 --trace virtio_iommu_map,virtio_iommu_unmap
# timeout: 180

. /selftests/lib.sh

ktap_print_header
ktap_set_plan 6

disk_is_there()
{
	wait_for 30 test -b /dev/nvme0n1
}

load()
{
	load_iommu && modprobe nvme && disk_is_there && disk=$(pci_of nvme0n1) &&
		expect policy fq "$(policy_of "$disk")"
}

# events WORD: how many of virtio_iommu_WORD since the mark
events()
{
	echo "$counted" | awk -v e="virtio_iommu_$1" '$1 == e { n = $2 } END { print n + 0 }'
}

# requests POLICY: sets $ios, $maps, $unmaps, of 5000 random reads of 4 KB
requests()
{
	unbind "$disk" && set_policy "$disk" "$1" && bind nvme "$disk" && disk_is_there && ios=5000 &&
		vm_host trace mark before &&
		fio --name=count --filename=/dev/nvme0n1 --direct=1 --ioengine=libaio --thread --rw=randread --bs=4k \
			--iodepth=32 --number_ios=$ios >/tmp/fio.count 2>&1 &&
		counted=$(vm_host trace count before) && maps=$(events map) && unmaps=$(events unmap) &&
		ktap_print_msg "$1: $ios reads, $maps MAP, $unmaps UNMAP"
}

# Each read has its buffer mapped, which the device has to be told. In strict mode each is forgotten by
# itself; with a queue, many in one request.
strict_sends_two_an_io()
{
	requests strict && [ $maps -ge $ios ] && [ $maps -le $((ios * 21 / 20)) ] &&
		[ $unmaps -ge $((ios * 19 / 20)) ] && [ $unmaps -le $((ios * 21 / 20)) ]
}

a_queue_sends_few_unmaps()
{
	requests fq && [ $maps -le $((ios * 21 / 20)) ] && [ $unmaps -le $((ios / 4)) ] &&
		requests fq-single && [ $maps -le $((ios * 21 / 20)) ] && [ $unmaps -le $((ios / 4)) ]
}

# A buffer that comes back costs nothing. Some do not: what was kept for too long, what has no place.
what_comes_back_is_not_told()
{
	requests lazy && [ $maps -le $((ios / 10)) ] && [ $unmaps -le $((ios / 10)) ] &&
		grep "used again" $DRIVER_FILES/groups | sed 's/^ */# /'
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
		set_policy "$disk" lazy && fio_verify nvme0n1 8m && echo 1000 >$sysfs/max_age_ms && unbind "$disk" &&
		expect "left mapped" "" "$(log_since_mark | grep "driver .* left ")" && bind nvme "$disk" && disk_is_there
}

no_faults()
{
	expect faults "" "$(faults)" && expect refused "refused: 0" "$(grep refused $DRIVER_FILES/${UNIT_NAME}0/stats)"
}

mark_log
ktap_test_result "Y5 load" load
ktap_test_result "F4 strict: one MAP and one UNMAP an I/O" strict_sends_two_an_io
ktap_test_result "F4 a queue: one MAP an I/O, few UNMAPs" a_queue_sends_few_unmaps
ktap_test_result "F4 lazy: what comes back is not told" what_comes_back_is_not_told
ktap_test_result "F4 what is kept goes in time" what_is_kept_goes
ktap_test_result "no faults" no_faults
ktap_finished
