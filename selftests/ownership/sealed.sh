#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Row C9: no device of another group comes to a domain that a sealed device is on, whichever of them is there
# first, and whoever owns them. The devices of one group share theirs as before.
#
# options: --policy strict --nvme 0 --device iommu-testdev --device pcie-root-port,id=e0,chassis=1,slot=1 --device iommu-testdev,bus=e0,addr=0.0,multifunction=on --device iommu-testdev,bus=e0,addr=0.1,multifunction=on
# variant vtd:
# variant amd: --iommu amd
# variant virtio: --iommu virtio
# extra: amd vtd/debug virtio/debug
# timeout: 60

. /selftests/lib.sh

IOVA=0x40000000

load()
{
	load_iommu && insmod /modules/rust_testowner.ko || return 1
	# shellcheck disable=SC2046 # One word each.
	set -- $(pci_devices 1b36:0005)
	alone=$1 a=$2 b=$3
	unit=/sys/class/iommu/${UNIT_NAME}0/rust_iommu
	expect group "$(group_of "$a")" "$(group_of "$b")" && [ "$(group_of "$a")" != "$(group_of "$alone")" ] &&
		for device in $alone $a $b; do take rust_udma "$device" || return 1; done
}

# seal PCI-ADDRESS VALUE: prints the reason where it fails
seal()
{
	( echo "$2" >"/sys/bus/pci/devices/$1/rust_iommu/sealed" ) 2>&1
}

# sealed_is VALUE PCI-ADDRESS...
sealed_is()
{
	sealed_wanted=$1
	shift
	for sealed_device; do
		expect "sealed of $sealed_device" "$sealed_wanted" \
			"$(cat "/sys/bus/pci/devices/$sealed_device/rust_iommu/sealed")" || return 1
	done
}

# refused ERROR TEXT PCI-ADDRESS VALUE: with one line in the log that has the text
refused()
{
	mark_log
	seal "$3" "$4" | grep -q "$1" && expect "lines" 1 "$(log_since_mark | grep -c "$3: .*$2")" &&
		expect "other lines" 1 "$(log_since_mark | grep -vc '^Command line')"
}

bad_input()
{
	for value in 2 -1 01 yes; do
		refused "Invalid argument" "sealed must be 0 or 1" "$a" $value || return 1
	done
	sealed_is 0 "$a" "$b" "$alone"
}

# own_page DEVICE KEY: claims, and attaches a domain with one page; sets $page and $domain
own_page()
{
	says done rust_udma "$1" claim "$2" && page=$(answer_of handle "$(ask rust_udma "$1" page)") &&
		domain=$(answer_of domain "$(ask rust_udma "$1" domain-new)") &&
		says done rust_udma "$1" domain-map "$domain" $IOVA "$page" rw &&
		says done rust_udma "$1" attach "$domain"
}

reaches()
{
	says ok rust_udma "$1" dma write $IOVA 4
}

fails()
{
	says tx_fail rust_udma "$1" dma write $IOVA 4
}

a_group_shares_its_domain()
{
	seal "$b" 1 && sealed_is 1 "$a" "$b" && sealed_is 0 "$alone" && own_page "$a" 1 &&
		says done rust_udma "$b" claim 1 && reaches "$a" && reaches "$b"
}

another_group_is_refused()
{
	says done rust_udma "$alone" claim 2 && says "error EBUSY" rust_udma "$alone" attach "$domain" &&
		fails "$alone" && reaches "$a" && reaches "$b"
}

# What is sealed goes to no domain with others either.
a_sealed_group_comes_to_no_other()
{
	says done rust_udma "$alone" release && says done rust_udma "$a" detach && own_page "$alone" 2 &&
		reaches "$alone" && says "error EBUSY" rust_udma "$a" attach "$domain" && fails "$a" && fails "$b" &&
		reaches "$alone"
}

unsealed_they_share()
{
	seal "$a" 0 && sealed_is 0 "$a" "$b" && says done rust_udma "$a" attach "$domain" && reaches "$a" &&
		reaches "$b" && reaches "$alone"
}

no_seal_while_others_are_there()
{
	for device in "$a" "$alone"; do
		refused "resource busy" "not sealed: devices of other groups" "$device" 1 || return 1
	done
	sealed_is 0 "$a" "$b" "$alone" && reaches "$a" && reaches "$alone" &&
		says done rust_udma "$alone" detach && seal "$a" 1 &&
		says "error EBUSY" rust_udma "$alone" attach "$domain" && says done rust_udma "$a" detach &&
		says done rust_udma "$alone" attach "$domain" && reaches "$alone"
}

