#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Row C10: an aperture narrows what can be mapped for a device: by VFIO or iommufd, by a driver that owns it, and
# by the DMA API under each policy. Nothing outside is reached.
#
# options: --policy strict --nvme 0 --device iommu-testdev --device pcie-root-port,id=e0,chassis=1,slot=1 --device iommu-testdev,bus=e0,addr=0.0,multifunction=on --device iommu-testdev,bus=e0,addr=0.1,multifunction=on
# variant vtd:
# variant amd: --iommu amd
# variant virtio: --iommu virtio
# extra: amd vtd/debug virtio/debug
# timeout: 60

. /selftests/lib.sh

# What the tests narrow to: where there are no reserved regions, and where races memlock maps.
FIRST=0x0000000000100000
LAST=0x0000000007ffffff

load()
{
	load_iommu && insmod /modules/rust_testowner.ko && insmod /modules/rust_testdev.ko || return 1
	# shellcheck disable=SC2046 # One word each.
	set -- $(pci_devices 1b36:0005)
	alone=$1 a=$2 b=$3
	leave "$alone" "$a" "$b"
	expect group "$(group_of "$a")" "$(group_of "$b")" && all=$(aperture "$alone") &&
		expect "the other group" "$all" "$(aperture "$a")"
}

aperture()
{
	cat "/sys/bus/pci/devices/$1/rust_iommu/aperture"
}

# narrow PCI-ADDRESS TEXT: prints the reason where it fails
narrow()
{
	( echo "$2" >"/sys/bus/pci/devices/$1/rust_iommu/aperture" ) 2>&1
}

# narrowed PCI-ADDRESS TEXT: and see that it is shown
narrowed()
{
	narrow "$1" "$2" && expect "aperture of $1" "$2" "$(aperture "$1")"
}

# refused ERROR TEXT PCI-ADDRESS APERTURE: with one line in the log that has the text, and nothing changed
refused()
{
	refused_before=$(aperture "$3") refused_policy=$(policy_of "$3")
	mark_log
	narrow "$3" "$4" >/tmp/refused
	grep -q "$1" /tmp/refused || { ktap_print_msg "'$4': $(cat /tmp/refused)" && return 1; }
	expect "lines for '$4'" 1 "$(log_since_mark | grep -c "$3: .*$2")" &&
		expect "all lines for '$4'" 1 "$(log_since_mark | wc -l)" &&
		expect aperture "$refused_before" "$(aperture "$3")" && expect policy "$refused_policy" "$(policy_of "$3")"
}

bad_input()
{
	refused "Invalid argument" "must be all, or a first and a last" "$alone" "$FIRST" &&
		refused "Invalid argument" "ends before it begins" "$alone" "$LAST $FIRST" &&
		refused "Invalid argument" "pages of 0x1000 bytes" "$alone" "$FIRST 0x8000000" &&
		refused "Invalid argument" "$(printf 'must be within 0x%x-0x%x' "${all% *}" "${all#* }")" "$alone" \
			"0x0 0xffffffffffffffff"
}

# uses_aperture: the DMA API maps within it, and nothing else is reached
uses_aperture()
{
	bind rust_testdev "$alone" || return 1
	for pages in 1 16; do
		answer=$(oracle "$alone" map both $pages) && iova=$(($(answer_of iova "$answer"))) || return 1
		[ $iova -ge $((FIRST)) ] && [ $((iova + pages * 4096 - 1)) -le $((LAST)) ] ||
			{ ktap_print_msg "$answer" && return 1; }
		expect "a write to $answer" ok "$(oracle "$alone" dma write $iova)" &&
			oracle "$alone" unmap "$(answer_of handle "$answer")" >/dev/null || return 1
	done
	[ -z "$(window_of "$alone" pages,)" ] || ktap_print_msg "window of $(window_of "$alone" pages,) pages"
	expect "before it" tx_fail "$(oracle "$alone" dma write $((FIRST - 4096)) 4)" &&
		expect "after it" tx_fail "$(oracle "$alone" dma write $((LAST + 1)) 4)" && unbind "$alone"
}

# The policy is set before it, and changed after it; in the end its group is of the type that it was.
dma_api()
{
	take rust_testdev "$alone" && unbind "$alone" || return 1
	for policy in fq lazy fq-single strict; do
		set_policy "$alone" $policy && kind=$(type_of "$alone") && narrowed "$alone" "$FIRST $LAST" &&
			expect "type under $policy" "$kind" "$(type_of "$alone")" &&
			expect "policy" $policy "$(policy_of "$alone")" && uses_aperture || return 1
		if [ $policy = fq ]; then
			for other in lazy strict fq; do
				set_policy "$alone" $other && uses_aperture || return 1
			done
		fi
		narrow "$alone" all && expect "all" "$all" "$(aperture "$alone")" &&
			expect "type after $policy" "$kind" "$(type_of "$alone")" || return 1
	done
}

# Where all of it would be the window, there is none; a unit that keeps no table has none anyway.
too_small_for_a_window()
{
	set_policy "$alone" lazy && narrowed "$alone" "$FIRST 0x00000000003fffff" && mark_log &&
		bind rust_testdev "$alone" && answer=$(oracle "$alone" map both) &&
		expect "a write" ok "$(oracle "$alone" dma write "$(answer_of iova "$answer")")" || return 1
	case $UNIT_NAME in
	viommu) expect policy lazy "$(policy_of "$alone")" || return 1 ;;
	*)
		expect policy strict "$(policy_of "$alone")" && expect lines 1 \
			"$(log_since_mark | grep -c "$alone: its policy is that of its group")" || return 1
		;;
	esac
	unbind "$alone" && set_policy "$alone" strict && narrow "$alone" all
}

