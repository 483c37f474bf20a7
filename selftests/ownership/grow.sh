#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Tables of AMD-Vi begin with three levels and grow when something is mapped beyond 512 GB. Who uses a domain
# reaches what is below all the time, and what is above once the map is over: devices of several groups,
# and one that is attached at that moment.
#
# QEMU reads a device's entry anew for each transfer that it has not cached, so that an invalidation which is
# missing has no effect on DMA: its trace is asked instead.
#
# variant amd: --iommu amd --policy strict --nvme 0 --testdev=3 --append iommu.forcedac=1 --trace amdvi_devtab_inval
# variant amd-57-bit on stock: --iommu amd --policy strict --nvme 0 --testdev=3 --append iommu.forcedac=1 --trace amdvi_devtab_inval
# modules: inject
# extra: amd-57-bit
# skip vtd virtio: no table that grows
# timeout: 240

. /selftests/lib.sh

[ "$KERNEL" = stock ] || ROUNDS=${ROUNDS:-10}
ROUNDS=${ROUNDS:-200}

ktap_print_header
ktap_set_plan 14

LOW=0x4000000000
HIGH=0x10000000000
# With tables of 57 bits in two steps.
case $VARIANT in
amd-57-bit) bits=57 steps=2 HIGHS="--high $HIGH --high 0x1000000000000" ;;
*) bits=48 steps=1 HIGHS="--high $HIGH" ;;
esac
# shellcheck disable=SC2046 # One word each.
set -- $(pci_devices 1b36:0005)
one=$1 two=$2 three=$3

grown()
{
	sed -n 's/^tables_grown: //p' /sys/kernel/debug/rust_amdvi/amdvi0/stats
}

# grows TIMES COMMAND...
grows()
{
	grown_before=$(grown) grown_times=$1
	shift
	"$@" && expect grown "$grown_times" "$(($(grown) - grown_before))"
}

load()
{
	load_iommu address_bits=$bits lazy_window_mb=2 && insmod /modules/rust_testowner.ko &&
		modprobe vfio-pci disable_idle_d3=1 &&
		modprobe vfio_iommu_type1 allow_unsafe_interrupts=1 || return 1
	for dev in "$one" "$two" "$three"; do
		take rust_udma "$dev" || return 1
	done
	expect groups 3 "$(for dev in "$one" "$two" "$three"; do group_of "$dev"; done | sort -u | wc -l)" &&
		expect aperture "0x0000000000000000 $(printf '0x%016x' $(((1 << bits) - 1)))" \
			"$(cat "/sys/bus/pci/devices/$one/rust_iommu/aperture")"
}

# injected RULE COMMAND...
injected()
{
	injected_rule=$1
	shift
	# shellcheck disable=SC2086 # Words.
	races inject $injected_rule && "$@"
	injected_status=$?
	races inject clear && return $injected_status
}

# while_held POINT COMMAND...: while the second device is held there by what was started in the background last,
# which has to succeed after that
while_held()
{
	held_at=$1 held_process=$!
	shift
	races inject wait "$held_at" "$two" 20 && "$@"
	held_status=$?
	races inject open "$held_at" "$two" && wait "$held_process" && return $held_status
}

# udma DEVICE COMMAND...
udma()
{
	ask rust_udma "$@"
}

# new_page: sets $page
new_page()
{
	page=$(answer_of handle "$(udma "$three" page "${1:-1}")")
}

# prepare: a domain of the third device's, with a page at $LOW, and pages for above; both others have claimed
prepare()
{
	domain=$(answer_of domain "$(udma "$three" domain-new)") && new_page && low=$page && new_page && high=$page &&
		udma "$three" domain-map "$domain" $LOW "$low" rw && udma "$one" claim 0 && udma "$two" claim 0
}

map_high()
{
	udma "$three" domain-map "$domain" $HIGH "$high" rw
}

finish()
{
	udma "$one" release && udma "$two" release && udma "$three" domain-unmap "$domain" $HIGH &&
		udma "$three" domain-unmap "$domain" $LOW && udma "$three" domain-free "$domain"
}

