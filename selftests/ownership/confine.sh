#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Rows C9 and C10, at the moments that matter: a seal and an aperture hold while devices are reset, come to domains,
# come and go, and while policies and types of groups are changed.
#
# options: --policy strict --nvme 0 --device iommu-testdev --device iommu-testdev --device pcie-root-port,id=e0,chassis=1,slot=1 --device iommu-testdev,bus=e0,addr=0.0,multifunction=on --device iommu-testdev,bus=e0,addr=0.1,multifunction=on --device pcie-root-port,id=e1,chassis=2,slot=2 --device virtio-net-pci,bus=e1,ats=on
# variant vtd:
# variant amd: --iommu amd
# variant virtio: --iommu virtio
# extra: amd vtd/debug virtio/debug
# modules: inject
# timeout: 120

. /selftests/lib.sh

FIRST=0x0000000000100000
LAST=0x0000000007ffffff
# The debug kernel is ten times slower.
case $KERNEL in
debug) ROUNDS=${ROUNDS:-40} ;;
*) ROUNDS=${ROUNDS:-300} ;;
esac

load()
{
	# shellcheck disable=SC2046 # One word each.
	set -- $(pci_devices 1b36:0005)
	alone=$1 other=$2 a=$3 b=$4
	ats=$(pci_devices 1af4:1041)
	# Virtio's driver is built in, and a device that has a driver is left alone.
	leave "$ats" && load_iommu && insmod /modules/rust_testowner.ko && insmod /modules/rust_testdev.ko &&
		leave "$alone" "$other" "$a" "$b" || return 1
	expect group "$(group_of "$a")" "$(group_of "$b")" && all=$(aperture "$other") && [ -e "/sys/bus/pci/devices/$ats/rust_iommu" ]
}

aperture()
{
	cat "/sys/bus/pci/devices/$1/rust_iommu/aperture"
}

# set_it PCI-ADDRESS ATTRIBUTE VALUE: prints the reason where it fails
set_it()
{
	( echo "$3" >"/sys/bus/pci/devices/$1/rust_iommu/$2" ) 2>&1
}

# uses_aperture: the DMA API maps within it, or not, as the argument says
uses_aperture()
{
	take rust_testdev "$other" && answer=$(oracle "$other" map both) && iova=$(($(answer_of iova "$answer"))) &&
		unbind "$other" || return 1
	[ $iova -ge $((FIRST)) ] && [ $iova -le $((LAST)) ]
	expect "$(printf '0x%x' $iova) in the aperture" "$1" $?
}

# All of it narrows nothing, so that the policy identity can be had.
all_is_none()
{
	set_it "$other" aperture "$all" && expect aperture "$all" "$(aperture "$other")" &&
		set_policy "$other" identity && set_policy "$other" strict
}

# Somebody changes the type of the group after it was read: the core has no reason to make a new domain.
type_changes_meanwhile()
{
	set_policy "$other" fq && races inject gate aperture.begin "$other" || return 1
	set_it "$other" aperture "$FIRST $LAST" >/tmp/narrow &
	races inject wait aperture.begin 20 && set_type "$other" DMA && races inject open aperture.begin && wait $!
	grep -q "resource busy" /tmp/narrow || { ktap_print_msg "narrowed: $(cat /tmp/narrow)" && return 1; }
	expect aperture "$all" "$(aperture "$other")" && uses_aperture 1 && set_policy "$other" strict &&
		set_it "$other" aperture "$FIRST $LAST" && expect aperture "$FIRST $LAST" "$(aperture "$other")" &&
		uses_aperture 0 && set_it "$other" aperture all && uses_aperture 1
}

# A strict group has a queue for a moment; when the second step fails it keeps that.
no_memory()
{
	set_policy "$other" strict && mark_log && races inject fail attach.prepare 12 1 "$other" || return 1
	set_it "$other" aperture "$FIRST $LAST" | grep -q "Out of memory\|Cannot allocate memory" &&
		expect aperture "$all" "$(aperture "$other")" && expect type DMA-FQ "$(type_of "$other")" &&
		expect lines 1 "$(log_since_mark | grep -c "$other: its group is queued now")" && races inject clear &&
		set_policy "$other" strict && uses_aperture 1
}

# While what one's driver had is being freed the group's type stays, whatever the other one needs.
type_stays_for_a_driver()
{
	set_it "$a" aperture "$FIRST $LAST" && take rust_kdma "$a" && races inject gate kdma.devres "$a" && mark_log || return 1
	races device "$a" unbind &
	holder=$!
	races inject wait kdma.devres 20 || return 1
	for type in identity DMA auto; do
		set_type "$a" $type | grep -q 'Invalid argument' || { ktap_print_msg "$type is not refused" && return 1; }
	done
	races inject open kdma.devres && wait "$holder"
	expect "answers that differ" 0 "$(log_since_mark | grep -c 'conflicting def_domain_type')" &&
		expect aperture "$FIRST $LAST" "$(aperture "$b")" && set_it "$b" aperture all
}

race()
{
	# What is found again has no driver, which would use its group.
	echo 0 >/sys/bus/pci/drivers_autoprobe
	for device in $a $alone; do take rust_udma "$device" || return 1; done
	races confine race --rounds $ROUNDS "$a" "$alone" "$b" "$other"
	raced=$?
	leave "$a" "$alone" "$other" && [ $raced = 0 ] && uses_aperture 1 && set_policy "$other" strict && set_policy "$a" strict
}

with_vfio()
{
	case $KERNEL in
	debug) modprobe iommufd allow_unsafe_interrupts=1 && iommufd=--iommufd || return 1 ;;
	*) modprobe vfio_iommu_type1 allow_unsafe_interrupts=1 && iommufd= || return 1 ;;
	esac
	# With a VIOT virtio's driver has waited for the IOMMU, and come after that.
	leave "$ats"
	modprobe vfio-pci disable_idle_d3=1 && for device in $ats $alone; do take vfio-pci "$device" || return 1; done
}

# during_reset: what becomes of a device that comes to the other one's domain while that is reset
during_reset()
{
	# shellcheck disable=SC2086 # A word or none.
	races confine reset $iommufd "$ats" "$alone"
}

reset()
{
	with_vfio && expect "without a seal" shared "$(during_reset)" && set_it "$ats" sealed 1 &&
		expect "it is sealed" alone "$(during_reset)" && set_it "$ats" sealed 0
}

nothing_is_left()
{
	leave "$alone" "$ats" && rmmod rust_testowner && rmmod rust_testdev &&
		echo 1 >/sys/module/$DRIVER/parameters/shutdown && rmmod $DRIVER && rmmod rust_iommu && leak_scan
}

ktap_print_header
ktap_set_plan 8
ktap_test_result "load" load
ktap_test_result "C10 a range of all addresses is none" all_is_none
ktap_test_result "C10 the group's type is changed meanwhile: EBUSY, or the domain is a new one" type_changes_meanwhile
ktap_test_result "C10 no memory for the new domain: as before, but for a queue" no_memory
ktap_test_result "C10 a driver's memory is being freed: the type stays" type_stays_for_a_driver
ktap_test_result "C9 C10 $ROUNDS rounds of attaches, seals, apertures, policies and hot-unplug" race
ktap_test_result "C9 who comes to the domain of a device that is reset" reset
ktap_test_result "nothing is left" nothing_is_left
ktap_finished
