#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# A disk that is plugged after the driver was loaded is probed and works, twice.
# Requests come by ACPI here; hotplug-native.sh is this with native hotplug.
#
# variant acpi: --nvme 1 --disks 2 --device pcie-root-port,id=rp0,chassis=1,slot=1
# variant amd on stock: --iommu amd --nvme 1 --disks 2 --device pcie-root-port,id=rp0,chassis=1,slot=1
# variant in-tree-acpi: --in-tree --nvme 1 --disks 2 --device pcie-root-port,id=rp0,chassis=1,slot=1
# variant virtio on stock: --iommu virtio --nvme 1 --disks 2 --device pcie-root-port,id=rp0,chassis=1,slot=1
# extra: in-tree-acpi acpi/debug amd
# timeout: 90

. /selftests/lib.sh

ktap_print_header
ktap_set_plan 6

load()
{
	load_iommu && modprobe nvme && wait_for 30 test -b /dev/nvme0n1
}

# The disk with the serial number that plug gave.
hot_disk()
{
	grep -ls hot0 /sys/block/nvme*/device/serial | cut -d/ -f4 | grep .
}

plug()
{
	vm_host device_add nvme,id=hot0,bus=rp0,drive=disk1,serial=hot0 &&
		wait_for 30 hot_disk >/dev/null
}

in_a_group()
{
	hot=$(pci_of "$(hot_disk)")
	[ -n "$(group_of "$hot")" ] && [ "$(group_of "$hot")" != "$(group_of "$(pci_of nvme0n1)")" ] &&
		expect type "$(type_of "$(pci_of nvme0n1)")" "$(type_of "$hot")"
}

use()
{
	fio_verify "$(hot_disk)" 8
}

gone()
{
	[ ! -e "/sys/bus/pci/devices/$hot" ] && [ ! -e "/sys/kernel/iommu_groups/$group" ]
}

# Native hotplug ignores a request for some seconds after the last one.
unplug()
{
	group=$(group_of "$hot")
	sleep 6
	vm_host device_del hot0 && vm_host wait_deleted hot0 && wait_for 30 gone
}

again()
{
	sleep 6
	plug && in_a_group && use && unplug
}

ktap_test_result "load" load
ktap_test_result "plug a disk" plug
ktap_test_result "it has a group of its own" in_a_group
ktap_test_result "it works" use
ktap_test_result "unplug: the group goes too" unplug
ktap_test_result "again" again
ktap_finished
