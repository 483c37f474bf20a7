#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Row A1, the way a machine's user sees it: a disk is pulled while VFIO opens, attaches
# and closes its group again and again. Plugged again, the disk works. And row A1 as a VMM sees it:
# a device is pulled that is open and does DMA.
#
# variant acpi: --policy strict --nvme 0 --disks 1 --device pcie-root-port,id=rp0,chassis=1,slot=1
# variant window on stock: --policy strict --nvme 0 --disks 1 --device pcie-root-port,id=rp0,chassis=1,slot=1
# variant amd on stock: --iommu amd --policy strict --nvme 0 --disks 1 --device pcie-root-port,id=rp0,chassis=1,slot=1
# variant virtio on stock: --iommu virtio --policy strict --nvme 0 --disks 1 --device pcie-root-port,id=rp0,chassis=1,slot=1
# extra: amd acpi/debug window
# timeout: 120

. /selftests/lib.sh

case $KERNEL in
debug) ROUNDS=2 ;;
*) ROUNDS=3 ;;
esac

load()
{
	load_iommu && modprobe nvme && modprobe vfio-pci &&
		modprobe vfio_iommu_type1 allow_unsafe_interrupts=1
}

# The disk with the serial number that plug gave.
hot_disk()
{
	grep -ls hot0 /sys/block/nvme*/device/serial | cut -d/ -f4 | grep .
}

plug()
{
	vm_host device_add nvme,id=hot0,bus=rp0,drive=disk0,serial=hot0 &&
		wait_for 30 hot_disk >/dev/null && disk=$(hot_disk) && wait_for 10 test -b "/dev/$disk" &&
		hot=$(pci_of "$disk") && group=$(group_of "$hot") && [ -n "$group" ] && expect type DMA "$(type_of "$hot")"
}

to_vfio()
{
	unbind "$hot" && races device "$hot" override vfio-pci && bind vfio-pci "$hot"
}

gone()
{
	[ ! -e "/sys/bus/pci/devices/$hot" ] && [ ! -e "/sys/kernel/iommu_groups/$group" ]
}

# The first device_del comes when it likes; attaches go on until then and beyond.
pull()
{
	races attach --open 4 "$hot" >/tmp/attach 2>&1 &
	attach=$!
	sleep 2
	kill -0 $attach && vm_host device_del hot0 && vm_host wait_deleted hot0 30 && wait_for 30 gone && wait $attach
	status=$?
	cat /tmp/attach
	return $status
}

round()
{
	plug && fio_verify "$disk" 8 && to_vfio && pull
}

# Between two requests hotplug has a rest. The first plug also allocates tables of the
# port's bus, which stay: what must be the same in the end is counted after it.
rounds()
{
	for round in $(seq $ROUNDS); do
		round || {
			ktap_print_msg "in round $round"
			return 1
		}
		[ "$round" != 1 ] || races vmstat >/tmp/before
		sleep 6
	done
}

testdev()
{
	pci_devices 1b36:0005 | grep .
}

plug_testdev()
{
	vm_host device_add iommu-testdev,id=hot0,bus=rp0 && wait_for 30 testdev >/dev/null &&
		hot=$(testdev) && group=$(group_of "$hot") && [ -n "$group" ] &&
		races device "$hot" override vfio-pci && wait_for 10 bind vfio-pci "$hot"
}

# reaches WORD: the device that is held writes to memory.
reaches()
{
	echo "$1" >&9 && wait_for 10 grep -q -x "$1: reached" /tmp/held
}

waited_for()
{
	log_since_mark | grep -q "vfio-pci $hot: .*blocked until released by user"
}

# It stays in its domain, and works, until its user lets go of it; then it goes.
pulled_while_held()
{
	plug_testdev && mkfifo /tmp/lines || return 1
	races hold "$hot" </tmp/lines >/tmp/held 2>&1 &
	holder=$!
	exec 9>/tmp/lines
	wait_for 10 grep -q -x held /tmp/held && reaches first && vm_host device_del hot0 &&
		wait_for 30 waited_for && reaches second && [ -e "/sys/kernel/iommu_groups/$group" ]
	status=$?
	exec 9>&-
	wait $holder && [ $status = 0 ] && vm_host wait_deleted hot0 30 && wait_for 30 gone && sleep 6 && return
	sed 's/^/# /' /tmp/held
	return 1
}

works_again()
{
	plug && fio_verify "$disk" 8 && expect driver nvme "$(basename "$(readlink "/sys/bus/pci/devices/$hot/driver")")"
}

nothing_left()
{
	vm_host device_del hot0 && vm_host wait_deleted hot0 30 && wait_for 30 gone &&
		races vmstat --compare /tmp/before && leak_scan
}

no_faults()
{
	expect faults "" "$(faults)"
}

ktap_print_header
ktap_set_plan 6
ktap_test_result "A1 load" load
mark_log
ktap_test_result "A1 $ROUNDS times: a disk is pulled while VFIO attaches it" rounds
ktap_test_result "A1 a device is pulled while it is open and does DMA" pulled_while_held
ktap_test_result "A1 plugged again it works" works_again
ktap_test_result "A1 nothing is left over (H14)" nothing_left
ktap_test_result "A1 no DMA faults" no_faults
ktap_finished