# reaches DEVICE: both pages, through the domain
reaches()
{
	for reaches_at in "$LOW $low" "$HIGH $high"; do
		udma "$three" fill "${reaches_at#* }" 0 >/dev/null &&
			expect "$1 at ${reaches_at% *}" ok "$(udma "$1" dma write "${reaches_at% *}")" &&
			expect "its page" match "$(udma "$three" check "${reaches_at#* }" 0x12345678)" || return 1
	done
}

# Each device on the domain's list has its entry invalidated, and no other.
grows_with_both()
{
	vm_host trace mark top && grows 1 map_high && vm_host trace since top >/tmp/trace || return 1
	for dev in "$one" "$two"; do
		expect "$dev" 1 "$(grep -c "^amdvi_devtab_inval.*${dev#0000:}" /tmp/trace)" || return 1
	done
	expect others 2 "$(grep -c . /tmp/trace)"
}

each_entry_is_invalidated()
{
	prepare && udma "$one" attach "$domain" && udma "$two" attach "$domain" &&
		expect "before" tx_fail "$(udma "$one" dma write $HIGH)" &&
		grows_with_both && reaches "$one" && reaches "$two" && finish
}

# two_reaches_nothing
two_reaches_nothing()
{
	for at in $LOW $HIGH; do
		expect "at $at" tx_fail "$(udma "$two" dma write $at)" || return 1
	done
}

# What leaves while it grows, or is elsewhere, is not brought back.
others_stay_where_they_are()
{
	prepare && udma "$one" attach "$domain" && udma "$two" attach "$domain" && udma "$two" detach &&
		grows 1 map_high && reaches "$one" && two_reaches_nothing &&
		udma "$two" attach "$domain" && reaches "$two" && finish
}

# The second device's entry has changed, and it is still on the list. It cannot be asked before it has left.
one_is_leaving()
{
	prepare && udma "$one" attach "$domain" && udma "$two" attach "$domain" &&
		races inject gate attach.post_hw "$two" || return 1
	udma "$two" detach &
	while_held attach.post_hw grows_with_both && reaches "$one" && two_reaches_nothing && finish
}

# It stays on the list for good. The domain is leaked, and not freed here: kmemleak would find it.
one_failed_to_come()
{
	prepare && udma "$one" attach "$domain" && mark_log &&
		expect "attach" "error EIO" "$(injected "fail attach.told 5" udma "$two" attach "$domain")" &&
		expect log 1 "$(log_since_mark | grep -c "$two: attach was not acknowledged (-5)")" &&
		grows_with_both && reaches "$one" && two_reaches_nothing && udma "$one" release && udma "$two" release
}

nobody_is_on_it()
{
	prepare && grows 0 map_high && udma "$one" attach "$domain" && udma "$two" attach "$domain" &&
		reaches "$one" && reaches "$two" && finish
}

# The second device's attach has been prepared when the table grows.
attach_that_began_before()
{
	prepare && udma "$one" attach "$domain" && races inject gate attach.pre_hw "$two" || return 1
	udma "$two" attach "$domain" &
	while_held attach.pre_hw grows 1 map_high && reaches "$one" && reaches "$two" && finish
}

owners()
{
	grows $((ROUNDS * steps)) races grow owners --rounds "$ROUNDS" $HIGHS "$one" "$two" "$three"
}

# Each growth takes a while with the lock held, so that most attaches come before or during it.
owners_attach()
{
	injected "delay top 1000" grows $((ROUNDS * steps)) \
		races grow owners --rounds "$ROUNDS" --attach $HIGHS "$one" "$two" "$three"
}

# pages_left: tables of the IOMMU, when a range was unmapped of which one table had nothing else
pages_left()
{
	new_page 1024 && middle=$page && at=0x10040001000 &&
		udma "$three" domain-map "$domain" $at "$middle" rw >/dev/null &&
		udma "$three" domain-unmap "$domain" $at >/dev/null && udma "$three" free "$middle" >/dev/null
}

# table_pages
table_pages()
{
	races vmstat | sed -n 's/^nr_iommu_pages //p'
}

# What is freed otherwise stays: of the pages that are mapped one table translates nothing else.
not_acknowledged()
{
	prepare && udma "$one" attach "$domain" && udma "$two" attach "$domain" && grows 1 map_high &&
		pages_left && finish || return 1
	pages=$(table_pages)
	prepare && udma "$one" attach "$domain" && udma "$two" attach "$domain" && mark_log &&
		injected "fail top.told 5" grows 1 map_high &&
		expect log 1 "$(log_since_mark | grep -c 'amdvi0: a table has grown, which was not acknowledged (-5)')" &&
		expect below ok "$(udma "$one" dma write $LOW)" && pages_left && finish &&
		expect "pages of tables" $((pages + 1)) "$(table_pages)"
}

# kdma_map: sets $iova
kdma_map()
{
	iova=$(answer_of iova "$(ask rust_kdma "$one" map from)")
}

# With the DMA API. The core looks for addresses from above (forcedac).
dma_api()
{
	leave "$one" && take rust_kdma "$one" && ask rust_kdma "$one" mask 64 && grows 1 kdma_map &&
		[ $((iova)) -gt $((1 << 39)) ] && says ok rust_kdma "$one" dma write "$iova"
}

# in_the_window DEVICE: sets $inner and $handle; a page is mapped there, and reached
in_the_window()
{
	answer=$(oracle "$1" map from) && inner=$(answer_of iova "$answer") && handle=$(answer_of handle "$answer") &&
		[ $((inner)) -lt $((1 << 39)) ] && reached "$1" "$inner" "$handle"
}

# reached DEVICE IOVA HANDLE
reached()
{
	oracle "$1" fill "$3" 0 >/dev/null && expect "$2" ok "$(oracle "$1" dma write "$2")" &&
		expect "its page" match "$(oracle "$1" check "$3" 0x12345678)"
}

# beyond_the_window DEVICE: what does not fit goes the core's way; sets $outer and $large
beyond_the_window()
{
	answer=$(oracle "$1" map from 1024) && outer=$(answer_of iova "$answer") && large=$(answer_of handle "$answer") &&
		[ $((outer)) -gt $((1 << 39)) ] && expect "at $outer" ok "$(oracle "$1" dma write "$outer")"
}

# A window's leaf entries are written past the kernel's code for tables.
lazy()
{
	leave "$three" && set_policy "$three" lazy && insmod /modules/rust_testdev.ko &&
		take rust_testdev "$three" && oracle "$three" mask 64 &&
		grows 0 in_the_window "$three" && first=$inner page=$handle &&
		grows 1 beyond_the_window "$three" && reached "$three" "$first" "$page" &&
		in_the_window "$three" && oracle "$three" unmap "$page" && oracle "$three" unmap "$large"
}

# The other way round.
lazy_window_in_a_large_table()
{
	set_policy "$three" strict && set_policy "$three" lazy && grows 0 in_the_window "$three" &&
		grows 0 beyond_the_window "$three" && reached "$three" "$inner" "$handle"
}

vfio()
{
	for dev in "$one" "$two"; do
		leave "$dev" && take vfio-pci "$dev" || return 1
	done
	grows 1 races grow vfio --high $HIGH "$one" "$two"
}

quiet()
{
	"$@" >/tmp/quiet || { sed 's/^/# /' /tmp/quiet; return 1; }
}

ktap_test_result "load" load
ktap_test_result "a table grows, and each device's entry is invalidated once" quiet each_entry_is_invalidated
ktap_test_result "devices that have left are left alone" quiet others_stay_where_they_are
ktap_test_result "nor is one that is about to leave: its entry is only invalidated" quiet one_is_leaving
ktap_test_result "nor one whose attach has failed" quiet one_failed_to_come
ktap_test_result "a table grows with nobody on it" quiet nobody_is_on_it
ktap_test_result "an attach that began before has the new top" quiet attach_that_began_before
ktap_test_result "$ROUNDS tables grow, and DMA below goes on" owners
ktap_test_result "$ROUNDS tables grow while a device is attached" owners_attach
ktap_test_result "a growth that is not acknowledged: one line, and no table is freed" quiet not_acknowledged
ktap_test_result "the DMA API's domain grows" quiet dma_api
ktap_test_result "a table grows above a lazy window" quiet lazy
ktap_test_result "a lazy window in a table that has grown" quiet lazy_window_in_a_large_table
ktap_test_result "VFIO: two groups in one container" vfio
ktap_finished
