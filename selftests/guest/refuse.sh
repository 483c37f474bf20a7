#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Where there is nothing to drive, or somebody else drives it, loading fails with
# an error number and a reason, and leaves everything as it was.
#
# variant no-unit: --iommu none --nvme 1
# variant in-tree-active: --in-tree --nvme 1
# variant intremap: --intremap --nvme 1
# variant parameters: --nvme 1
# variant amd-in-tree-active on stock: --iommu amd --in-tree --nvme 1
# variant amd-parameters on stock: --iommu amd --nvme 1
# variant dmar-36: --nvme 1 --copy selftests/guest/dmar/36.aml:kernel/firmware/acpi/dmar.aml
# variant dmar-47 on stock: --nvme 1 --copy selftests/guest/dmar/47.aml:kernel/firmware/acpi/dmar.aml
# variant dmar-48 on stock: --nvme 1 --copy selftests/guest/dmar/48.aml:kernel/firmware/acpi/dmar.aml
# variant dmar-51 on stock: --nvme 1 --copy selftests/guest/dmar/51.aml:kernel/firmware/acpi/dmar.aml
# variant dmar-63 on stock: --nvme 1 --copy selftests/guest/dmar/63.aml:kernel/firmware/acpi/dmar.aml
# variant dmar-71 on stock: --nvme 1 --copy selftests/guest/dmar/71.aml:kernel/firmware/acpi/dmar.aml
# variant dmar-88 on stock: --nvme 1 --copy selftests/guest/dmar/88.aml:kernel/firmware/acpi/dmar.aml
# variant amd-ivrs-36 on stock: --iommu amd --nvme 1 --copy selftests/guest/ivrs/36.aml:kernel/firmware/acpi/ivrs.aml
# variant amd-ivrs-60 on stock: --iommu amd --nvme 1 --copy selftests/guest/ivrs/60.aml:kernel/firmware/acpi/ivrs.aml
# variant amd-ivrs-whole on stock: --iommu amd --nvme 1 --copy selftests/guest/ivrs/whole.aml:kernel/firmware/acpi/ivrs.aml
# variant virtio-viot-36 on stock: --iommu none --nvme 1 --qemu-arg -acpitable --qemu-arg file=selftests/guest/viot/36.aml
# variant virtio-viot-47 on stock: --iommu none --nvme 1 --qemu-arg -acpitable --qemu-arg file=selftests/guest/viot/47.aml
# variant virtio-viot-whole on stock: --iommu none --nvme 1 --qemu-arg -acpitable --qemu-arg file=selftests/guest/viot/whole.aml
# variant virtio-in-tree-active on stock: --iommu virtio --in-tree --nvme 1
# variant virtio-parameters on stock: --iommu virtio --nvme 1
# variant virtio-granule on stock: --iommu virtio --iommu-opt granule=64k --nvme 1
# extra: dmar-47 dmar-48 dmar-51 dmar-71 dmar-88 amd-ivrs-36 amd-ivrs-whole virtio-viot-36 virtio-viot-whole no-unit/debug intremap/debug parameters/debug dmar-36/debug
# timeout: 60

. /selftests/lib.sh

ktap_print_header

# Command, status and table registers of the unit, where there is one.
registers()
{
	case $VARIANT in
	no-unit | virtio-viot-*) return ;;
	amd-*)
		for offset in 0000 0008 0010 0018 0020 2000 2008 2010 2018 2020; do
			devmem 0xfed8$offset 64
		done
		# The IOMMU's own function: command register, MSI.
		od -A n -t x1 "/sys/bus/pci/devices/$(pci_devices 1022:1419)/config"
		;;
	*)
		for offset in 18 1c 20 24 34 38 9c; do
			devmem 0xfed900$offset 32
		done
		;;
	esac 2>&1
}

state()
{
	registers
	cat /proc/iomem
	ls /sys/class/iommu /sys/kernel/iommu_groups /sys/kernel/debug
	cat /proc/interrupts | cut -d: -f1
}

