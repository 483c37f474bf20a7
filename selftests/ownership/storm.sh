#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Drivers and owners of a group come and go, many times and at the same time: nobody's
# ownership is left behind or lost. The group is three devices behind a PCI bridge.
#
# options: --append log_buf_len=16M
# variant strict: --policy strict --nvme 0 --device pcie-root-port,id=c0,chassis=1,slot=1 --device pcie-pci-bridge,id=c1,bus=c0 --device iommu-testdev,bus=c1,addr=1 --device iommu-testdev,bus=c1,addr=2 --device iommu-testdev,bus=c1,addr=3 --device iommu-testdev --device iommu-testdev
# variant full: --policy strict --nvme 0 --device pcie-root-port,id=c0,chassis=1,slot=1 --device pcie-pci-bridge,id=c1,bus=c0 --device iommu-testdev,bus=c1,addr=1 --device iommu-testdev,bus=c1,addr=2 --device iommu-testdev,bus=c1,addr=3 --device iommu-testdev --device iommu-testdev
# variant amd on stock: --iommu amd --policy strict --nvme 0 --device pcie-root-port,id=c0,chassis=1,slot=1 --device pcie-pci-bridge,id=c1,bus=c0 --device iommu-testdev,bus=c1,addr=1 --device iommu-testdev,bus=c1,addr=2 --device iommu-testdev,bus=c1,addr=3 --device iommu-testdev --device iommu-testdev
# variant virtio on stock: --iommu virtio --policy strict --nvme 0 --device pcie-root-port,id=c0,chassis=1,slot=1 --device pcie-pci-bridge,id=c1,bus=c0 --device iommu-testdev,bus=c1,addr=1 --device iommu-testdev,bus=c1,addr=2 --device iommu-testdev,bus=c1,addr=3 --device iommu-testdev --device iommu-testdev
# long: full
# extra: amd
# modules: inject
# timeout: 240

. /selftests/lib.sh

# The full numbers take the long variant, and on the debug kernel all is far slower.
case $VARIANT/$KERNEL in
strict/debug) : "${ROUNDS:=100}" "${FAILURES:=1}" "${SECONDS_OF_STORM:=5}" "${UNLOADS:=3}" "${CYCLES:=3}" ;;
full/*) : "${CYCLES:=500}" ;;
*) : "${ROUNDS:=1000}" "${FAILURES:=5}" "${SECONDS_OF_STORM:=10}" "${UNLOADS:=10}" "${CYCLES:=20}" ;;
esac
ROUNDS=${ROUNDS:-5000}
FAILURES=${FAILURES:-20}
SECONDS_OF_STORM=${SECONDS_OF_STORM:-30}
UNLOADS=${UNLOADS:-50}
CYCLES=${CYCLES:-100}

load()
{
	load_iommu && insmod /modules/rust_testowner.ko || return 1
	# shellcheck disable=SC2046 # One word each.
	set -- $(pci_devices 1b36:0005)
	# Two on the root bus, each in a group of its own, and those behind the bridge.
	alone=$1 other=$2 a=$3 b=$4 c=$5
	expect group "$(group_of "$a")" "$(group_of "$c")" && races storm bind "$a" "$b" &&
		new_domain && races vmstat >/tmp/before
}

# A table keeps what it grew by: the default domain is a new one.
new_domain()
{
	races device "$a" type identity && races device "$a" type auto
}

# counter NAME
counter()
{
	sed -n "s/^$1 //p" /sys/kernel/debug/rust_testowner/counters
}

# Whatever was begun has ended, each once.
counts_agree()
{
	expect removes "$(($(counter kdma.probes) - $(counter kdma.probe_failures)))" "$(counter kdma.removes)" &&
		expect "udma removes" "$(($(counter udma.probes) - $(counter udma.probe_failures)))" "$(counter udma.removes)" &&
		expect releases "$(counter udma.claims)" "$(counter udma.releases)"
}

# Of the loaded module, so of this test alone: one bind before it, in load.
binds()
{
	races storm bind --rounds "$ROUNDS" "$a" "$b" && counts_agree &&
		expect claims $((ROUNDS + 1)) "$(counter udma.claims)" &&
		expect "devres ends" $((ROUNDS + 1)) "$(counter kdma.devres_ends)"
}

failures()
{
	races storm fail --rounds "$FAILURES" "$a" "$b" && counts_agree
}

claims_against_binds()
{
	races storm claim --seconds "$SECONDS_OF_STORM" "$a" "$b" && counts_agree
}

nothing_left()
{
	new_domain && races vmstat --compare /tmp/before
}

unloads()
{
	rmmod rust_testowner && modprobe vfio_iommu_type1 allow_unsafe_interrupts=1 &&
		modprobe vfio-pci disable_idle_d3=1 &&
		races device "$a" override vfio-pci && races device "$a" bind vfio-pci &&
		races storm unload --rounds "$UNLOADS" --module /modules/rust_testowner.ko "$a" "$b" "$c" &&
		races device "$a" unbind && races device "$a" override
}

# One shutdown, tried again until no driver is there at that moment, and a load.
cycle()
{
	deadline 60
	until echo 1 2>/dev/null >/sys/module/$DRIVER/parameters/shutdown; do
		refusals=$((refusals + 1))
		if is_over; then
			ktap_print_msg "in cycle $((cycles + 1)): refused for 60 s"
			return 1
		fi
	done
	rmmod $DRIVER && insmod /modules/$DRIVER.ko && cycles=$((cycles + 1))
}

# Of enough cycles one met a driver, and the last load none: a device that has one is left alone.
have_cycled()
{
	[ $cycles -ge "$CYCLES" ] && [ $refusals -gt 0 ] || return 1
	for device in "$alone" "$other" "$a" "$b" "$c"; do
		[ -n "$(group_of "$device")" ] || return 1
	done
}

# Two devices share a requester id: while one is in use the other must not be attached. What a shutdown or
# a load meets is chance: there are more cycles until it was.
reloads()
{
	for device in "$a" "$b" "$c"; do
		races device "$device" override || return 1
	done
	insmod /modules/rust_testowner.ko && touch /tmp/go || return 1
	busy=
	for devices in "$alone $other" "$a" "$b"; do
		# shellcheck disable=SC2086 # One word each.
		races storm busy /tmp/go $devices &
		busy="$busy $!"
	done
	cycles=0
	refusals=0
	while cycle && ! have_cycled && [ $cycles -lt $((10 * CYCLES)) ]; do :; done
	have_cycled
	storm=$?
	rm /tmp/go
	ktap_print_msg "refused $refusals times, done $cycles times"
	for one in $busy; do
		wait "$one" || storm=1
	done
	return $storm
}

# Who has claimed is refused DMA; the bridge asks for it.
only_wanted_faults()
{
	expect "faults of others" "" "$(faults | grep -v -E "^0000:02:00.0 (write|access)")"
}

ktap_print_header
ktap_set_plan 8
ktap_test_result "B1 load" load
mark_log
ktap_test_result "B1 $((2 * ROUNDS)) binds: as many releases as claims" binds
ktap_test_result "B2 probe fails at each step, or is refused: no ownership left" failures
ktap_test_result "B10 claims against binds for $SECONDS_OF_STORM s: never both" claims_against_binds
ktap_test_result "B1 nothing is left over (H14)" nothing_left
ktap_test_result "B16 drivers are unloaded $UNLOADS times while VFIO claims" unloads
ktap_test_result "B5 $CYCLES times: the IOMMU goes and comes while drivers are bound" reloads
ktap_test_result "B10 no other faults" only_wanted_faults
ktap_finished
