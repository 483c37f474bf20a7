#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# tools/iommu-info where the kernel's own driver has a virtio-iommu, of which sysfs has little: groups, owners and what
# is in the way are shown all the same, and what nobody can know is said.
#
# variant virtio: --in-tree --iommu virtio --policy strict --nvme 1 --testdev=2
# skip vtd amd virtio: info is for our drivers, and for the kernel's own with VT-d and AMD-Vi
# kernels: stock
# timeout: 90

. /selftests/lib.sh

load()
{
	modprobe nvme && wait_for 30 test -b /dev/nvme0n1 && disk=$(pci_of nvme0n1) &&
		insmod /modules/rust_iommu.ko && insmod /modules/rust_testdev.ko || return 1
	# shellcheck disable=SC2046 # One word each.
	set -- $(pci_devices 1b36:0005)
	device=$1
	unit=$(ls /sys/class/iommu)
	[ $# = 2 ] && [ -n "$unit" ]
}

lists_what_is_there()
{
	iommu-info list >/tmp/list || return 1
	expect groups "$(ls /sys/kernel/iommu_groups | wc -l)" "$(grep -c '^group ' /tmp/list)" &&
		grep -q "^unit $unit: virtio_iommu, unknown width, " /tmp/list &&
		grep -q "^group $(group_of "$disk"): type DMA, owner kernel (nvme)$" /tmp/list &&
		grep -q "^  $disk: driver nvme, policy strict (from the group's type), $unit, DMA mask 64 bits$" /tmp/list &&
		return 0
	sed 's/^/# /' /tmp/list
	return 1
}

says_what_is_missing()
{
	sed -n '/^not known/,$p' /tmp/list | grep "$unit: not exported by virtio_iommu" |
		grep policy | grep claims | grep faults | grep mappings | grep -q width &&
		iommu-info watch 2>/tmp/watch
	expect status 1 $? && grep -q "nothing to watch: $unit: not exported by virtio_iommu" /tmp/watch
}

# Its commands make a device assignable, which a process can then open.
from_a_host_driver_to_vfio()
{
	modprobe vfio_iommu_type1 && modprobe vfio-pci disable_idle_d3=1 || return 1
	iommu-info explain "$device" >/tmp/explained
	sed 's/^/# /' /tmp/explained
	grep -qx "  - it is bound to rust_testdev, not to vfio-pci" /tmp/explained || return 1
	sed -n 's/^  \$ //p' /tmp/explained >/tmp/commands && sh -e /tmp/commands || return 1
	iommu-info explain "$device" | grep -qx "$device in group $(group_of "$device"): assignable" &&
		expect "group of $device" mapped "$(races memlock "$(group_of "$device")" 2>&1)"
}

ktap_print_header
ktap_set_plan 4
ktap_test_result "load" load
ktap_test_result "C11 list has every group and device" lists_what_is_there
ktap_test_result "C11 what is missing is said" says_what_is_missing
ktap_test_result "B23 from a host driver to VFIO" from_a_host_driver_to_vfio
ktap_finished
