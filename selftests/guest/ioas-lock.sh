#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Row C7: the limits that iommu-info computes for iommufd are enough, and a page less is not.
#
# variant ours: --policy strict --nvme 2
# variant amd: --iommu amd --policy strict --nvme 2
# variant virtio: --iommu virtio --policy strict --nvme 2
# extra: amd virtio
# The distribution's kernel is built without iommufd.
# kernels: debug
# timeout: 60

. /selftests/lib.sh

load()
{
	load_iommu && modprobe iommufd allow_unsafe_interrupts=1 && modprobe vfio-pci disable_idle_d3=1 || return 1
	# shellcheck disable=SC2046 # One word each.
	set -- $(pci_devices 1b36:0010)
	a=$1 b=$2
	take vfio-pci "$a" && take vfio-pci "$b"
}

assignable()
{
	iommu-info explain "$a" >/tmp/explain
	expect "$a" "$a in group $(group_of "$a"): assignable" "$(head -n 1 /tmp/explain)"
}

# limits LAYOUT WORDS: what is said of it, what the kernel does with that and with a page less
limits()
{
	limit=$(sed -n "s/^  iommufd, $2: \([0-9]*\) bytes .*/\1/p" /tmp/memlock)
	ktap_print_msg "$2: $limit bytes"
	expect "$2" mapped "$(races ioas-lock --layout "$1" --bytes $size --limit "$limit" "$a" "$b")" &&
		expect "one page less" ENOMEM "$(races ioas-lock --layout "$1" --bytes $size --limit $((limit - 4096)) "$a" "$b")"
}

shared()
{
	limits shared "one IOAS"
}

copied()
{
	limits copied "an IOAS each, copied"
}

each()
{
	limits each "an IOAS each, mapped"
}

computed()
{
	size=8392704
	iommu-info memlock "$(group_of "$a")" "$(group_of "$b")" --memory $size >/tmp/memlock &&
		! grep -q "no /dev/iommu" /tmp/memlock
}

ktap_print_header
ktap_set_plan 6
ktap_test_result "load" load
ktap_test_result "B23 assignable with iommufd alone" assignable
ktap_test_result "C7 computed" computed
ktap_test_result "C7 one IOAS" shared
ktap_test_result "C7 an IOAS each, copied" copied
ktap_test_result "C7 an IOAS each, mapped" each
ktap_finished
