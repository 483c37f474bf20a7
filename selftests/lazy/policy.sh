#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# The policy of a device: read and written, while no driver is bound and while one is at work; what is
# shown is what the device runs under.
#
# variant strict: --policy strict --nvme 2 --trace vtd_inv_desc_*
# variant lazy on stock: --policy lazy --nvme 2
# variant caching-mode on stock: --policy strict --iommu-opt caching-mode=on --nvme 2
# variant amd on stock: --iommu amd --policy strict --nvme 2 --trace amdvi_pages_inval
# variant full: --policy strict --nvme 2 --trace vtd_inv_desc_*
# variant virtio on stock: --iommu virtio --policy strict --nvme 2 --trace virtio_iommu_unmap
# extra: lazy caching-mode amd
# long: full
# timeout: 300

. /selftests/lib.sh

ktap_print_header

ROUNDS=100 SIZE=16 READS=2048
case $VARIANT/$KERNEL in
full/*) ktap_set_plan 15 ;;
*/debug) ktap_set_plan 10 && ROUNDS=10 READS=256 ;;
*) ktap_set_plan 10 ;;
esac
# The type of a group that was strict before. Units without tables are told of what ends by the core's queue.
case $VARIANT in
virtio) LAZY=DMA-FQ ;;
*) LAZY=DMA ;;
esac

no_faults()
{
	expect faults "" "$(faults)"
}

load()
{
	load_iommu && modprobe nvme && wait_for 30 test -b /dev/nvme0n1 && wait_for 30 test -b /dev/nvme1n1 &&
		disk=$(pci_of nvme0n1) && other=$(pci_of nvme1n1)
}

# has_window PCI-ADDRESS: or what is in its stead where units keep no table.
has_window()
{
	[ "$VARIANT" != virtio ] || { [ -n "$(kept_of "$1")" ] && return 0 || return 1; }
	sed -n "/^group $(group_of "$1"):/,/^group [0-9]/p" $GROUPS_FILE | grep -q "^ *window at"
}

flushes_of()
{
	[ "$VARIANT" = virtio ] && echo 0 || window_of "$1" flushes
}

# refused WHY PCI-ADDRESS POLICY: and nothing has changed
refused()
{
	before=$(policy_of "$2") && mark_log
	if echo "$3" 2>/tmp/refused >"/sys/bus/pci/devices/$2/rust_iommu/policy"; then
		ktap_print_msg "policy $3 was taken"
		return 1
	fi 2>/tmp/refused
	grep -q "$1" /tmp/refused || { cat /tmp/refused; return 1; }
	expect "policy after that" "$before" "$(policy_of "$2")"
}

