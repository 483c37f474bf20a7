#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Loading the driver under disks that are in use: their I/O goes on, they are
# named, and adopted once they were removed and found again.
#
# variant lazy: --nvme 2
# variant strict on stock: --policy strict --nvme 2
# variant identity-table: --nvme 2
# variant amd on stock: --iommu amd --nvme 2
# variant virtio on stock: --iommu virtio --nvme 2
# extra: identity-table/debug strict lazy/debug
# timeout: 90

. /selftests/lib.sh

ktap_print_header
ktap_set_plan 9

# start_fio DISK: checksummed traffic until stop_fio, which tells how it went.
start_fio()
{
	touch /tmp/go
	(
		while [ -e /tmp/go ]; do
			fio_verify "$1" 8 || exit 1
		done
	) >/tmp/rounds 2>&1 &
	fio_shell=$!
}

stop_fio()
{
	rm /tmp/go
	wait $fio_shell || {
		cat /tmp/rounds
		return 1
	}
	ktap_print_msg "$(grep -c write: /tmp/rounds) rounds"
}

boot_state()
{
	modprobe nvme && wait_for 30 test -b /dev/nvme0n1 && wait_for 30 test -b /dev/nvme1n1 &&
		first=$(pci_of nvme0n1) && second=$(pci_of nvme1n1) &&
		expect "group before" "" "$(group_of "$first")" && start_fio nvme0n1 && sleep 2
}

load()
{
	mark_log
	case $VARIANT in
	identity-table) load_iommu identity_table=1 ;;
	*) load_iommu ;;
	esac
}

io_goes_on()
{
	sleep 3
	stop_fio
}

declined_are_named_once()
{
	named=$(log_since_mark | grep "left alone, because a driver is bound")
	expect messages 1 "$(echo "$named" | grep -c .)" || return 1
	for bdf in $first $second; do
		expect "group of $bdf" "" "$(group_of "$bdf")" || return 1
		case $named in
		*"$bdf"*) ;;
		*) expect message "with $bdf" "$named" || return 1 ;;
		esac
	done
}

# Bridges had a driver too, but nobody's DMA depends on it.
ports_are_adopted()
{
	for port in /sys/bus/pci/drivers/pcieport/0*; do
		[ -e "$port/iommu_group" ] || expect "group of ${port##*/}" some none || return 1
	done
	[ -e "$port" ]
}

# remove_and_rescan BDF: the disk comes back, perhaps under another name: sets $disk
disk_of()
{
	ls "/sys/bus/pci/devices/$1/nvme/"*/ 2>/dev/null | grep -m 1 -E '^nvme[0-9]+(c[0-9]+)?n1$'
}

adopted_after_rescan()
{
	start_fio nvme1n1
	echo 1 >"/sys/bus/pci/devices/$first/remove" &&
		echo 1 >/sys/bus/pci/rescan &&
		wait_for 30 disk_of "$first" >/dev/null || return 1
	disk=$(disk_of "$first")
	wait_for 10 test -b "/dev/$disk" && [ -n "$(group_of "$first")" ] && fio_verify "$disk" 16
}

translated()
{
	case $VARIANT in
	strict) expect type DMA "$(type_of "$first")" ;;
	*) expect type DMA-FQ "$(type_of "$first")" ;;
	esac && expect "group of the other" "" "$(group_of "$second")"
}


no_faults()
{
	expect faults "" "$(faults)"
}

ktap_test_result "disks in use, no driver" boot_state
ktap_test_result "load" load
ktap_test_result "I/O goes on without an error" io_goes_on
declined="the declined disks are named in one message"
case $UNIT_NAME in
viommu) ktap_test_skip "$declined: the core does not ask for what it has given up waiting for" ;;
*) ktap_test_result "$declined" declined_are_named_once ;;
esac
ktap_test_result "ports are adopted" ports_are_adopted
ktap_test_result "remove and rescan adopts, while the other disk is in use" adopted_after_rescan
ktap_test_result "it is translated, the other is not" translated
ktap_test_result "the other disk's I/O was not disturbed" stop_fio
ktap_test_result "no faults" no_faults
ktap_finished
