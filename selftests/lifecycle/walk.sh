#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Row A3: two devices are moved at random between three domains that they share, blocked,
# identity and the default domain, and the domains are changed under them. After every step
# they reach what a model says, and nothing else.
#
# variant lazy: --policy lazy --nvme 0 --device iommu-testdev --device iommu-testdev
# variant full on debug: --policy lazy --nvme 0 --device iommu-testdev --device iommu-testdev
# variant caching-mode on stock: --policy strict --iommu-opt caching-mode=on --nvme 0 --device iommu-testdev --device iommu-testdev
# variant amd on stock: --iommu amd --policy lazy --nvme 0 --device iommu-testdev --device iommu-testdev
# variant in-tree: --in-tree --policy strict --nvme 0 --device iommu-testdev --device iommu-testdev
# long: full
# variant virtio on stock: --iommu virtio --policy lazy --nvme 0 --device iommu-testdev --device iommu-testdev
# extra: in-tree caching-mode lazy/debug amd
# timeout: 150

. /selftests/lib.sh

# On the debug kernel, which is far slower, the full number takes the long variant.
case $VARIANT/$KERNEL in
lazy/debug) : "${COUNT:=2000}" ;;
esac
COUNT=${COUNT:-10000}

ktap_print_header
ktap_set_plan 4

load()
{
	load_iommu && { [ -d /sys/module/rust_iommu ] || insmod /modules/rust_iommu.ko; } &&
		insmod /modules/rust_testowner.ko || return 1
	devices=$(pci_devices 1b36:0005)
	for bdf in $devices; do
		races device "$bdf" override rust_udma && bind rust_udma "$bdf" &&
			races device "$bdf" type DMA || return 1
	done
	expect groups 2 "$(for bdf in $devices; do group_of "$bdf"; done | sort -u | wc -l)" &&
		races vmstat >/tmp/before
}

walk()
{
	# shellcheck disable=SC2086 # One word each.
	races walk --count "$COUNT" ${SEED:+--seed "$SEED"} $devices
}

nothing_left()
{
	races vmstat --compare /tmp/before && leak_scan
}

# What is tried where it must fail: pages of the domains, and pages of memory. Reports are
# rate-limited, so that one device's may take the place of all of the other's.
only_those_devices()
{
	faults | cut -d' ' -f1,2 | sed 's/^0000://' | sort -u >/tmp/reported
	for bdf in $devices; do reported "$bdf" write 0; done | cut -d' ' -f1,2 | sed 's/^0000://' >/tmp/wanted
	[ -s /tmp/reported ] && expect "other faults" "" "$(grep -vxFf /tmp/wanted /tmp/reported)"
}

ktap_test_result "A3 load" load
mark_log
ktap_test_result "A3 $COUNT random attaches, each as the model has it" walk
ktap_test_result "A3 nothing is left over (H14)" nothing_left
ktap_test_result "A3 faults are of these devices" only_those_devices
ktap_finished
