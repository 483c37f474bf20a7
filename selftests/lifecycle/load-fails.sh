#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Row B3: registering the units fails late, when devices are probed and grouped already: each time
# that one is. insmod fails, nobody refers to the modules, and all is as it was; so the framework
# can be unloaded, and loading again works.
#
# A first attach that fails is undone as well, but the core warns of it (iommu_setup_default_domain),
# which fails a run. Want of memory at each single allocation of a load is in fail-nth.sh, variant
# load, on the debug kernel.
#
# variant strict on stock: --policy strict --nvme 1 --testdev
# variant amd on stock: --iommu amd --policy strict --nvme 1 --testdev
# variant virtio on stock: --iommu virtio --policy strict --nvme 1 --testdev
# modules: inject
# timeout: 240

. /selftests/lib.sh

ktap_print_header
ktap_set_plan 6

dev=$(pci_devices 1b36:0005)
ENOMEM=12

# The disk is bound before, as when the module is loaded late: it works all the time.
start()
{
	modprobe nvme && wait_for 30 test -b /dev/nvme0n1 && fio_verify nvme0n1 2
}

disk_works()
{
	dd if=/dev/nvme0n1 of=/dev/null bs=64k count=8 iflag=direct 2>/dev/null
}

# nothing_is_left: of a load that failed
nothing_is_left()
{
	expect modules "" "$(grep "^$DRIVER " /proc/modules)" &&
		expect references 0 "$(cat /sys/module/rust_iommu/refcnt)" &&
		expect groups "" "$(ls /sys/kernel/iommu_groups)" && expect units "" "$(ls /sys/class/iommu)" &&
		races inject clear && rmmod rust_iommu && disk_works
}

works()
{
	insmod /modules/rust_iommu.ko && insmod /modules/$DRIVER.ko && [ -n "$(group_of "$dev")" ] &&
		insmod /modules/rust_testowner.ko && take rust_kdma "$dev" &&
		buffer=$(answer_of iova "$(ask rust_kdma "$dev" buffer)") &&
		says ok rust_kdma "$dev" dma write "$buffer" && leave "$dev" &&
		races device "$dev" override && rmmod rust_testowner
}

ends()
{
	echo 1 >/sys/module/$DRIVER/parameters/shutdown && rmmod $DRIVER && rmmod rust_iommu &&
		disk_works
}

works_and_ends()
{
	works && ends
}

# load_fails POINT N: at the N-th time; 1 if it is not reached so often, and the load succeeds
load_fails()
{
	insmod /modules/rust_iommu.ko && races inject fail "$1" $ENOMEM "$2" || return 2
	races load /modules/$DRIVER.ko >/tmp/insmod && return 1
	grep -q 'Cannot allocate memory' /tmp/insmod || {
		cat /tmp/insmod
		return 2
	}
	nothing_is_left || return 2
}

# fails_at POINT: each time that it is reached, in turn; then nothing fails.
fails_at()
{
	at=1
	while load_fails "$1" $at; do
		at=$((at + 1))
	done
	ktap_print_msg "$1: $((at - 1)) loads failed"
	[ $at -gt 1 ] && races inject clear && [ -n "$(group_of "$dev")" ] && ends && works_and_ends
}

second_load()
{
	works && ! races load /modules/$DRIVER.ko >/tmp/insmod && grep -q 'File exists' /tmp/insmod && ends
}

nothing_is_leaked()
{
	leak_scan
}

ktap_test_result "B3 a disk works" start
ktap_test_result "B3 load, use, shutdown, unload" works_and_ends
ktap_test_result "B3 load fails as a device is probed" fails_at probe
ktap_test_result "B3 load fails as a device was probed" fails_at probe.done
ktap_test_result "B3 a second load is refused" second_load
ktap_test_result "B3 nothing is leaked" nothing_is_leaked
ktap_finished
