#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# What user space sees and may change in sysfs: the unit, and the type of a
# group's default domain.
#
# variant ours:
# variant amd on stock: --iommu amd
# variant in-tree: --in-tree
# variant virtio on stock: --iommu virtio
# variant full on stock:
# extra: in-tree amd ours/debug
# long: full
# timeout: 120

. /selftests/lib.sh

ktap_print_header
ktap_set_plan 6

disk=nvme0n1

unit_in_sysfs()
{
	for unit in /sys/class/iommu/*; do
		[ -e "$unit" ] || return 1
		ls "$unit/devices" | grep -q "$bdf" && return 0
	done
	ktap_print_msg "no unit of /sys/class/iommu lists $bdf"
	return 1
}

device_links_to_unit()
{
	[ -d "/sys/bus/pci/devices/$bdf/iommu/devices" ]
}

load_and_use()
{
	load_iommu && modprobe nvme && wait_for 30 test -b /dev/$disk &&
		bdf=$(pci_of $disk) && fio_verify $disk 2
}

# switch TYPE: with no driver bound; the file reads back what was asked for,
# "auto" as what the policy gives.
switch()
{
	unbind "$bdf" && echo "$1" >"/sys/bus/pci/devices/$bdf/iommu_group/type" || return 1
	case $1 in
	auto) expect "type" "$auto" "$(type_of "$bdf")" ;;
	*) expect "type" "$1" "$(type_of "$bdf")" ;;
	esac && bind nvme "$bdf" && wait_for 30 test -b /dev/$disk && fio_verify $disk 2
}

case $VARIANT in
full) ROUNDS=10 ;;
*) ROUNDS=3 ;;
esac

many_times()
{
	auto=$(type_of "$bdf")
	round=0
	while [ $round -lt $ROUNDS ]; do
		for type in identity DMA DMA-FQ auto; do
			if ! switch $type >/tmp/switch; then
				cat /tmp/switch
				ktap_print_msg "round $round, $type"
				return 1
			fi
		done
		round=$((round + 1))
	done
}

# Only strict to lazy works under a driver, and traffic goes on meanwhile.
live_switch()
{
	unbind "$bdf" && echo DMA >"/sys/bus/pci/devices/$bdf/iommu_group/type" &&
		bind nvme "$bdf" && wait_for 30 test -b /dev/$disk || return 1
	fio_verify $disk 48 &
	sleep 0.3
	echo DMA-FQ >"/sys/bus/pci/devices/$bdf/iommu_group/type" &&
		expect type DMA-FQ "$(type_of "$bdf")" || return 1
	if echo identity 2>/dev/null >"/sys/bus/pci/devices/$bdf/iommu_group/type"; then
		ktap_print_msg "identity was accepted under a driver"
		return 1
	fi
	wait $!
}

no_faults()
{
	expect faults "" "$(faults)"
}

mark_log
ktap_test_result "load and use" load_and_use
ktap_test_result "unit in /sys/class/iommu lists the disk" unit_in_sysfs
ktap_test_result "the disk links to its unit" device_links_to_unit
ktap_test_result "$ROUNDS times: identity, DMA, DMA-FQ, auto" many_times
ktap_test_result "DMA to DMA-FQ under traffic" live_switch
ktap_test_result "no faults" no_faults
ktap_finished