# refused ERROR [PARAMETER=VALUE...]: insmod fails with that, one line says why,
# and nothing has changed. busybox tries twice, by file and by content, so that
# the line may be there twice.
refused()
{
	case $1 in
	ENODEV) error="No such device" ;;
	EBUSY) error="Device or resource busy" ;;
	EINVAL) error="Invalid argument" ;;
	esac
	shift
	state >/tmp/before
	mark_log
	if insmod /modules/$DRIVER.ko "$@" 2>/tmp/insmod; then
		ktap_print_msg "it was loaded"
		return 1
	fi
	log_since_mark | grep -v "^$DRIVER: loading out-of-tree module" | sort -u >/tmp/lines
	sed 's/^/# log: /' /tmp/lines
	expect "error" "$error" "$(sed 's/.*: //' /tmp/insmod)" &&
		expect "lines from $DRIVER" 1 "$(grep -c "^$DRIVER: " /tmp/lines)" &&
		expect "other lines" 0 "$(grep -vc "^$DRIVER: " /tmp/lines)" &&
		state >/tmp/after && diff /tmp/before /tmp/after && [ ! -e /sys/module/$DRIVER ]
}

refused_again()
{
	for round in 1 2 3; do
		refused "$@" || return 1
	done
}

# What was there before works as before.
disk_works()
{
	modprobe nvme && wait_for 30 test -b /dev/nvme0n1 && fio_verify nvme0n1 2
}

framework_goes()
{
	rmmod rust_iommu && [ ! -e /sys/module/rust_iommu ] && leak_scan
}

why()
{
	case $VARIANT in
	no-unit | virtio-granule) echo ENODEV ;;
	*in-tree-active | intremap) echo EBUSY ;;
	# Whole, and its unit is not there: which shows that it is ours that is read, and the cut that matters.
	virtio-viot-whole) echo ENODEV ;;
	dmar-* | *-ivrs-* | *-viot-*) echo EINVAL ;;
	esac
}

parameters()
{
	switch=${good#* }
	switch=${switch%=*}
	case $DRIVER in
	rust_virtio_iommu) numbers= ;;
	*) numbers="address_bits=38 address_bits=64 address_bits=-1 address_bits=x address_bits=" ;;
	esac
	for bad in $numbers $switch=2 $switch=y $switch=-1; do
		insmod /modules/$DRIVER.ko $bad 2>/tmp/insmod && ktap_print_msg "$bad was accepted" && return 1
		grep -qE "Invalid argument|out of range" /tmp/insmod || {
			sed "s/^/# $bad: /" /tmp/insmod
			return 1
		}
	done
}

in_a_group()
{
	[ -n "$(group_of "$(pci_of nvme0n1)")" ]
}

# Values that are accepted, the last one of a switch; and one that is not.
case $DRIVER in
rust_amdvi) good="address_bits=39 park_unbound=0" bad=address_bits=40 ;;
rust_virtio_iommu) good="identity_map=1 park_unbound=0" bad=identity_map=2 ;;
*) good="address_bits=39 identity_table=1" bad=address_bits=40 ;;
esac

insmod /modules/rust_iommu.ko
case $VARIANT in
*parameters)
	ktap_set_plan 5
	ktap_test_result "bad values are refused" parameters
	ktap_test_result "with one line, and nothing changed" refused EINVAL $bad
	ktap_test_result "good values are accepted" \
		insmod /modules/$DRIVER.ko $good
	ktap_test_result "the disk works" disk_works
	ktap_test_result "it has a group" in_a_group
	;;
dmar-88 | amd-ivrs-whole)
	# A whole table, which shows that it is ours that is read, and the cut that matters.
	ktap_set_plan 3
	ktap_test_result "accepted" insmod /modules/$DRIVER.ko
	ktap_test_result "the disk works" disk_works
	ktap_test_result "it has a group" in_a_group
	;;
*)
	ktap_set_plan 4
	ktap_test_result "refused with one line, nothing changed" refused $(why)
	ktap_test_result "and again" refused_again $(why)
	ktap_test_result "the disk works" disk_works
	ktap_test_result "the framework goes" framework_goes
	;;
esac
ktap_finished
