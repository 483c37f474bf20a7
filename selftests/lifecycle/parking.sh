#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# park_unbound=1: DMA of a device is blocked while no driver in its group uses the DMA API,
# whatever the type of the group's domain; "control" is the same without the parameter.
#
# The page that is written to belongs to a driver of another device, so that it stays
# the same. Three devices share a group: behind a PCI bridge requests carry the bridge's id,
# so there is one entry for all.
#
# variant strict: --policy strict --nvme 0 --testdev --device edu,dma_mask=0xffffffffffffffff --device pcie-root-port,id=c0,chassis=1,slot=1 --device pcie-pci-bridge,id=c1,bus=c0 --device iommu-testdev,bus=c1,addr=1 --device iommu-testdev,bus=c1,addr=2
# variant lazy on stock: --policy lazy --nvme 0 --testdev --device edu,dma_mask=0xffffffffffffffff --device pcie-root-port,id=c0,chassis=1,slot=1 --device pcie-pci-bridge,id=c1,bus=c0 --device iommu-testdev,bus=c1,addr=1 --device iommu-testdev,bus=c1,addr=2
# variant control on stock: --policy strict --nvme 0 --testdev --device edu,dma_mask=0xffffffffffffffff --device pcie-root-port,id=c0,chassis=1,slot=1 --device pcie-pci-bridge,id=c1,bus=c0 --device iommu-testdev,bus=c1,addr=1 --device iommu-testdev,bus=c1,addr=2
# variant amd on stock: --iommu amd --policy strict --nvme 0 --testdev --device edu,dma_mask=0xffffffffffffffff --device pcie-root-port,id=c0,chassis=1,slot=1 --device pcie-pci-bridge,id=c1,bus=c0 --device iommu-testdev,bus=c1,addr=1 --device iommu-testdev,bus=c1,addr=2
# variant virtio on stock: --iommu virtio --policy strict --nvme 0 --testdev --device edu,dma_mask=0xffffffffffffffff --device pcie-root-port,id=c0,chassis=1,slot=1 --device pcie-pci-bridge,id=c1,bus=c0 --device iommu-testdev,bus=c1,addr=1 --device iommu-testdev,bus=c1,addr=2
# extra: strict/debug
# modules: inject
# timeout: 90

. /selftests/lib.sh

ktap_print_header
ktap_set_plan 12

PATTERN=0x12345678
BEFORE=0x0f0f0f0f
IOVA=0x40000000

case $VARIANT in
control) unbound=reached parameter= ;;
*) unbound=parked parameter=park_unbound=1 ;;
esac

load()
{
	# shellcheck disable=SC2086 # One word or none.
	load_iommu $parameter && insmod /modules/rust_testowner.ko || return 1
	# shellcheck disable=SC2046 # One word each.
	set -- $(pci_devices 1b36:0005)
	alone=$1 a=$2 b=$3 edu=$(pci_devices 1234:11e8)
	[ "$(group_of "$a")" = "$(group_of "$b")" ] && [ "$(group_of "$a")" != "$(group_of "$alone")" ] || return 1
	for device in $alone $a; do
		set_type "$device" identity || return 1
	done
	take rust_kdma "$edu" && page=$(ask rust_kdma "$edu" page) &&
		handle=$(answer_of handle "$page") && phys=$(answer_of phys "$page")
}

# written DEVICE: it has no driver, and reaches the page
written()
{
	says done rust_kdma "$edu" fill "$handle" $BEFORE &&
		expect "write of $1" ok "$(races ghost "$1" "$phys")" &&
		says "differs at 0x0: $PATTERN" rust_kdma "$edu" check "$handle" $BEFORE
}

blocked()
{
	says done rust_kdma "$edu" fill "$handle" $BEFORE &&
		expect "write of $1" tx_fail "$(races ghost "$1" "$phys")" &&
		says match rust_kdma "$edu" check "$handle" $BEFORE
}

# shown DEVICE DOMAIN: as debugfs says
shown()
{
	expect "$1" "$2" "$(sed -n "s/^  $1 .*, domain //p" $DRIVER_FILES/groups)"
}

# idle DEVICE...: as it has to be while no driver in the group uses the DMA API
idle()
{
	for idle_device; do
		if [ $unbound = parked ]; then
			shown "$idle_device" "${kind:-identity}, parked" && blocked "$idle_device" || return 1
		else
			shown "$idle_device" "${kind:-identity}" && written "$idle_device" || return 1
		fi
	done
}

# works_bound DEVICE: what its driver maps is reached.
works_bound()
{
	iova=$(answer_of iova "$(ask rust_kdma "$1" buffer)") && says ok rust_kdma "$1" dma write "$iova"
}

without_a_driver()
{
	idle "$alone" "$a" "$b"
}

with_a_driver()
{
	for _ in 1 2 3; do
		take rust_kdma "$alone" && shown "$alone" identity && works_bound "$alone" &&
			leave "$alone" && idle "$alone" || return 1
	done
}

# Translated, a device without a driver reaches nothing anyway: but it is shown.
translated()
{
	kind=default
	set_type "$alone" DMA && take rust_kdma "$alone" && shown "$alone" default && works_bound "$alone" &&
		leave "$alone" && shown "$alone" "default${parameter:+, parked}" && blocked "$alone" &&
		set_type "$alone" identity
	status=$?
	kind=
	[ $status = 0 ] && idle "$alone"
}

