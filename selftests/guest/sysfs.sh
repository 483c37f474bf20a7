#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# The attributes of devices and units in sysfs: that they are those of Documentation/ABI, that they say
# what is true, whatever the policy, and that they go while somebody reads.
#
# options: --copy Documentation/ABI:/ABI --policy strict --nvme 0 --device iommu-testdev --device edu,dma_mask=0xffffffffffffffff --device pcie-root-port,id=e0,chassis=1,slot=1 --device iommu-testdev,bus=e0,addr=0.0,multifunction=on --device iommu-testdev,bus=e0,addr=0.1
# variant vtd:
# variant caching-mode on stock: --iommu-opt caching-mode=on
# variant amd on stock: --iommu amd
# variant virtio: --iommu virtio
# extra: caching-mode virtio/debug
# timeout: 120

. /selftests/lib.sh

DOCUMENTS=/ABI/testing

load()
{
	load_iommu && insmod /modules/rust_testdev.ko && insmod /modules/rust_bench.ko || return 1
	# shellcheck disable=SC2046 # One word each.
	set -- $(pci_devices 1b36:0005)
	[ $# = 3 ] && device=$1 e0=$2 e1=$3 && edu=$(pci_devices 1234:11e8) &&
		unbind "$edu" && take rust_bench "$edu" &&
		unit=/sys/class/iommu/${UNIT_NAME}0/rust_iommu
}

# dir_of PCI-ADDRESS, get PCI-ADDRESS NAME
dir_of()
{
	echo "/sys/bus/pci/devices/$1/rust_iommu"
}

get()
{
	cat "$(dir_of "$1")/$2"
}

# documented FILE: the names that a document has
documented()
{
	sed -n 's,^What:.*/rust_iommu/\(.\),\1,p' "$DOCUMENTS/$1" | sort
}

# Both directions, for all that there are; and nothing of ours in a group's directory.
files_are_those_of_the_document()
{
	[ "$(documented sysfs-bus-pci-devices-rust_iommu | wc -l)" -ge 9 ] || return 1
	for dir in /sys/bus/pci/devices/*/iommu_group; do
		dir=${dir%iommu_group}rust_iommu
		expect "$dir" "$(documented sysfs-bus-pci-devices-rust_iommu)" "$(ls "$dir" | sort)" || return 1
	done
	expect "$unit" "$(documented sysfs-class-iommu-rust_iommu)" "$(ls "$unit" | sort)" || return 1
	for group in /sys/kernel/iommu_groups/*; do
		expect "$group" "devices reserved_regions type" "$(ls "$group" | sort | paste -sd' ')" || return 1
	done
}

# Every file can be read; those that the document calls writable can be written, others not.
modes_are_those_of_the_document()
{
	for file in "$(dir_of "$device")"/* "$unit"/*; do
		cat "$file" >/tmp/value || return 1
		case ${file##*/} in
		merged_by) ;;
		*) [ -s /tmp/value ] || { ktap_print_msg "$file is empty" && return 1; } ;;
		esac
		case ${file##*/} in
		policy | max_age_ms | sealed | aperture) mode=644 ;;
		mappings | mapped_bytes) mode=400 ;;
		*) mode=444 ;;
		esac
		expect "mode of $file" $mode "$(stat -c %a "$file")" || return 1
	done
	# Also with another mode there is nothing to write.
	chmod 600 "$(dir_of "$device")/mappings" || return 1
	if echo 1 2>/dev/null >"$(dir_of "$device")/mappings"; then
		ktap_print_msg "mappings was written"
		return 1
	fi
	chmod 400 "$(dir_of "$device")/mappings"
}

# What the kernel says of the group, where that has one device.
constants()
{
	ktap_print_msg "aperture $(get "$device" aperture), page sizes $(get "$device" page_sizes)"
	expect "reserved regions" "$(cat "/sys/bus/pci/devices/$device/iommu_group/reserved_regions")" \
		"$(get "$device" reserved_regions)" || return 1
	case $VARIANT in
	virtio) last=0x0000007fffffffff ;;
	*) last=0x0000ffffffffffff ;;
	esac
	expect aperture "0x0000000000000000 $last" "$(get "$device" aperture)" &&
		[ $(($(get "$device" page_sizes) & 4096)) = 4096 ] && expect domain default "$(get "$device" domain)" &&
		expect "what merged it" "" "$(get "$device" merged_by)" &&
		expect "what merged the other" "$e0 function
$e1 function" "$(get "$e0" merged_by)" && expect "as it says itself" "$(get "$e0" merged_by)" "$(get "$e1" merged_by)"
}

# mapped_is PCI-ADDRESS BYTES
mapped_is()
{
	[ "$(get "$1" mapped_bytes)" = "$2" ]
}

# expect_mapped WHAT MAPPINGS BYTES: of the device
expect_mapped()
{
	# A unit without a table is told each in one.
	[ $UNIT_NAME = viommu ] || set -- "$1" "$3" "$3"
	expect "bytes $1" $((base + $3 * 4096)) "$(get "$device" mapped_bytes)" &&
		expect "mappings $1" $((entries + $2)) "$(get "$device" mappings)"
}

