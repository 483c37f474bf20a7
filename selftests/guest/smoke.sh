#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Proves the lab itself: a guest boots with the kernel's own drivers only, NVMe
# carries verified I/O, and a disk can be plugged and unplugged.
#
# variant none: --iommu none --disks 3 --device pcie-root-port,id=rp0,chassis=1,slot=1
# variant in-tree: --in-tree --disks 3 --device pcie-root-port,id=rp0,chassis=1,slot=1
# variant in-tree-amd: --iommu amd --in-tree --disks 3 --device pcie-root-port,id=rp0,chassis=1,slot=1
# variant in-tree-virtio: --iommu virtio --in-tree --disks 3 --device pcie-root-port,id=rp0,chassis=1,slot=1
# extra: in-tree in-tree-amd in-tree-virtio none/debug
# skip vtd amd virtio: it tests the lab, with the kernel's own drivers
# timeout: 60

. /selftests/lib.sh

ktap_print_header
ktap_set_plan 6

# Both disks answer once nvme is loaded.
disks_appear()
{
	modprobe nvme && wait_for 20 test -b /dev/nvme0n1 && wait_for 20 test -b /dev/nvme1n1
}

# An IOMMU in use is visible as a group of the disk.
group_as_expected()
{
	if [ "$VARIANT" = none ]; then
		[ -z "$(group_of "$(pci_of nvme0n1)")" ]
	else
		[ -n "$(group_of "$(pci_of nvme0n1)")" ]
	fi
}

plug()
{
	vm_host device_add nvme,id=hot0,bus=rp0,drive=disk2,serial=hot0 &&
		wait_for 20 test -b /dev/nvme2n1
}

unplug()
{
	vm_host device_del hot0 && vm_host wait_deleted hot0 &&
		wait_for 20 test ! -e /dev/nvme2n1
}

plug_use_unplug()
{
	plug && fio_verify nvme2n1 2 && unplug
}

bad_request_is_refused()
{
	! vm_host device_add no-such-device
}

ktap_test_result "disks appear" disks_appear
ktap_test_result "group" group_as_expected
ktap_test_result "random read" fio_read nvme0n1 2
ktap_test_result "write and verify" fio_verify nvme1n1 16
ktap_test_result "plug and unplug a disk" plug_use_unplug
ktap_test_result "a bad request to the host is refused" bad_request_is_refused
ktap_finished
