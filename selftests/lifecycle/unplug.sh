#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Row A1: a device is released while VFIO attaches its group, in both orders by
# force, and then without. DMA of the released device must fail, whatever came first.
#
# options: --append log_buf_len=16M
# variant alone: --policy strict --nvme 0 --device pcie-root-port,id=p0,chassis=1,slot=1 --device iommu-testdev,bus=p0
# variant shared: --policy strict --nvme 0 --device ioh3420,id=b0,chassis=1,slot=1,addr=10.0,multifunction=on --device ioh3420,id=b1,chassis=2,slot=2,addr=10.1 --device iommu-testdev,bus=b0 --device iommu-testdev,bus=b1
# variant storm: --policy strict --nvme 0 --device ioh3420,id=b0,chassis=1,slot=1,addr=10.0,multifunction=on --device ioh3420,id=b1,chassis=2,slot=2,addr=10.1 --device iommu-testdev,bus=b0 --device iommu-testdev,bus=b1
# variant amd on stock: --iommu amd --policy strict --nvme 0 --device ioh3420,id=b0,chassis=1,slot=1,addr=10.0,multifunction=on --device ioh3420,id=b1,chassis=2,slot=2,addr=10.1 --device iommu-testdev,bus=b0 --device iommu-testdev,bus=b1
# variant virtio on stock: --iommu virtio --policy strict --nvme 0 --device ioh3420,id=b0,chassis=1,slot=1,addr=10.0,multifunction=on --device ioh3420,id=b1,chassis=2,slot=2,addr=10.1 --device iommu-testdev,bus=b0 --device iommu-testdev,bus=b1
# extra: alone amd
# long: storm
# modules: inject
# timeout: 400

. /selftests/lib.sh

# A round takes ten times as long on the debug kernel.
case $VARIANT/$KERNEL in
storm/*) rounds=1000 storm=600 ;;
*/debug) rounds=16 storm=10 ;;
*) rounds=100 storm=10 ;;
esac
ROUNDS=${ROUNDS:-$rounds}
STORM=${STORM:-$storm}

ktap_print_header
ktap_set_plan 6

load()
{
	load_iommu && modprobe vfio-pci ids=1b36:0005 disable_idle_d3=1 &&
		modprobe vfio_iommu_type1 allow_unsafe_interrupts=1 || return 1
	devices=$(pci_devices 1b36:0005)
	for bdf in $devices; do
		expect "group of $bdf" "$(group_of "${devices%%
*}")" "$(group_of "$bdf")" || return 1
	done
	races vmstat >/tmp/before
}

unplug()
{
	# shellcheck disable=SC2086 # One word each.
	races unplug "$@" $devices
}

nothing_left()
{
	races vmstat --compare /tmp/before
}

no_faults_but_ours()
{
	others=$(faults | grep -v -E " 0x10[01]000$")
	expect "other faults" "" "$others"
}

ktap_test_result "A1 load" load
# What the kernel says of each round takes longer than the round.
dmesg -n 5
mark_log
ktap_test_result "A1 $ROUNDS times: release comes while the attach is under way" \
	unplug --order attach --rounds "$ROUNDS"
ktap_test_result "A1 $ROUNDS times: attach comes while the release is under way" \
	unplug --order release --rounds "$ROUNDS"
ktap_test_result "A1 attach and release for $STORM s as it comes" \
	unplug --order free --seconds "$STORM"
ktap_test_result "A1 nothing is left over (H14)" nothing_left
ktap_test_result "A1 no other faults" no_faults_but_ours
ktap_finished
