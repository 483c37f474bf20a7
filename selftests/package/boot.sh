#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# A Debian system in which the package is installed (tools/system) boots from NVMe, with its own
# initramfs: behind our driver where it can be, and otherwise without, with a line that says so.
#
# variant intel: --system build/system/new
# variant amd: --system build/system/new --iommu amd
# variant virtio: --system build/system/new --iommu virtio
# variant none: --system build/system/new --iommu none
# variant held: --system build/system/new --in-tree
# variant blacklisted: --system build/system/new --append modprobe.blacklist=rust_vtd
# variant old: --system build/system/old
# variant old-held: --system build/system/old --in-tree
# kernels: stock
# timeout: 300

. /selftests/lib.sh

ktap_print_header
dmesg >/tmp/log
ROOT=$(findmnt -no SOURCE /)
DISK=$(pci_of "${ROOT#/dev/}")

root_is_on_nvme()
{
	expect "root" nvme "$(basename "$ROOT" | sed 's/[0-9].*//')"
}

# What was written is read back from the disk.
root_works()
{
	dd if=/dev/urandom of=/var/tmp/data bs=1M count=16 status=none &&
		sum=$(md5sum </var/tmp/data) && sync /var/tmp/data &&
		echo 3 >/proc/sys/vm/drop_caches &&
		expect "sum" "$sum" "$(md5sum </var/tmp/data)"
}

# Nothing that systemd started has failed.
system_is_up()
{
	expect "failed units" "" "$(systemctl --failed --plain --no-legend)"
}

# lines PATTERN: what the log has, without the time.
lines()
{
	grep -E "$1" /tmp/log | sed 's/^\[[^]]*\] //'
}

says()
{
	expect "rust-iommu's lines" "rust-iommu: $*" "$(lines '\] rust-iommu: ')"
}

says_nothing()
{
	expect "rust-iommu's lines" "" "$(lines '\] rust-iommu: ')"
}

says_held()
{
	lines '\] rust_vtd: ' | grep 'is held by another driver'
}

of_the_package()
{
	expect "module" "/lib/modules/$(uname -r)/updates/dkms" "$(dirname "$(modinfo -n $DRIVER)")"
}

# number PATTERN: the first line of the log with it.
number()
{
	grep -nE "$1" /tmp/log | head -n 1 | cut -d: -f1
}

# The driver has the unit before any disk has a driver.
before_the_disk()
{
	unit=$(number "\] $DRIVER: ${UNIT_NAME}0: ")
	disk=$(number '\] nvme nvme0: ')
	sed -n "${unit:-1}p;${disk:-1}p" /tmp/log | sed 's/^/# /'
	[ -n "$unit" ] && [ -n "$disk" ] && [ "$unit" -lt "$disk" ]
}

# Of its own, which a device that was bound before does not get.
has_a_domain()
{
	ktap_print_msg "$DISK: group $(group_of "$DISK"), $(type_of "$DISK")"
	case $(type_of "$DISK") in
	DMA | DMA-FQ) ;;
	*) return 1 ;;
	esac
	expect "unit" "${UNIT_NAME}0" "$(basename "$(readlink -f "/sys/bus/pci/devices/$DISK/iommu")")"
}

no_faults()
{
	expect "faults" "" "$(lines 'DMA fault|blocked')"
}

not_loaded()
{
	[ ! -e "/sys/module/$1" ]
}

case $VARIANT in
none)
	ktap_set_plan 5
	ktap_test_result "one line says so" \
		says "no IOMMU here: firmware has no DMAR, IVRS or VIOT table"
	ktap_test_result "nothing is loaded" not_loaded rust_iommu
	;;
held)
	ktap_set_plan 6
	ktap_test_result "the boot says so" says "rust_vtd was not loaded"
	ktap_test_result "the driver says why" says_held
	ktap_test_result "it is not loaded" not_loaded rust_vtd
	;;
blacklisted)
	ktap_set_plan 5
	ktap_test_result "the boot says so" says "rust_vtd was not loaded"
	ktap_test_result "nothing is loaded" not_loaded rust_iommu
	;;
old*)
	ktap_set_plan 5
	ktap_test_result "the boot says so" \
		says "this machine has an IOMMU (DMAR), and no rust_vtd for $(uname -r)"
	ktap_test_result "nothing is loaded" not_loaded rust_iommu
	;;
*)
	ktap_set_plan 8
	ktap_test_result "the module is the package's" of_the_package
	ktap_test_result "it has the unit before any disk has a driver" before_the_disk
	ktap_test_result "the disk has a domain" has_a_domain
	ktap_test_result "the boot has nothing to say" says_nothing
	ktap_test_result "there were no faults" no_faults
	;;
esac
ktap_test_result "root is on NVMe" root_is_on_nvme
ktap_test_result "it works" root_works
ktap_test_result "the system is up" system_is_up
ktap_finished