# A device that comes to the group.
newcomers_are_sealed()
{
	leave "$a" "$b" "$alone" && echo 1 >"/sys/bus/pci/devices/$b/remove" && sealed_is 1 "$a" &&
		echo 1 >/sys/bus/pci/rescan && wait_for 10 [ -e "/sys/bus/pci/devices/$b/rust_iommu" ] &&
		expect "its group" "$(group_of "$a")" "$(group_of "$b")" && sealed_is 1 "$b" &&
		seal "$b" 0 && sealed_is 0 "$a" "$b"
}

with_vfio()
{
	case $KERNEL in
	debug) modprobe iommufd allow_unsafe_interrupts=1 || return 1 ;;
	*) modprobe vfio_iommu_type1 allow_unsafe_interrupts=1 || return 1 ;;
	esac
	modprobe vfio-pci disable_idle_d3=1 && for device in $a $b $alone; do take vfio-pci "$device" || return 1; done
}

# domains_of_a_container: how many domains a container with both groups has: what is mapped in it is in each
domains_of_a_container()
{
	before=$(cat "$unit/mapped_bytes")
	rm -f /tmp/hold
	mkfifo /tmp/hold
	races memlock --bytes 65536 --hold "$(group_of "$a")" "$(group_of "$alone")" </tmp/hold >/tmp/holding 2>&1 &
	holder=$!
	exec 4>/tmp/hold
	wait_for 20 grep -q mapped /tmp/holding || cat /tmp/holding
	echo $((($(cat "$unit/mapped_bytes") - before) / 65536))
	exec 4>&-
	wait $holder
}

# What is mapped of the default domains is not while somebody else has the groups; 0 here.
vfio_takes_another_domain()
{
	expect "domains of a container" 1 "$(domains_of_a_container)" && seal "$a" 1 &&
		expect "with a sealed group" 2 "$(domains_of_a_container)" && seal "$a" 0 && seal "$alone" 1 &&
		expect "with the other sealed" 2 "$(domains_of_a_container)" && seal "$alone" 0 &&
		expect "with none" 1 "$(domains_of_a_container)"
}

type1_has_no_seal()
{
	races confine enable "$(group_of "$alone")"
}

# shares FIRST SECOND: what becomes of the second
shares()
{
	races confine share "$1" "$2"
}

iommufd_is_refused()
{
	expect "two devices" shared "$(shares "$a" "$alone")" && seal "$a" 1 &&
		expect "the first is sealed" EBUSY "$(shares "$a" "$alone")" &&
		expect "the second is sealed" EBUSY "$(shares "$alone" "$a")" &&
		expect "two of one group" shared "$(shares "$a" "$b")" && seal "$a" 0 &&
		expect "two devices" shared "$(shares "$a" "$alone")"
}

nothing_is_left()
{
	leave "$a" "$b" "$alone" && rmmod rust_testowner && echo 1 >/sys/module/$DRIVER/parameters/shutdown &&
		rmmod $DRIVER && rmmod rust_iommu && leak_scan
}

ktap_print_header
ktap_set_plan 11
ktap_test_result "load" load
ktap_test_result "C9 bad input: one line, nothing changed" bad_input
ktap_test_result "C9 the devices of a group share its domain" a_group_shares_its_domain
ktap_test_result "C9 a device of another group: EBUSY" another_group_is_refused
ktap_test_result "C9 a sealed device to the domain of another: EBUSY" a_sealed_group_comes_to_no_other
ktap_test_result "C9 without the seal they share" unsealed_they_share
ktap_test_result "C9 no seal while they do: EBUSY" no_seal_while_others_are_there
ktap_test_result "C9 a device that joins the group" newcomers_are_sealed
with_vfio
case $KERNEL in
debug)
	ktap_test_result "C9 iommufd: EBUSY" iommufd_is_refused
	ktap_test_skip "C9 a container has no seal: this kernel is without type1"
	;;
*)
	ktap_test_result "C9 VFIO: a domain for each group of a container" vfio_takes_another_domain
	ktap_test_result "C9 a container has no seal: ENOTTY" type1_has_no_seal
	;;
esac
ktap_test_result "nothing is left" nothing_is_left
ktap_finished