shows_the_default()
{
	for device in "$disk" "$other"; do
		case $(type_of "$device") in
		DMA) wanted=strict ;;
		DMA-FQ) wanted=fq ;;
		esac
		expect "policy of $device" $wanted "$(policy_of "$device")" || return 1
	done
	for dir in /sys/bus/pci/devices/*/iommu_group; do
		[ -f "${dir%iommu_group}rust_iommu/policy" ] || { ktap_print_msg "none for $dir" && return 1; }
	done
}

bad_names_are_refused()
{
	for name in "" Strict "strict lazy" fq-single- none 0; do
		refused "Invalid argument" "$disk" "$name" || return 1
	done
}

# under POLICY TYPE: bind the driver and see that it works, and as what
under()
{
	set_policy "$disk" "$1" && expect type "$2" "$(type_of "$disk")" && bind nvme "$disk" &&
		wait_for 30 test -b /dev/nvme0n1 && fio_verify nvme0n1 2 && largest_request "$1" &&
		expect "policy with a driver" "$1" "$(policy_of "$disk")" && unbind "$disk"
}

# largest_request POLICY: nvme makes none that is larger than what the core allocates addresses for fast, which
# it asks for when it is bound.
largest_request()
{
	[ "$1" = identity ] || expect "KB of a request" 128 "$(cat /sys/block/nvme0n1/queue/max_hw_sectors_kb)"
}

# From each to each of the others, and one to itself.
every_change_without_a_driver()
{
	unbind "$disk" || return 1
	for policy in strict fq strict fq-single strict lazy strict identity fq fq-single fq lazy fq identity \
		fq-single lazy fq-single identity lazy identity strict strict; do
		set_policy "$disk" $policy || return 1
	done
	# On the debug kernel, where each takes seconds, only two with a driver.
	[ "$KERNEL" = debug ] || { under strict DMA && under fq DMA-FQ && under fq-single DMA-FQ && under identity identity; } || return 1
	under strict DMA && under lazy $LAZY || return 1
	# The overlay stays when the type is changed behind its back; without translation there is none.
	set_type "$disk" identity && expect policy identity "$(policy_of "$disk")" &&
		set_type "$disk" DMA-FQ && expect policy lazy "$(policy_of "$disk")" && under lazy DMA-FQ &&
		set_policy "$disk" strict && bind nvme "$disk" && wait_for 30 test -b /dev/nvme0n1
}

# has_what_is_shown TYPE: the overlay and its window, but without translation.
has_what_is_shown()
{
	if [ "$1" = identity ]; then
		expect policy identity "$(policy_of "$disk")" && ! has_window "$disk"
	else
		expect policy lazy "$(policy_of "$disk")" && has_window "$disk"
	fi && fio_verify nvme0n1 2
}

types_with_lazy_above()
{
	unbind "$disk" && set_policy "$disk" lazy || return 1
	for type in identity DMA DMA-FQ auto; do
		set_type "$disk" $type && bind nvme "$disk" && wait_for 30 test -b /dev/nvme0n1 &&
			has_what_is_shown "$(type_of "$disk")" || return 1
		# A strict domain can be given a queue at any time.
		[ $type != DMA ] || { set_type "$disk" DMA-FQ && has_what_is_shown DMA-FQ; } || return 1
		unbind "$disk" || return 1
	done
	set_policy "$disk" strict && bind nvme "$disk" && wait_for 30 test -b /dev/nvme0n1 && prepare_to_change
}

# A kernel that checks the DMA API has the operations from the beginning, or not at all.
prepare_to_change()
{
	[ "$KERNEL" = debug ] || return 0
	unbind "$disk" && set_policy "$disk" lazy && bind nvme "$disk" && wait_for 30 test -b /dev/nvme0n1
}

what_takes_a_new_domain_is_refused()
{
	prepare_to_change && refused "resource busy" "$disk" identity && set_policy "$disk" fq && refused "resource busy" "$disk" fq-single &&
		set_policy "$disk" strict && fio_verify nvme0n1 2
}

# While fio writes and verifies.
changes_under_load()
{
	: >/tmp/working
	while [ -e /tmp/working ]; do
		fio_verify nvme0n1 $SIZE || { rm -f /tmp/working && exit 1; }
	done >/tmp/verify &
	fio=$!
	changes=0
	while [ $changes -lt $ROUNDS ] && [ -e /tmp/working ]; do
		for policy in lazy strict fq lazy fq strict; do
			set_policy "$disk" $policy || break 2
			changes=$((changes + 1))
		done
	done
	has_window "$disk"
	window=$?
	rm -f /tmp/working
	wait $fio || { cat /tmp/verify && return 1; }
	ktap_print_msg "$changes changes, $(grep -c read: /tmp/verify) times verified"
	[ $changes -ge $ROUNDS ] && [ $window = 0 ]
}

# try POLICY: it is taken, or refused because a driver is bound, and is shown or not
try()
{
	before=$(policy_of "$disk")
	if ( echo "$1" >"/sys/bus/pci/devices/$disk/rust_iommu/policy" ) 2>/tmp/refused; then
		taken=$((taken + 1))
		expect policy "$1" "$(policy_of "$disk")"
	else
		grep -q "resource busy" /tmp/refused && expect "policy after that" "$before" "$(policy_of "$disk")"
	fi
}

# from BOUND NUMBER: under load, with a driver that was bound under that policy; so many are taken at least
from()
{
	unbind "$disk" && set_policy "$disk" "$1" && bind nvme "$disk" && wait_for 30 test -b /dev/nvme0n1 || return 1
	: >/tmp/working
	while [ -e /tmp/working ]; do
		fio_verify nvme0n1 $SIZE || { rm -f /tmp/working && exit 1; }
	done >/tmp/verify &
	fio=$!
	tried=0
	taken=0
	while [ $tried -lt 100 ] && [ -e /tmp/working ]; do
		for policy in lazy strict fq fq-single identity; do
			try $policy || break 2
			tried=$((tried + 1))
		done
	done
	rm -f /tmp/working
	wait $fio || { cat /tmp/verify && return 1; }
	ktap_print_msg "$taken of $tried changes, $(grep -c read: /tmp/verify) times verified"
	[ $tried -ge 100 ] && [ $taken -ge "$2" ]
}

# told: how many invalidations the attributes of both disks and of the unit have
told()
{
	(cd /sys/bus/pci/devices && cat "$disk/rust_iommu/invalidations" "$other/rust_iommu/invalidations") &&
		cat "/sys/class/iommu/${UNIT_NAME}0/rust_iommu/invalidations"
}

# Reads from each at once, 8 MB usually: the unit is told of each of the unmaps for the one, and of the
# window's flushes for the other. Their domains tell them apart. The timer may come between two looks. QEMU's
# AMD-Vi, with NpCache, is told of each new mapping too: few under lazy. A virtio-iommu is told of what is not kept any longer.
# The attributes of the two, and of the unit, have the same numbers.
each_has_its_own_count()
{
	case $VARIANT in
	strict) maps=0 new=0 ;;
	amd) maps=$READS new=256 ;;
	virtio) maps=0 new=64 ;;
	*) return 0 ;;
	esac
	# What was kept is out of reach after that.
	sleep 1.2
	flushes=$(flushes_of "$disk")
	told >/tmp/told
	vm_host trace mark both &&
		fio_job both --filename=/dev/nvme0n1:/dev/nvme1n1 --rw=randread --bs=4k --iodepth=8 --size=$((READS * 8))k \
			--file_service_type=roundrobin && sleep 1.2 &&
		vm_host trace count both domain >/tmp/both || return 1
	flushes=$(($(flushes_of "$disk") - flushes))
	# shellcheck disable=SC2046 # One word each.
	set -- $(told | paste /tmp/told - | awk '{ print $2 - $1 }')
	ktap_print_msg "attributes: $1 of the one, $2 of the other, $3 of the unit"
	awk "/^$INVALIDATION/"' { n[$2] += $3 } END { for (d in n) print n[d], d }' /tmp/both | sort -n >/tmp/domains
	sed 's/^/# /' /tmp/domains
	few=$(awk 'NR == 1 { print $1 }' /tmp/domains)
	many=$(awk 'NR == 2 { print $1 }' /tmp/domains)
	expect domains 2 "$(wc -l </tmp/domains)" && [ "$few" -le $((flushes + new)) ] && [ $flushes -le $((few + 2)) ] &&
		[ "$many" -ge $((READS + maps)) ] && expect "attribute of the other" "$many" "$2" &&
		[ "$1" -ge "$few" ] && [ "$1" -le $((few + 2)) ] && [ "$3" -ge $(($1 + $2)) ] && [ "$3" -le $(($1 + $2 + 2)) ]
}

two_disks_two_policies()
{
	set_policy "$disk" lazy && expect other strict "$(set_policy "$other" strict && policy_of "$other")" &&
		fio_verify nvme0n1 8 && fio_verify nvme1n1 8 && has_window "$disk" &&
		! has_window "$other" && each_has_its_own_count
}

is_kept()
{
	unbind "$disk" && ! has_window "$disk" && expect policy lazy "$(policy_of "$disk")" && bind nvme "$disk" &&
		wait_for 30 test -b /dev/nvme0n1 && fio_verify nvme0n1 2 && has_window "$disk" &&
		unbind "$disk" && unbind "$other" && echo 1 >/sys/module/$DRIVER/parameters/shutdown &&
		[ ! -e "/sys/bus/pci/devices/$disk/rust_iommu" ] && rmmod $DRIVER && rmmod rust_iommu && leak_scan
}

mark_log
ktap_test_result "Y5 load" load
ktap_test_result "Y5 the policy shown at first is that of the group's type" shows_the_default
ktap_test_result "Y5 bad names are refused" bad_names_are_refused
ktap_test_result "Y5 every change without a driver" every_change_without_a_driver
ktap_test_result "Y5 what takes a new domain is refused while a driver is bound" what_takes_a_new_domain_is_refused
ktap_test_result "Y5 changes under load" changes_under_load
ktap_test_result "Y5 types through sysfs with lazy above" types_with_lazy_above
if [ "$VARIANT" = full ]; then
	# Without translation only that, 20 times; a kernel that checks the DMA API has the operations from the
	# beginning, or is refused all that takes them.
	for bound in strict fq fq-single identity; do
		ktap_test_result "Y5 100 changes under load, bound under $bound" from $bound 20
	done
	ktap_test_result "Y5 100 changes under load, bound under lazy" from lazy 60
	set_policy "$disk" strict
fi
ktap_test_result "A9 two disks, two policies" two_disks_two_policies
ktap_test_result "Y5 no faults" no_faults
ktap_test_result "Y5 a policy is kept, and gone with the module" is_kept
ktap_finished