# Devices that are not translated have none.
identity_is_refused()
{
	set_policy "$alone" identity && refused "not permitted" "policy identity has no aperture" "$alone" "$FIRST $LAST" &&
		set_policy "$alone" strict && narrowed "$alone" "$FIRST $LAST" || return 1
	mark_log
	( echo identity >"/sys/bus/pci/devices/$alone/rust_iommu/policy" ) 2>&1 | grep -q "not permitted" &&
		expect lines 1 "$(log_since_mark | grep -c "$alone: policy identity is not for a device with an aperture")" &&
		set_type "$alone" identity | grep -q "Invalid argument" && expect type DMA "$(type_of "$alone")" &&
		narrow "$alone" all && set_policy "$alone" identity && set_policy "$alone" strict
}

busy_while_used()
{
	take rust_testdev "$alone" &&
		refused "resource busy" "only while nobody uses or owns" "$alone" "$FIRST $LAST" && unbind "$alone" &&
		take rust_udma "$alone" && says done rust_udma "$alone" claim 1 &&
		refused "resource busy" "only while nobody uses or owns" "$alone" "$FIRST $LAST" &&
		old=$(answer_of domain "$(ask rust_udma "$alone" domain-new)") && says done rust_udma "$alone" attach "$old" &&
		refused "resource busy" "only while nobody uses or owns" "$alone" "$FIRST $LAST" &&
		says done rust_udma "$alone" release
}

# A domain that is wider does not fit; one that is narrower does.
domains_of_a_driver()
{
	narrowed "$alone" "$FIRST $LAST" && says done rust_udma "$alone" claim 1 &&
		says "error EINVAL" rust_udma "$alone" attach "$old" &&
		new=$(answer_of domain "$(ask rust_udma "$alone" domain-new)") &&
		page=$(answer_of handle "$(ask rust_udma "$alone" page)") &&
		says "error EINVAL" rust_udma "$alone" domain-map "$new" $((FIRST - 4096)) "$page" rw &&
		says "error EINVAL" rust_udma "$alone" domain-map "$new" $((LAST + 1)) "$page" rw &&
		says done rust_udma "$alone" domain-map "$new" $((LAST - 4095)) "$page" rw &&
		says done rust_udma "$alone" attach "$new" && says ok rust_udma "$alone" dma write $((LAST - 4095)) 4 &&
		says tx_fail rust_udma "$alone" dma write $((LAST + 1)) 4 && take rust_udma "$a" &&
		says done rust_udma "$a" claim 2 && says done rust_udma "$a" attach "$new" &&
		says ok rust_udma "$a" dma write $((LAST - 4095)) 4 && leave "$a" "$alone"
}

