#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Row B25: a domain of iommufd that no device is on any more. It is made for a device of VFIO, and
# outlives that: the device is closed and unbound, no group is claimed, and the shutdown has to
# be refused all the same, as closing the domain calls into the module.
#
# The distribution's kernel is built without iommufd.
#
# variant strict: --policy strict --nvme 0 --testdev
# variant amd: --iommu amd --policy strict --nvme 0 --testdev
# variant virtio: --iommu virtio --policy strict --nvme 0 --testdev
# extra: amd virtio
# kernels: debug
# timeout: 100

. /selftests/lib.sh

ktap_print_header
ktap_set_plan 6

dev=$(pci_devices 1b36:0005)
HELD="a domain is still held by user space or a driver, or was leaked"

shut_down()
{
	echo 1 2>/tmp/reason >/sys/module/$DRIVER/parameters/shutdown
}

load()
{
	load_iommu && insmod /modules/rust_testowner.ko &&
		modprobe iommufd allow_unsafe_interrupts=1 && modprobe vfio-pci disable_idle_d3=1
}

# Who holds it reads from a pipe, and ends with it.
held_without_a_device()
{
	take vfio-pci "$dev" && mkfifo /tmp/hold || return 1
	races hold-domain "$dev" </tmp/hold >/tmp/held &
	holder=$!
	exec 3>/tmp/hold
	wait_for 10 grep -q . /tmp/held
	expect holder held "$(cat /tmp/held)" && leave "$dev" &&
		expect driver "" "$(readlink "/sys/bus/pci/devices/$dev/driver")" &&
		expect group 0 "$(grep -c claimed $DRIVER_FILES/groups)"
}

refused()
{
	for _ in 1 2 3; do
		mark_log
		! shut_down && grep -q 'Device or resource busy' /tmp/reason &&
			expect log "rust_iommu: $HELD" "$(log_since_mark | grep '^rust_')" || return 1
	done
}

works_on()
{
	[ -n "$(group_of "$dev")" ] && take rust_kdma "$dev" &&
		buffer=$(answer_of iova "$(ask rust_kdma "$dev" buffer)") &&
		says ok rust_kdma "$dev" dma write "$buffer" && leave "$dev" && refused
}

accepted_after_the_end()
{
	exec 3>&-
	wait $holder && shut_down && expect groups "" "$(ls /sys/kernel/iommu_groups)"
}

unloaded()
{
	rmmod rust_testowner && rmmod $DRIVER && rmmod rust_iommu && leak_scan
}

ktap_test_result "B25 load" load
ktap_test_result "B25 a domain is held, and no device has a driver or an owner" held_without_a_device
ktap_test_result "B25 the shutdown is refused with one line" refused
ktap_test_result "B25 nothing has changed: the device works on" works_on
ktap_test_result "B25 the shutdown succeeds when the holder has gone" accepted_after_the_end
ktap_test_result "B25 unload" unloaded
ktap_finished