# Under each policy, and after each change of it while memory is mapped.
mapped_is_what_is_mapped()
{
	base=$(get "$device" mapped_bytes) && entries=$(get "$device" mappings) || return 1
	case $KERNEL in
	# It checks the DMA API: policies that need operations of ours are for devices without a driver.
	debug) policies=fq ;;
	*) policies="fq lazy strict lazy fq strict" ;;
	esac
	for policy in $policies; do
		one=$(oracle "$device" map both 3) && two=$(oracle "$device" map to 8) && expect_mapped "before $policy" 2 11 &&
			set_policy "$device" $policy && expect_mapped "under $policy" 2 11 &&
			three=$(oracle "$device" map both 1) && expect_mapped "with one more" 3 12 || return 1
		for answer in "$one" "$two" "$three"; do
			oracle "$device" unmap "$(answer_of handle "$answer")" >/dev/null || return 1
		done
		# Under lazy some may be kept, and are in the device's reach for a second.
		wait_for 10 mapped_is "$device" $base && expect_mapped "at the end of $policy" 0 0 || return 1
	done
	expect "policy at the end" $policy "$(policy_of "$device")"
}

# Each domain once.
unit_has_the_sum()
{
	answer=$(oracle "$e1" map both 5) || return 1
	sum=0
	for group in /sys/kernel/iommu_groups/*; do
		first=$(ls "$group/devices" | head -n 1)
		sum=$((sum + $(get "$first" mapped_bytes)))
	done
	expect "of the same group" "$(get "$e0" mapped_bytes)" "$(get "$e1" mapped_bytes)" &&
		expect "all groups" $sum "$(cat "$unit/mapped_bytes")" && [ $sum -ge 20480 ] &&
		oracle "$e1" unmap "$(answer_of handle "$answer")" >/dev/null &&
		expect "without it" $((sum - 20480)) "$(cat "$unit/mapped_bytes")"
}

# invalidations_are_those_of PCI-ADDRESS OTHER [SIBLING]: it maps and unmaps, which counts for the unit, for itself
# and for a sibling on its domain, but not for a device on another one.
invalidations_are_those_of()
{
	of_unit=$(cat "$unit/invalidations") && of_this=$(get "$1" invalidations) && of_other=$(get "$2" invalidations) &&
		of_sibling=$(get "${3:-$1}" invalidations) && answer=$(oracle "$1" map both) &&
		oracle "$1" unmap "$(answer_of handle "$answer")" >/dev/null || return 1
	more_invalidations()
	{
		[ "$(cat "$unit/invalidations")" -gt "$of_unit" ]
	}
	# At once, or from the core's queue.
	wait_for 5 more_invalidations || return 1
	of_unit=$(($(cat "$unit/invalidations") - of_unit))
	ktap_print_msg "invalidations: $of_unit"
	expect "of the device" $of_unit $(($(get "$1" invalidations) - of_this)) &&
		expect "of one elsewhere" "$of_other" "$(get "$2" invalidations)" &&
		expect "of a sibling" $of_unit $(($(get "${3:-$1}" invalidations) - of_sibling))
}

counters_count()
{
	faults=$(cat "$unit/faults") && of_device=$(get "$device" faults) &&
		of_others="$(get "$e0" faults) $(get "$edu" faults)" && invalidations_are_those_of "$device" "$e0" &&
		invalidations_are_those_of "$e1" "$device" "$e0" && expect write tx_fail "$(oracle "$device" dma write "$(answer_of iova "$answer")")" || return 1
	more_faults()
	{
		[ "$(cat "$unit/faults")" -gt "$faults" ]
	}
	of_this_one()
	{
		[ "$(get "$device" faults)" -gt "$of_device" ]
	}
	wait_for 5 more_faults && wait_for 5 of_this_one &&
		expect "faults of others" "$of_others" "$(get "$e0" faults) $(get "$edu" faults)" && expect timeouts 0 "$(cat "$unit/timeouts")"
}

# user COMMAND...: a program that maps 64 MB for the device, which takes many tables, and waits for the end
# of its input
user()
{
	rm -f /tmp/hold
	mkfifo /tmp/hold
	"$@" </tmp/hold >/tmp/holding 2>&1 &
	user=$!
	exec 4>/tmp/hold
	wait_for 20 grep -q mapped /tmp/holding && expect domain owner "$(get "$device" domain)" &&
		expect "mapped by a user" $size "$(get "$device" mapped_bytes)"
	user_status=$?
	ktap_print_msg "$(get "$device" mappings) mappings"
	[ $user_status = 0 ] || cat /tmp/holding
	exec 4>&-
	wait $user && return $user_status
}

# A change of the domain does not begin anew.
invalidations_count_on()
{
	before=$invalidations invalidations=$(get "$device" invalidations)
	ktap_print_msg "invalidations: $before, then $invalidations"
	[ "$before" -gt 0 ] && [ "$invalidations" -ge "$before" ]
}

# Of VFIO, or of iommufd on the kernel that has it.
a_users_mappings_count()
{
	size=67108864
	invalidations=$(get "$device" invalidations)
	[ ! -d /sys/kernel/mm/transparent_hugepage ] || echo never >/sys/kernel/mm/transparent_hugepage/enabled
	unbind "$device" && expect "domain without a driver" default "$(get "$device" domain)" || return 1
	case $KERNEL in
	debug)
		modprobe iommufd allow_unsafe_interrupts=1 && modprobe vfio-pci disable_idle_d3=1 &&
			take vfio-pci "$device" &&
			user races ioas-lock --layout shared --bytes $size --limit $size --hold "$device" || return 1
		;;
	*)
		modprobe vfio_iommu_type1 allow_unsafe_interrupts=1 && modprobe vfio-pci disable_idle_d3=1 &&
			take vfio-pci "$device" &&
			user races memlock --bytes $size --hold "$(group_of "$device")" || return 1
		;;
	esac
	unbind "$device" && expect "mapped without one" $base "$(get "$device" mapped_bytes)" &&
		invalidations_count_on && set_policy "$device" identity && expect domain identity "$(get "$device" domain)" &&
		expect "mapped in no table" 0 "$(get "$device" mapped_bytes)" && set_policy "$device" strict &&
		invalidations_count_on && take rust_testdev "$device"
}

# read_on FILE...: reads them until /tmp/reading is gone. What is read is a value, or an error.
read_on()
{
	while [ -e /tmp/reading ]; do
		cat "$@"
	done >/dev/null 2>&1
}

# A table comes and goes with each list, which takes 2 MB of addresses, while others are counted.
reads_while_tables_go()
{
	: >/tmp/reading
	read_on "$(dir_of "$edu")/mapped_bytes" "$unit/mappings" &
	reader=$!
	before=$(get "$edu" mapped_bytes)
	answer=$(ask rust_bench "$edu" run kind=scattered size=64k entries=32 depth=4 pairs=2000)
	rm -f /tmp/reading
	wait $reader
	ktap_print_msg "$answer"
	expect failures 0 "$(answer_of failed "$answer")" && expect "mapped after that" "$before" "$(get "$edu" mapped_bytes)"
}

# A file that is open when its device goes says so; and whoever reads while it goes comes back.
device_goes_while_somebody_reads()
{
	: >/tmp/reading
	read_on "$(dir_of "$e1")"/* &
	reader=$!
	exec 5<"$(dir_of "$e1")/mappings"
	echo 1 >"/sys/bus/pci/devices/$e1/remove"
	gone=$(cat <&5 2>&1)
	exec 5<&-
	for _ in 1 2 3; do
		echo 1 >/sys/bus/pci/rescan
		wait_for 10 [ -e "$(dir_of "$e1")" ] && echo 1 >"/sys/bus/pci/devices/$e1/remove" || return 1
	done
	rm -f /tmp/reading
	wait $reader
	echo "$gone" | grep -q "No such device" || { ktap_print_msg "an open file: $gone" && return 1; }
	# Nobody has merged what is one device.
	expect "what merged the rest" "" "$(get "$e0" merged_by)"
}

unit_goes_while_somebody_reads()
{
	unbind "$edu" && for left in "$device" "$e0"; do unbind "$left" || return 1; done
	: >/tmp/reading
	read_on "$unit"/* "$(dir_of "$device")"/* &
	reader=$!
	exec 5<"$unit/invalidations" 6<"$(dir_of "$device")/aperture"
	sleep 0.5
	# Whoever reads may hold a domain for a moment that its group has no more.
	wait_for 20 ends
	ended=$?
	gone=$(cat <&5 2>&1; cat <&6 2>&1)
	exec 5<&- 6<&-
	rm -f /tmp/reading
	wait $reader
	[ $ended = 0 ] && expect "open files" 2 "$(echo "$gone" | grep -c "No such device")" &&
		rmmod $DRIVER && [ ! -e "$unit" ] && [ ! -e "$(dir_of "$device")" ]
}

ends()
{
	echo 1 2>/dev/null >/sys/module/$DRIVER/parameters/shutdown
}

unloads()
{
	rmmod rust_testdev && rmmod rust_bench && rmmod rust_iommu
}

ktap_print_header
ktap_set_plan 12
ktap_test_result "load" load
ktap_test_result "C1 C3 the files are those of the document, and none is a group's" files_are_those_of_the_document
ktap_test_result "C3 modes" modes_are_those_of_the_document
ktap_test_result "C2 C5 what does not change" constants
ktap_test_result "C11 mapped is what is mapped, under each policy" mapped_is_what_is_mapped
ktap_test_result "C11 a unit has the sum" unit_has_the_sum
ktap_test_result "C11 counters" counters_count
ktap_test_result "C11 what a user of the group maps" a_users_mappings_count
ktap_test_result "C11 tables go while they are counted" reads_while_tables_go
ktap_test_result "C3 a device goes while somebody reads" device_goes_while_somebody_reads
ktap_test_result "C3 a unit goes while somebody reads" unit_goes_while_somebody_reads
ktap_test_result "unload" unloads
ktap_finished
