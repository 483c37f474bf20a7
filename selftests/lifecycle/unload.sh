#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Row B25: the module is shut down and unloaded where nobody depends on it, and
# stays where somebody does.
#
# variant lazy: --nvme 2 --device edu,dma_mask=0xffffffffffffffff
# variant cycles: --nvme 2 --device edu,dma_mask=0xffffffffffffffff
# variant strict on stock: --policy strict --nvme 2
# long: cycles
# variant amd on stock: --iommu amd --nvme 2 --device edu,dma_mask=0xffffffffffffffff
# variant virtio on stock: --iommu virtio --nvme 2 --device edu,dma_mask=0xffffffffffffffff
# extra: strict amd
# timeout: 240

. /selftests/lib.sh

ktap_print_header
ktap_set_plan 9

PARAMETERS=/sys/module/$DRIVER/parameters
# A cycle takes ten times as long on the debug kernel.
case $VARIANT/$KERNEL in
cycles/*) cycles=100 against=20 ;;
*/debug) cycles=2 against=2 ;;
*) cycles=10 against=10 ;;
esac
CYCLES=${CYCLES:-$cycles}
AGAINST=${AGAINST:-$against}

# shut_down: its status, and on failure why in $reason.
shut_down()
{
	mark_log
	reason=$(echo 1 2>&1 >$PARAMETERS/shutdown) && return 0
	reason=${reason##*: }
	return 1
}

load()
{
	no_more_waiting
	load_iommu && modprobe nvme && wait_for 30 test -b /dev/nvme0n1 && wait_for 30 test -b /dev/nvme1n1 &&
		first=$(pci_of nvme0n1) && second=$(pci_of nvme1n1)
}

refused_under_fio()
{
	fio_read nvme0n1 4 >/tmp/fio.out &
	fio=$!
	sleep 1
	for _ in 1 2 3 4 5; do
		! shut_down || return 1
		expect reason "Device or resource busy" "$reason" || return 1
	done
	expect "devices named" 1 "$(log_since_mark | grep -c 'has a driver, unbind it first')" || return 1
	wait $fio || return 1
	cat /tmp/fio.out
}

# One of two disks is enough to refuse, and nothing is half done: the other is
# bound again and translated as before.
refused_for_one()
{
	unbind "$first" && ! shut_down && bind nvme "$first" && disk_is_back "$first" &&
		[ -n "$(group_of "$first")" ] && fio_verify "$(disk_of "$first")" 2 && fio_verify "$(disk_of "$second")" 2
}

disk_of()
{
	ls "/sys/bus/pci/devices/$1/nvme/"*/ 2>/dev/null | grep -m 1 -E '^nvme[0-9]+(c[0-9]+)?n1$'
}

disk_is_back()
{
	wait_for 30 disk_of "$1" >/dev/null && wait_for 10 test -b "/dev/$(disk_of "$1")"
}

rmmod_refused()
{
	! rmmod $DRIVER 2>/dev/null
}

shut_down_when_idle()
{
	unbind "$first" && unbind "$second" && shut_down || return 1
	expect references 0 "$(cat /sys/module/$DRIVER/refcnt)" &&
		expect groups "" "$(ls /sys/kernel/iommu_groups)" && ! shut_down
}

works_without()
{
	bind nvme "$first" && disk_is_back "$first" && fio_verify "$(disk_of "$first")" 2 &&
		rmmod $DRIVER && rmmod rust_iommu && fio_verify "$(disk_of "$first")" 2 && unbind "$first"
}

# What was written in one cycle is read in the next, by the other way to memory.
cycle()
{
	insmod /modules/rust_iommu.ko && insmod /modules/$DRIVER.ko &&
		bind nvme "$first" && disk_is_back "$first" || return 1
	disk=$(disk_of "$first")
	[ -n "$(group_of "$first")" ] || return 1
	dd if=/tmp/pattern of="/dev/$disk" oflag=direct bs=64k seek="$1" 2>/dev/null &&
		dd if="/dev/$disk" of=/tmp/read iflag=direct bs=64k skip="$1" count=4 2>/dev/null &&
		cmp /tmp/pattern /tmp/read && unbind "$first" && shut_down && rmmod $DRIVER && rmmod rust_iommu
}

cycles()
{
	dd if=/dev/urandom of=/tmp/pattern bs=64k count=4 2>/dev/null
	for round in $(seq $CYCLES); do
		cycle "$round" || {
			ktap_print_msg "in cycle $round: $reason"
			return 1
		}
	done
}

# A driver comes and goes while the module is shut down as soon as that succeeds.
# What is decided must be right each time: the driver works with an IOMMU, or
# without one. The pauses are shorter and longer than a shutdown takes, on any machine.
binder()
{
	while :; do
		for pause in 0.05 0.1 0.2 0.4 0.8 1.6; do
			[ -e /tmp/go ] || return
			bind nvme "$first" 2>/dev/null
			unbind "$first" 2>/dev/null
			sleep $pause
		done
	done
}

against_binding()
{
	refusals=0
	round=0
	# Whether a shutdown meets the driver is chance: there are more rounds until one did.
	while [ $round -lt "$AGAINST" ] || [ $refusals = 0 ] && [ $round -lt $((10 * AGAINST)) ]; do
		round=$((round + 1))
		insmod /modules/rust_iommu.ko && insmod /modules/$DRIVER.ko || return 1
		touch /tmp/go
		binder &
		binder=$!
		deadline 60
		until shut_down; do
			refusals=$((refusals + 1))
			if is_over; then
				rm /tmp/go
				wait $binder
				ktap_print_msg "in round $round: refused for 60 s: $reason"
				return 1
			fi
		done
		rmmod $DRIVER && rmmod rust_iommu || return 1
		rm /tmp/go
		wait $binder
	done
	ktap_print_msg "refused $refusals times, done $round times"
	[ $refusals -gt 0 ] || return 1
	[ -n "$(disk_of "$first")" ] || bind nvme "$first"
	disk_is_back "$first" && fio_verify "$(disk_of "$first")" 2
}

no_faults()
{
	dmesg | grep -F "DMA fault" | sed 's/^/# /'
	! dmesg | grep -qF "DMA fault"
}

ktap_test_result "B25 load" load
ktap_test_result "B25 shutdown is refused while fio runs, and fio goes on" refused_under_fio
ktap_test_result "B25 shutdown is refused for one bound disk of two" refused_for_one
ktap_test_result "B25 rmmod alone is refused" rmmod_refused
ktap_test_result "B25 shutdown without drivers: no reference, no group" shut_down_when_idle
ktap_test_result "B25 the disk works without the IOMMU, then without the module" works_without
ktap_test_result "B25 $CYCLES times: load, I/O, shutdown, unload" cycles
ktap_test_result "B25 $AGAINST times: shutdown against a driver that is being bound" against_binding
ktap_test_result "B25 no faults" no_faults
ktap_finished
