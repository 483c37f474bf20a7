#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Row B20: the devices of a group with iommufd. One of them leaves without notice to the other, and others are
# refused: another owner, another address space, domains of kinds that our drivers do not offer.
#
# options: --policy strict --nvme 0 --device pcie-root-port,id=e0,chassis=1,slot=1 --device iommu-testdev,bus=e0,addr=0.0,multifunction=on --device iommu-testdev,bus=e0,addr=0.1
# variant vtd:
# variant amd: --iommu amd
# variant virtio: --iommu virtio
# extra: amd virtio
# The distribution's kernel is built without iommufd.
# kernels: debug
# timeout: 60

. /selftests/lib.sh

load()
{
	load_iommu && modprobe iommufd allow_unsafe_interrupts=1 && modprobe vfio-pci disable_idle_d3=1 || return 1
	# shellcheck disable=SC2046 # One word each.
	set -- $(pci_devices 1b36:0005)
	a=$1 b=$2
	expect group "$(group_of "$a")" "$(group_of "$b")" && take vfio-pci "$a" && take vfio-pci "$b" &&
		races vmstat >/tmp/before
}

group()
{
	races iommufd-group "$a" "$b"
}

# The device tried what was not mapped on purpose.
only_wanted_faults()
{
	for device in $a $b; do
		reported "$device" write 0x100000
		reported "$device" write 0x101000
	done >/tmp/wanted
	expect "other faults" "" "$(faults | grep -v -x -F -f /tmp/wanted)"
}

nothing_left()
{
	races vmstat --compare /tmp/before
}

ktap_print_header
ktap_set_plan 4
ktap_test_result "load" load
mark_log
ktap_test_result "B20 one owner and one address space for the devices of a group" group
ktap_test_result "B20 no other faults" only_wanted_faults
ktap_test_result "B20 nothing is left" nothing_left
ktap_finished