failed_probe()
{
	for step in 1 2 3 4; do
		races inject fail kdma.probe.$step 16 1 "$alone" &&
			take rust_kdma "$alone" | grep -q 'Device or resource busy' && idle "$alone" || return 1
	done
	races inject clear
}

until_the_last_one_goes()
{
	take rust_kdma "$a" && shown "$a" identity && shown "$b" identity && works_bound "$a" && written "$b" &&
		take rust_kdma "$b" && works_bound "$b" && leave "$a" && works_bound "$b" && written "$a" &&
		leave "$b" && idle "$a" "$b"
}

# A driver that manages DMA itself does not count; what it attaches is not blocked.
claimed()
{
	take rust_udma "$alone" && own=$(ask rust_udma "$alone" page) && own=$(answer_of handle "$own") || return 1
	shown "$alone" "identity${parameter:+, parked}" &&
		says done rust_udma "$alone" claim 1 && shown "$alone" blocked &&
		domain=$(answer_of domain "$(ask rust_udma "$alone" domain-new)") &&
		says done rust_udma "$alone" domain-map "$domain" $IOVA "$own" rw &&
		says done rust_udma "$alone" attach "$domain" && shown "$alone" "of its owner" &&
		says ok rust_udma "$alone" dma write $IOVA && says match rust_udma "$alone" check "$own" $PATTERN &&
		says done rust_udma "$alone" release && leave "$alone" && idle "$alone"
}

# Nobody binds what comes back: there is no override.
plug_again()
{
	races device "$1" remove && races device "$1" rescan && wait_for 10 test -e "/sys/bus/pci/devices/$1"
}

hot_added()
{
	plug_again "$alone" && set_type "$alone" identity && idle "$alone" &&
		races device "$b" override && plug_again "$b" && idle "$a" "$b" &&
		take rust_kdma "$a" && plug_again "$b" && shown "$b" identity && written "$b" && works_bound "$a" &&
		leave "$a" && idle "$a" "$b"
}

# The devices behind the bridge share an entry. One is unplugged, and it is decided that its entry is blocked, as the
# other one is still parked. Before the unit knows, a driver comes to that one. Whoever is first, its entry must
# not be left blocked.
# It sleeps within the module, and not at a gate.
waits()
{
	grep -q "^State:.D" "/proc/$background/status" && cat "/proc/$background/stack" >/tmp/stack &&
		grep -q '\[rust_' /tmp/stack && ! grep -q gates /tmp/stack
}

has_ended_or_waits()
{
	! running || waits 2>/dev/null
}

# overtaken KIND REMOVED BOUND: members are unparked in the order in which they came to the group.
overtaken()
{
	races device "$3" override rust_kdma && races inject gate unpark "$3" || return 1
	background bind rust_kdma "$3"
	races inject wait unpark "$3" 20 && races inject gate attach.decided || return 1
	races device "$2" remove &
	remover=$!
	races inject wait attach.decided 20 && races inject open unpark "$3" && wait_for 20 has_ended_or_waits &&
		races inject open attach.decided && wait $remover && finished &&
		shown "$3" "$1" && works_bound "$3" || return 1
	races device "$2" rescan && wait_for 10 test -e "/sys/bus/pci/devices/$2" && leave "$3" && idle "$2" "$3"
}

# After the first time, the one that was removed is the last to be unparked.
overtaken_both()
{
	kind=$1
	set_type "$a" "$2" && overtaken "$1" "$a" "$b" && overtaken "$1" "$b" "$a"
	overtaken_status=$?
	kind=
	return $overtaken_status
}

back_again()
{
	for device in $alone $a $b; do
		take rust_kdma "$device" && works_bound "$device" || return 1
	done
	leave "$alone" "$a" "$b" && idle "$alone" "$a" "$b"
}

no_leftovers()
{
	leave "$edu" && ! dmesg | grep -q ' left 0x' && rmmod rust_testowner && leak_scan
}

ktap_test_result "Y9 load" load
ktap_test_result "Y9 without a driver: $unbound" without_a_driver
ktap_test_result "Y9 with a driver: reached" with_a_driver
ktap_test_result "Y9 the same with translation" translated
ktap_test_result "Y9 after a probe that failed: $unbound" failed_probe
ktap_test_result "Y9 a group is parked when its last driver goes" until_the_last_one_goes
ktap_test_result "Y9 a claim and what it attaches" claimed
ktap_test_result "Y9 hot-added devices are as their group" hot_added
if [ $unbound = parked ]; then
	ktap_test_result "Y9 unparked while another device of the group goes" overtaken_both default DMA
	ktap_test_result "Y9 the same without translation" overtaken_both identity identity
else
	ktap_test_skip "Y9 unparked while another device of the group goes: nothing is parked"
	ktap_test_skip "Y9 the same without translation: nothing is parked"
fi
ktap_test_result "Y9 bound again, and $unbound again" back_again
ktap_test_result "Y9 nothing is left" no_leftovers
ktap_finished
