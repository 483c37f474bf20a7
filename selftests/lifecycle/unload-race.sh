#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Rows B25 and B5: the module is shut down, or loaded, at the very moment at which a driver
# is bound, held at each place where the two can meet.
#
# variant strict: --policy strict --nvme 1 --device iommu-testdev
# variant amd on stock: --iommu amd --policy strict --nvme 1 --device iommu-testdev
# variant virtio on stock: --iommu virtio --policy strict --nvme 1 --device iommu-testdev
# extra: amd virtio
# modules: inject
# timeout: 120

. /selftests/lib.sh

ktap_print_header
ktap_set_plan 10

shut_down()
{
	echo 1 2>/tmp/reason >/sys/module/$DRIVER/parameters/shutdown
}

load()
{
	no_more_waiting
	load_iommu && modprobe nvme && wait_for 30 test -b /dev/nvme0n1 &&
		insmod /modules/rust_testowner.ko || return 1
	disk=$(pci_of nvme0n1)
	other=$(pci_devices 1b36:0005)
	echo rust_kdma >"/sys/bus/pci/devices/$other/driver_override" && unbind "$disk"
}

# The driver core has the device's lock while the driver probes.
probe_is_under_way()
{
	races inject gate kdma.probe.1 && background bind rust_kdma "$other" &&
		races inject wait kdma.probe.1 || return 1
	mark_log
	! shut_down && expect reason 1 "$(grep -c busy /tmp/reason)" || return 1
	expect message 1 "$(log_since_mark | grep -c "$other: ")" &&
		races inject open kdma.probe.1 && finished && [ -n "$(group_of "$other")" ] && unbind "$other"
}

# Looked at and found idle; then a driver comes, before the locks are taken.
driver_comes_before_the_locks()
{
	races inject gate shutdown.lock && background shut_down && races inject wait shutdown.lock &&
		bind rust_kdma "$other" || return 1
	mark_log
	races inject open shutdown.lock && ! finished || return 1
	expect message 1 "$(log_since_mark | grep -c "$other: has a driver")" &&
		[ -n "$(group_of "$other")" ] && unbind "$other"
}

# The same while the module sees to the ports: a disk below one.
disk_comes_before_the_locks()
{
	races inject gate shutdown.lock && background shut_down && races inject wait shutdown.lock &&
		bind nvme "$disk" && races inject open shutdown.lock && ! finished || return 1
	wait_for 30 test -b /dev/nvme0n1 && fio_verify nvme0n1 2 && [ -n "$(group_of "$disk")" ] &&
		unbind "$disk"
}

ports_are_back()
{
	port=$(basename "$(dirname "$(readlink -f "/sys/bus/pci/devices/$disk")")")
	expect "driver of $port" pcieport "$(basename "$(readlink "/sys/bus/pci/devices/$port/driver")")"
}

# All is unregistered, translation is still on: who comes has to wait.
driver_comes_after_the_locks()
{
	races inject gate shutdown.locked || return 1
	shut_down &
	ending=$!
	races inject wait shutdown.locked && expect group "" "$(group_of "$disk")" || return 1
	background bind nvme "$disk"
	sleep 2
	running || return 1
	[ ! -e "/sys/bus/pci/devices/$disk/nvme/nvme0" ] &&
		races inject open shutdown.locked && wait $ending && finished
}

works_without()
{
	wait_for 30 test -b /dev/nvme0n1 && fio_verify nvme0n1 2 && expect group "" "$(group_of "$disk")"
}

# Whether a device has a driver is not settled before the driver core has let go of it.
load_waits_for_a_probe()
{
	rmmod $DRIVER && races inject gate kdma.probe.1 && {
		bind rust_kdma "$other" &
	} && binding=$! && races inject wait kdma.probe.1 || return 1
	background insmod /modules/$DRIVER.ko
	sleep 2
	running
	waits=$?
	races inject open kdma.probe.1 && wait $binding && finished && expect waits 0 $waits &&
		expect group "" "$(group_of "$other")" && unbind "$other" && shut_down && rmmod $DRIVER
}

# Not for ever: then nothing has changed. Ten seconds; busybox' insmod tries twice.
load_gives_up()
{
	races inject gate kdma.probe.1 && {
		bind rust_kdma "$other" &
	} && binding=$! && races inject wait kdma.probe.1 || return 1
	mark_log
	! insmod /modules/$DRIVER.ko 2>/tmp/reason && expect reason 1 "$(grep -c busy /tmp/reason)" &&
		log_since_mark | grep -q "$other: the driver core does not let go" &&
		expect groups "" "$(ls /sys/kernel/iommu_groups)"
	gave_up=$?
	races inject open kdma.probe.1 && wait $binding && expect "gave up" 0 $gave_up &&
		unbind "$other" && fio_verify nvme0n1 2 &&
		insmod /modules/$DRIVER.ko && [ -n "$(group_of "$other")" ] && shut_down
}

unloaded()
{
	rmmod rust_testowner && rmmod $DRIVER && rmmod rust_iommu && fio_verify nvme0n1 2
}

ktap_test_result "B25 load" load
ktap_test_result "B25 refused while a driver probes" probe_is_under_way
ktap_test_result "B25 refused for a driver that came after the look" driver_comes_before_the_locks
ktap_test_result "B25 refused for a disk that came after the look" disk_comes_before_the_locks
ktap_test_result "B25 the ports have their driver again" ports_are_back
ktap_test_result "B25 a driver that comes after the locks waits" driver_comes_after_the_locks
ktap_test_result "B25 it works without IOMMU" works_without
ktap_test_result "B5 the module waits for a driver that is probing" load_waits_for_a_probe
ktap_test_result "B5 it does not wait for ever, and nothing has changed" load_gives_up
ktap_test_result "B25 unload" unloaded
ktap_finished
