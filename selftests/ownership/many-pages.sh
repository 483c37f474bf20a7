#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Rows E8 and E10: VFIO maps 10240 pages, each by itself. With virtio-iommu the domain makes one run of those that
# follow each other once there are 8192 (FEW of rust/mappings/index.rs), and parts it where pages go.
#
# variant virtio on stock: --iommu virtio --policy strict --nvme 0 --append hugepages=20 --device pcie-root-port,id=p0,chassis=1,slot=1 --device iommu-testdev,bus=p0
# variant in-tree: --in-tree --iommu virtio --policy strict --nvme 0 --append hugepages=20 --device pcie-root-port,id=p0,chassis=1,slot=1 --device iommu-testdev,bus=p0
# variant vtd on stock: --policy strict --nvme 0 --append hugepages=20 --device pcie-root-port,id=p0,chassis=1,slot=1 --device iommu-testdev,bus=p0
# variant amd on stock: --iommu amd --policy strict --nvme 0 --append hugepages=20 --device pcie-root-port,id=p0,chassis=1,slot=1 --device iommu-testdev,bus=p0
# extra: in-tree vtd amd

. /selftests/lib.sh

ktap_print_header
ktap_set_plan 3

load()
{
	load_iommu && modprobe vfio-pci ids=1b36:0005 disable_idle_d3=1 &&
		modprobe vfio_iommu_type1 allow_unsafe_interrupts=1 || return 1
	device=$(pci_devices 1b36:0005)
	races vmstat >/tmp/before
}

nothing_left()
{
	races vmstat --compare /tmp/before
}

ktap_test_result "load" load
# What the kernel says of each fault takes longer than the fault.
dmesg -n 5
ktap_test_result "E8 10240 pages lead where they are mapped to" races pages "$device"
ktap_test_result "nothing is left over (H14)" nothing_left
ktap_finished
