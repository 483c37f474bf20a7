#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Two devices behind a bridge that replaces requester ids, one of them in use when
# the driver is loaded. Both have one entry, so the other cannot be translated; all
# others are, and the one in use goes on.
#
# variant ours: --nvme 1 --disks 2 --device pcie-root-port,id=p0,chassis=1,slot=1 --device pcie-pci-bridge,id=b0,bus=p0 --device qemu-xhci,id=xhci,bus=b0,addr=1 --device usb-storage,bus=xhci.0,drive=disk1 --device iommu-testdev,bus=b0,addr=2
# variant amd on stock: --iommu amd --nvme 1 --disks 2 --device pcie-root-port,id=p0,chassis=1,slot=1 --device pcie-pci-bridge,id=b0,bus=p0 --device qemu-xhci,id=xhci,bus=b0,addr=1 --device usb-storage,bus=xhci.0,drive=disk1 --device iommu-testdev,bus=b0,addr=2
# extra: ours/debug amd
# skip virtio: the core does not ask for devices that were bound before, so that none is left alone by the driver
# timeout: 90

. /selftests/lib.sh

ktap_print_header
ktap_set_plan 5

in_use()
{
	modprobe xhci-pci && modprobe usb-storage && modprobe sd_mod &&
		wait_for 30 test -b /dev/sda || return 1
	usb=$(pci_devices 1b36:000d)
	neighbour=$(pci_devices 1b36:0005)
	fio_verify sda 1
}

load()
{
	mark_log
	load_iommu
}

left_alone()
{
	expect "group of the one in use" "" "$(group_of "$usb")" &&
		expect "group of its neighbour" "" "$(group_of "$neighbour")" &&
		log_since_mark | grep -q "$neighbour: left alone: shares a requester id" &&
		fio_verify sda 1
}

others_are_translated()
{
	modprobe nvme && wait_for 30 test -b /dev/nvme0n1 &&
		[ -n "$(group_of "$(pci_of nvme0n1)")" ] && fio_verify nvme0n1 8
}

# With both gone, nobody keeps the entry any more.
both_adopted()
{
	echo 1 >"/sys/bus/pci/devices/$usb/remove" &&
		echo 1 >"/sys/bus/pci/devices/$neighbour/remove" &&
		echo 1 >/sys/bus/pci/rescan && wait_for 30 test -b /dev/sdb -o -b /dev/sda &&
		[ -n "$(group_of "$usb")" ] &&
		expect "the neighbour's group" "$(group_of "$usb")" "$(group_of "$neighbour")" &&
		expect faults "" "$(faults)"
}

ktap_test_result "a disk behind the bridge is in use" in_use
ktap_test_result "load" load
ktap_test_result "it goes on, and its neighbour is left alone" left_alone
ktap_test_result "all others are translated" others_are_translated
ktap_test_result "both are adopted after remove and rescan" both_adopted
ktap_finished
