#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Devices that fault from all sides at once: the log stays short, and the unit
# still reports afterwards. A unit whose overflow bit is left standing, or whose
# last record is not cleared, never interrupts again.
#
# variant ours: --policy strict --cpus 4 --nvme 0 --testdev=3 --device edu,dma_mask=0xffffffffffffffff
# variant amd: --iommu amd --policy strict --cpus 4 --nvme 0 --testdev=3 --device edu,dma_mask=0xffffffffffffffff
# variant virtio: --iommu virtio --policy strict --cpus 4 --nvme 0 --testdev=3 --device edu,dma_mask=0xffffffffffffffff
# extra: amd
# kernels: stock
# timeout: 120

. /selftests/lib.sh

ktap_print_header
ktap_set_plan 4

recorded()
{
	cat /sys/class/iommu/${UNIT_NAME}0/rust_iommu/faults
}

more_than()
{
	[ "$(recorded)" -gt "$1" ]
}

prepare()
{
	load_iommu && insmod /modules/rust_testdev.ko || return 1
	devices="$(pci_devices 1b36:0005) $(pci_devices 1234:11e8)"
	expect devices 4 "$(echo $devices | wc -w)"
}

# fault_often DEVICE: writes to where nothing is mapped, for a while.
fault_often()
{
	end=$(($(cut -d. -f1 /proc/uptime) + 25))
	while [ "$(cut -d. -f1 /proc/uptime)" -lt $end ]; do
		for _ in 1 2 3 4 5 6 7 8 9 10; do
			echo "dma write 0x12345000 4" >"/sys/kernel/debug/rust_testdev-$1/cmd"
		done 2>/dev/null
	done
}

storm()
{
	mark_log
	storms=
	for device in $devices; do
		fault_often "$device" &
		storms="$storms $!"
	done
	wait $storms
	sleep 1
	ktap_print_msg "$(recorded) faults, $(grep fault_overflows $DRIVER_FILES/${UNIT_NAME}0/stats)"
	[ "$(recorded)" -gt 100 ]
}

log_is_short()
{
	lines=$(faults | wc -l)
	ktap_print_msg "$lines fault lines"
	[ "$lines" -gt 0 ] && [ "$lines" -le 200 ]
}

still_reports()
{
	sleep 6
	for device in $devices; do
		mark_log
		before=$(recorded)
		oracle "$device" dma write 0x777000 4 >/dev/null 2>&1
		wait_for 5 more_than "$before" || return 1
	done
}

ktap_test_result "four devices that may fault" prepare
ktap_test_result "faults are counted" storm
ktap_test_result "the log stays short" log_is_short
ktap_test_result "each device's next fault is recorded" still_reports
ktap_finished
