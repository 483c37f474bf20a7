#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# The policy lazy where units keep no table: how much is kept, and for how long; and what happens when the
# unit has no memory for a mapping (row A18), or the policy is refused.
#
# variant virtio: --iommu virtio --policy strict --nvme 0 --device edu --device qemu-xhci
# modules: inject
# timeout: 120

. /selftests/lib.sh

ktap_print_header
ktap_set_plan 7

edu=$(pci_devices 1234:11e8)
usb=$(pci_devices 1b36:000d)

max_age()
{
	echo "$1" >"/sys/bus/pci/devices/$edu/rust_iommu/max_age_ms"
}

# run FAILED PARAMETER...: maps and unmaps; so many maps fail
run()
{
	run_failed=$1
	shift
	answer=$(ask rust_bench "$edu" run "$@") || { ktap_print_msg "$*: $answer" && return 1; }
	expect "failures of $*" "$run_failed" "$(answer_of failed "$answer")"
}

load()
{
	load_iommu && insmod /modules/rust_bench.ko && take rust_bench "$edu" && take rust_bench "$usb" &&
		expect policy strict "$(policy_of "$edu")" && run 0 pairs=10
}

# A driver of such a device may have what could not be given back under lazy. Its group stays as it was.
refused_and_nothing_changed()
{
	if set_policy "$usb" lazy 2>/tmp/refused; then
		return 1
	fi
	expect type DMA "$(type_of "$usb")" && expect policy strict "$(policy_of "$usb")" &&
		unbind "$usb" && set_policy "$usb" lazy && expect type DMA-FQ "$(type_of "$usb")" && bind rust_bench "$usb"
}

# The device reaches 256 MB: 32 MB of that, less than a page.
at_most_an_eighth()
{
	expect mask "done" "$(ask rust_bench "$edu" mask 28)" && unbind "$edu" && set_policy "$edu" lazy &&
		bind rust_bench "$edu" && max_age 0 && run 0 size=4k depth=64 pairs=1000 && expect kept 64 "$(kept_of "$edu")" &&
		max_age 0 && expect kept 0 "$(kept_of "$edu")" &&
		run 0 size=1M depth=64 pairs=1000 && expect kept 31 "$(kept_of "$edu")"
}

# What is kept after the change goes by the new age, though the timer ran for the old one.
a_lower_age_is_for_all()
{
	max_age 60000 && run 0 depth=32 pairs=100 && expect kept 32 "$(kept_of "$edu")" || return 1
	# For as long as it may: 20 seconds.
	run 0 depth=32 pairs=100000000 &
	running=$!
	sleep 2
	max_age 300 && kill -0 $running && wait $running && sleep 1 && expect "kept after a second" 0 "$(kept_of "$edu")"
}

no_memory_for_a_while()
{
	races inject count map.nomem && races inject fail map.tell 12 1 && run 0 pairs=1 &&
		expect "asked to forget" 1 "$(sed -n 's/^map.nomem count hits \([0-9]*\) .*/\1/p' /sys/kernel/debug/rust_iommu/inject)" &&
		races inject clear
}

# Under fq the caller is told. Under lazy what is kept goes first.
what_is_kept_goes_for_want_of_memory()
{
	max_age 0 || return 1
	for kind in single sg; do
		run 0 depth=8 pairs=100 && [ "$(kept_of "$edu")" -ge 8 ] && races inject fail map.announce 12 1 &&
			run 0 kind=$kind size=8k entries=4 pairs=1 && [ "$(kept_of "$edu")" -le 1 ] || return 1
	done
	unbind "$edu" && set_policy "$edu" fq && bind rust_bench "$edu" || return 1
	for kind in single sg; do
		races inject fail map.announce 12 1 && run 1 kind=$kind size=8k entries=4 pairs=1 || return 1
	done
	races inject clear
}

nothing_is_left()
{
	unbind "$edu" && unbind "$usb" && expect "left mapped" "" "$(log_since_mark | grep "driver .* left ")" &&
		rmmod rust_bench && echo 1 >/sys/module/$DRIVER/parameters/shutdown && rmmod $DRIVER && rmmod rust_iommu
}

mark_log
ktap_test_result "Y5 load" load
ktap_test_result "Y5 refused, and nothing changed" refused_and_nothing_changed
ktap_test_result "F4 an eighth of the addresses at most" at_most_an_eighth
ktap_test_result "F4 a lower age is for all" a_lower_age_is_for_all
ktap_test_result "A18 no memory for a while" no_memory_for_a_while
ktap_test_result "A18 what is kept goes for want of memory" what_is_kept_goes_for_want_of_memory
ktap_test_result "Y1 nothing is left" nothing_is_left
ktap_finished