# What is said of one device holds for its group, and for a device that joins it.
groups()
{
	narrowed "$a" "$FIRST $LAST" && expect "of the other" "$FIRST $LAST" "$(aperture "$b")" &&
		echo 1 >"/sys/bus/pci/devices/$b/remove" && echo 1 >/sys/bus/pci/rescan &&
		wait_for 10 [ -e "/sys/bus/pci/devices/$b/rust_iommu" ] &&
		expect "its group" "$(group_of "$a")" "$(group_of "$b")" && expect "of it" "$FIRST $LAST" "$(aperture "$b")"
}

with_vfio()
{
	case $KERNEL in
	debug) modprobe iommufd allow_unsafe_interrupts=1 || return 1 ;;
	*) modprobe vfio_iommu_type1 allow_unsafe_interrupts=1 || return 1 ;;
	esac
	leave "$alone" "$a" "$b"
	modprobe vfio-pci disable_idle_d3=1 && for device in $a $b $alone; do take vfio-pci "$device" || return 1; done
}

users()
{
	case $KERNEL in
	debug) set -- --iommufd ;;
	*) set -- ;;
	esac
	mark_log
	with_vfio && narrowed "$alone" "$FIRST $LAST" &&
		races confine aperture "$@" "$alone" $FIRST $LAST && races confine aperture "$@" "$b" $FIRST $LAST
}

# Of those that were to be, on the devices that were asked.
only_wanted_faults()
{
	for device in $a $b $alone; do
		for iova in $((FIRST - 4096)) $((FIRST)) $((LAST - 4095)) $((LAST + 1)); do
			reported "$device" write "$(printf '0x%x' $iova)"
		done
	done >/tmp/wanted
	faults >/tmp/faults
	[ -s /tmp/faults ] && expect "other faults" "" "$(grep -v -x -F -f /tmp/wanted /tmp/faults)"
}

# What programs show is what VFIO allows, and the other group's is not narrowed.
shown()
{
	narrow "$a" all || return 1
	for device in "$alone" "$a"; do
		ranges=$(races memlock --ranges "$(group_of "$device")" | head -n 1)
		ktap_print_msg "$device: $ranges"
		iommu-info list | sed -n "/^group $(group_of "$device"):/,/^group/s/^  window //p" >/tmp/window
		[ -n "$ranges" ] && expect window "$ranges" "$(head -n 1 /tmp/window)" || return 1
	done
	both="$(races memlock --ranges "$(group_of "$alone")" "$(group_of "$a")" | head -n 1)"
	expect "of both" "$(printf '0x%x-0x%x' $FIRST $LAST)" "$both" &&
		iommu-info memlock "$(group_of "$alone")" "$(group_of "$a")" | grep -qxF "  window of all together: $both" &&
		narrow "$alone" all && expect "the end" "$all" "$(aperture "$alone")"
}

nothing_is_left()
{
	leave "$a" "$b" "$alone" && rmmod rust_testowner && rmmod rust_testdev &&
		echo 1 >/sys/module/$DRIVER/parameters/shutdown && rmmod $DRIVER && rmmod rust_iommu && leak_scan
}

ktap_print_header
ktap_set_plan 12
ktap_test_result "load" load
ktap_test_result "C10 bad input: one line, nothing changed" bad_input
ktap_test_result "C10 the DMA API, under each policy" dma_api
ktap_test_result "C10 a range that is too small for a window" too_small_for_a_window
ktap_test_result "C10 not under the policy identity: EPERM" identity_is_refused
ktap_test_result "C10 not while somebody uses or owns the group: EBUSY" busy_while_used
ktap_test_result "C10 domains of a driver: EINVAL outside" domains_of_a_driver
ktap_test_result "C10 groups" groups
ktap_test_result "C10 a user's map outside: EINVAL at the ioctl, and nothing is reached" users
ktap_test_result "C10 the faults are reported" only_wanted_faults
if [ "$KERNEL" = debug ]; then
	ktap_test_skip "C10 what is shown is what VFIO allows: compared with type1, which this kernel is without"
else
	ktap_test_result "C10 what is shown is what VFIO allows" shown
fi
ktap_test_result "nothing is left" nothing_is_left
ktap_finished
