#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# NVMe traffic in every mode of the emulated unit and of the kernel's policy:
# checksummed, and with the domain type that was asked for.
#
# variant 39-bit on stock: --iommu-opt aw-bits=39
# variant 48-bit on stock: --policy lazy --iommu-opt aw-bits=48 --iommu-opt caching-mode=off
# variant caching-mode: --iommu-opt caching-mode=on
# variant strict: --policy strict
# variant window on stock: --policy strict
# variant passthrough on stock: --policy identity
# variant passthrough-by-table: --policy identity
# variant 48-bit-with-39-bit-tables on stock: --iommu-opt aw-bits=48
# variant 39-bit-caching-mode-strict: --policy strict --iommu-opt aw-bits=39 --iommu-opt caching-mode=on
# variant amd-39-bit-tables on stock: --iommu amd
# variant amd-57-bit-tables on stock: --iommu amd
# variant amd-strict: --iommu amd --policy strict
# variant amd-passthrough on stock: --iommu amd --policy identity
# variant window-amd on stock: --iommu amd --policy strict
# variant in-tree-strict: --in-tree --policy strict
# variant in-tree-passthrough: --in-tree --policy identity
# variant virtio-strict on stock: --iommu virtio --policy strict
# variant virtio-passthrough on stock: --iommu virtio --policy identity
# variant virtio-passthrough-by-map on stock: --iommu virtio --policy identity
# variant virtio-lazy: --iommu virtio --policy lazy
# extra: 48-bit strict in-tree-strict in-tree-passthrough amd-strict virtio-lazy passthrough-by-table/debug 39-bit-caching-mode-strict amd-39-bit-tables caching-mode/debug
# timeout: 60

. /selftests/lib.sh

ktap_print_header
ktap_set_plan 7

# The kernel's default is lazy. With caching mode a driver may prefer strict,
# and the in-tree one does.
types()
{
	case $VARIANT in
	*passthrough*) echo identity ;;
	*strict* | window*) echo DMA ;;
	*39-bit* | *48-bit* | *57-bit*) echo DMA-FQ ;;
	caching-mode) echo DMA DMA-FQ ;;
	*lazy*) echo DMA-FQ ;;
	esac
}

type_as_expected()
{
	for bdf in $(pci_of nvme0n1) $(pci_of nvme1n1); do
		type=$(type_of "$bdf")
		case " $(types) " in
		*" $type "*) ;;
		*) expect "type of $bdf" "$(types)" "$type" || return 1 ;;
		esac
	done
}

disks_appear()
{
	modprobe nvme && wait_for 30 test -b /dev/nvme0n1 && wait_for 30 test -b /dev/nvme1n1
}

groups_differ()
{
	a=$(group_of "$(pci_of nvme0n1)")
	b=$(group_of "$(pci_of nvme1n1)")
	[ -n "$a" ] && [ -n "$b" ] && [ "$a" != "$b" ]
}

# Both disks at once, and large requests, which take several pages each.
traffic()
{
	fio_job first --filename=/dev/nvme0n1 --rw=randwrite --bs=4k --iodepth=32 --size=24m \
		--verify=crc32c --do_verify=1 --verify_fatal=1 &
	fio_job second --filename=/dev/nvme1n1 --rw=randwrite --bs=128k --iodepth=8 --size=64m \
		--verify=crc32c --do_verify=1 --verify_fatal=1
	status=$?
	wait $! && return $status
}

load()
{
	case $VARIANT in
	*by-table) load_iommu identity_table=1 ;;
	*by-map) load_iommu identity_map=1 ;;
	*39-bit-tables) load_iommu address_bits=39 ;;
	*57-bit-tables) load_iommu address_bits=57 ;;
	*) load_iommu ;;
	esac
}

# Row C6: as large as the tables, whatever the device's domain is.
aperture()
{
	case $VARIANT in
	*39-bit* | virtio*) last=0x0000007fffffffff ;;
	*57-bit*) last=0x01ffffffffffffff ;;
	*) last=0x0000ffffffffffff ;;
	esac
	expect aperture "0x0000000000000000 $last" "$(cat "/sys/bus/pci/devices/$(pci_of nvme0n1)/rust_iommu/aperture")"
}

no_faults()
{
	expect faults "" "$(faults)"
}

mark_log
ktap_test_result "load" load
ktap_test_result "disks appear" disks_appear
ktap_test_result "each disk has a group" groups_differ
ktap_test_result "domain type" type_as_expected
case $VARIANT in
in-tree*) ktap_test_skip "the aperture (a file of ours)" ;;
*) ktap_test_result "the aperture (C6)" aperture ;;
esac
ktap_test_result "checksummed traffic on two disks" traffic
ktap_test_result "no faults" no_faults
ktap_finished
