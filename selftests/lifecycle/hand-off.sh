#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Row A6: a disk goes from nvme to vfio-pci and back, again and again. What was written
# before is read after; nobody leaves anything mapped.
#
# variant lazy: --policy lazy --nvme 1
# variant window on stock: --policy lazy --nvme 1
# variant amd on stock: --iommu amd --policy lazy --nvme 1
# variant virtio on stock: --iommu virtio --policy lazy --nvme 1
# variant full on stock: --policy lazy --nvme 1
# extra: lazy/debug amd window
# long: full
# timeout: 150

. /selftests/lib.sh

# The debug kernel takes some four times as long.
case $VARIANT/$KERNEL in
*/debug) COUNT=${COUNT:-10} ;;
full/*) COUNT=${COUNT:-200} ;;
*) COUNT=${COUNT:-40} ;;
esac
# In one of so many more is written and verified, before and after, and VFIO has the
# device open.
OFTEN=20

load()
{
	load_iommu && modprobe nvme && wait_for 30 test -b /dev/nvme0n1 &&
		disk=nvme0n1 && bdf=$(pci_of nvme0n1) && type=$(type_of "$bdf") &&
		modprobe vfio-pci disable_idle_d3=1 && modprobe vfio_iommu_type1 allow_unsafe_interrupts=1 &&
		dd if=/dev/urandom of=/tmp/pattern bs=64k count=4 2>/dev/null &&
		idle && races vmstat >/tmp/before && races device "$bdf" type "$type" && to nvme
}

# Sets $disk.
find_disk()
{
	for disk in "/sys/bus/pci/devices/$bdf"/nvme/nvme*/nvme*n1; do
		disk=${disk##*/}
		[ ! -b "/dev/$disk" ] || return 0
	done
	return 1
}

to()
{
	unbind "$bdf" && echo "$1" >"/sys/bus/pci/devices/$bdf/driver_override" && bind "$1" "$bdf" &&
		{ [ "$1" != nvme ] || wait_for 30 find_disk; }
}

# idle: without a domain of the DMA API, whose tables grow with use
idle()
{
	to vfio-pci && races device "$bdf" type identity
}

# hand_off ROUND OPEN: VFIO opens the device, and so resets it, if OPEN is 1.
hand_off()
{
	dd if=/tmp/pattern of="/dev/$disk" oflag=direct bs=64k seek="$1" 2>/dev/null &&
		to vfio-pci && races attach --rounds 1 --open "$2" "$bdf" >/tmp/attach && to nvme &&
		dd if="/dev/$disk" of=/tmp/read iflag=direct bs=64k skip="$1" count=4 2>/dev/null &&
		cmp /tmp/pattern /tmp/read
}

verified()
{
	fio_verify "$disk" 1 >/tmp/fio.out
}

hand_offs()
{
	started=$(cut -d. -f1 /proc/uptime)
	for round in $(seq "$COUNT"); do
		open=$((round % OFTEN == 1))
		{ [ $open = 0 ] || verified; } && hand_off "$round" $open && { [ $open = 0 ] || verified; } || {
			ktap_print_msg "in round $round"
			sed 's/^/# /' /tmp/attach
			return 1
		}
	done
	ktap_print_msg "$COUNT times, $(($(cut -d. -f1 /proc/uptime) - started)) s"
}

nothing_mapped()
{
	expect "left mapped" "" "$(log_since_mark | grep ' left .* mapped')" && expect faults "" "$(faults)"
}

nothing_left()
{
	idle && races vmstat --compare /tmp/before && leak_scan
}

ktap_print_header
ktap_set_plan 4
ktap_test_result "A6 load" load
mark_log
ktap_test_result "A6 $COUNT times from nvme to vfio-pci and back" hand_offs
ktap_test_result "A6 nothing is mapped when the disk is claimed, and nothing faults" nothing_mapped
ktap_test_result "A6 nothing is left over (H14)" nothing_left
ktap_finished
