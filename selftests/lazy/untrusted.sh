#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# A device that is not trusted, and one that is, in one group: nobody is lazy, from the beginning or
# when the former joins.
#
# The ports are ioh3420, which have no ACS, so what is behind both is one group. An ACPI table says that the
# first one leads out of the machine.
#
# variant ours: --policy strict --nvme 0 --copy selftests/guest/ssdt/external-port.aml:kernel/firmware/acpi/port.aml --device ioh3420,id=b0,chassis=1,slot=1,addr=10.0,multifunction=on --device ioh3420,id=b1,chassis=2,slot=2,addr=10.1 --device iommu-testdev,bus=b0 --device iommu-testdev,bus=b1
# variant amd on stock: --iommu amd --policy strict --nvme 0 --copy selftests/guest/ssdt/external-port.aml:kernel/firmware/acpi/port.aml --device ioh3420,id=b0,chassis=1,slot=1,addr=10.0,multifunction=on --device ioh3420,id=b1,chassis=2,slot=2,addr=10.1 --device iommu-testdev,bus=b0 --device iommu-testdev,bus=b1
# variant virtio on stock: --iommu virtio --policy strict --nvme 0 --copy selftests/guest/ssdt/external-port.aml:kernel/firmware/acpi/port.aml --device ioh3420,id=b0,chassis=1,slot=1,addr=10.0,multifunction=on --device ioh3420,id=b1,chassis=2,slot=2,addr=10.1 --device iommu-testdev,bus=b0 --device iommu-testdev,bus=b1
# extra: amd virtio ours/debug
# timeout: 60

. /selftests/lib.sh

ktap_print_header
ktap_set_plan 9

outside=0000:01:00.0
inside=0000:02:00.0

one_group()
{
	load_iommu policy=lazy max_age_ms=0 && no_more_waiting && insmod /modules/rust_testdev.ko &&
		expect "the one outside" removable "$(cat /sys/bus/pci/devices/$outside/removable)" &&
		[ "$(cat /sys/bus/pci/devices/$inside/removable 2>/dev/null)" != removable ] &&
		[ -n "$(group_of $outside)" ] && expect group "$(group_of $outside)" "$(group_of $inside)"
}

both_are_strict()
{
	for device in $outside $inside; do
		expect "policy of $device" strict "$(policy_of $device)" || return 1
	done
}

others_are_refused()
{
	for device in $outside $inside; do
		for policy in lazy fq fq-single identity; do
			if echo $policy 2>/dev/null >/sys/bus/pci/devices/$device/rust_iommu/policy; then
				ktap_print_msg "$policy was taken for $device"
				return 1
			fi
			( echo $policy >/sys/bus/pci/devices/$device/rust_iommu/policy ) 2>&1 |
				grep -q "not permitted" || return 1
		done
	done
	both_are_strict
}

# map: sets $handle and $iova, of a page of the one inside that it writes to
map()
{
	map_answer=$(oracle $inside map from) && handle=$(answer_of handle "$map_answer") &&
		iova=$(answer_of iova "$map_answer") && expect "mapped" ok "$(oracle $inside dma write "$iova")"
}

# reached WANTED DEVICE...: whether these reach the page
reached()
{
	reached_wanted=$1
	shift
	for device; do
		expect "write of $device" "$reached_wanted" "$(oracle $device dma write "$iova")" || return 1
	done
}

drop()
{
	oracle $inside free "$handle" >/dev/null
}

# What one has mapped, both reach; what it has unmapped, nobody.
nothing_is_shared()
{
	map && reached ok $outside && oracle $inside unmap "$handle" >/dev/null &&
		reached tx_fail $outside $inside && drop
}

# again POLICY: the one inside has it, and a driver, while the one outside is away
again()
{
	echo 1 >/sys/bus/pci/devices/$outside/remove && unbind $inside && set_policy $inside "$1" &&
		bind rust_testdev $inside && mark_log
}

# come: the one outside is there, with its driver, and reaches what is mapped
come()
{
	echo 1 >/sys/bus/pci/rescan && wait_for 10 test -e /sys/kernel/debug/rust_testdev-$outside/cmd
}

# The page is reached until then, as there is no maximum age, and the window is large.
joining_ends_it()
{
	again lazy && map && oracle $inside unmap "$handle" >/dev/null && reached ok $inside && come &&
		reached tx_fail $inside $outside && drop &&
		expect "policy of $inside" strict "$(policy_of $inside)" &&
		log_since_mark | grep -q "$inside: not lazy any more: $outside, which is not trusted"
}

# The core leaves a queue as it is: it goes if no driver uses it, else there is a message.
a_queue_goes()
{
	again fq && unbind $inside && come && both_are_strict && expect type DMA "$(type_of $inside)"
}

a_queue_in_use_is_named()
{
	bind rust_testdev $inside && again fq && come && expect "policy of $outside" fq "$(policy_of $outside)" &&
		log_since_mark | grep -q "$outside: policy strict not set (error -16)"
}

unload()
{
	rmmod rust_testdev && echo 1 >/sys/module/$DRIVER/parameters/shutdown && rmmod $DRIVER &&
		rmmod rust_iommu && leak_scan
}

ktap_test_result "one group, half of it not trusted" one_group
ktap_test_result "with policy=lazy both are strict" both_are_strict
ktap_test_result "all but strict is refused" others_are_refused
ktap_test_result "what one has unmapped is not reached by the other" nothing_is_shared
ktap_test_result "one that joins ends what was put off" joining_ends_it
ktap_test_result "and nothing is put off after that" nothing_is_shared
ktap_test_result "a queue goes when one joins" a_queue_goes
ktap_test_result "a queue that is in use stays, and that is said" a_queue_in_use_is_named
ktap_test_result "unload" unload
ktap_finished
