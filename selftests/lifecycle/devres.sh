#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Rows B3 and Y9: between dma_cleanup and the end of an unbind the driver core still frees DMA
# memory of the driver, though nobody owns the group any more. The default domain must stay, and must not
# be another one for a moment either: nothing is attached.
#
# variant strict: --policy strict --nvme 0 --testdev
# variant amd on stock: --iommu amd --policy strict --nvme 0 --testdev
# variant virtio on stock: --iommu virtio --policy strict --nvme 0 --testdev
# extra: strict/debug amd
# modules: inject
# timeout: 60

. /selftests/lib.sh

ktap_print_header
ktap_set_plan 14

dev=$(pci_devices 1b36:0005)

load()
{
	load_iommu && insmod /modules/rust_testowner.ko && races inject count nothing
}

bound_with_buffer()
{
	set_type "$dev" "${1:-DMA}" && take rust_kdma "$dev" &&
		buffer=$(answer_of iova "$(ask rust_kdma "$dev" buffer)") && [ -n "$buffer" ] &&
		says ok rust_kdma "$dev" dma write "$buffer"
}

# The buffer is still where it was, so the domain is still the one.
buffer_is_mapped()
{
	expect "write to the buffer" ok "$(races ghost "$dev" "$buffer")"
}

is_refused()
{
	mark_log
	before=$(type_of "$dev")
	races inject count attach "$dev" && set_type "$dev" "$1" | grep -q 'Invalid argument' &&
		expect type "$before" "$(type_of "$dev")" &&
		expect attaches 0 "$(races inject | sed -n 's/^attach count hits \([0-9]*\) .*/\1/p')" &&
		expect messages 1 "$(log_since_mark | grep -c "$dev: its driver's memory is being freed, the default domain stays")"
}

stays()
{
	is_refused "$1" && buffer_is_mapped
}

held_type_stays()
{
	stays identity && stays DMA && stays auto
}

# The same domain.
held_goes_lazy()
{
	set_type "$dev" DMA-FQ && expect type DMA-FQ "$(type_of "$dev")" && buffer_is_mapped
}

held_identity_stays()
{
	unbind_is_held identity && stays DMA-FQ && held_type_stays && let_go identity
}

# let_go: the page is freed in the domain that it was mapped in; then nothing is left there,
# and the type is changed as ever. On identity the page would be reached, whoever has it by then:
# nothing may be written.
let_go()
{
	mark_log
	races inject open kdma.devres && wait "$holder"
	expect driver "" "$(readlink "/sys/bus/pci/devices/$dev/driver")" &&
		{ [ "$1" = identity ] || expect "write after the end" tx_fail "$(races ghost "$dev" "$buffer")"; } &&
		expect "left behind" 0 "$(log_since_mark | grep -c ' left ')" &&
		for type in identity DMA-FQ auto DMA; do
			set_type "$dev" $type || return 1
		done
}

unbind_is_held()
{
	bound_with_buffer "$1" && races inject gate kdma.devres "$dev" || return 1
	races device "$dev" unbind &
	holder=$!
	races inject wait kdma.devres 20
}

# In an empty domain the driver gets its buffer at the same place each time.
failed_probe_is_held()
{
	set_type "$dev" identity && bound_with_buffer && leave "$dev" &&
		set_type "$dev" identity && set_type "$dev" DMA &&
		races inject fail kdma.probe.4 16 "$dev" && races inject gate kdma.devres "$dev" || return 1
	take rust_kdma "$dev" >/tmp/probe &
	holder=$!
	races inject wait kdma.devres 20
}

failed_probe_ends()
{
	let_go && grep -q 'Device or resource busy' /tmp/probe && races inject clear && leak_scan
}

# What the policy lazy has of the domain goes behind all of devres. Who reads of it then waits, so look before.
lazy_end_is_held()
{
	set_type "$dev" DMA && set_policy "$dev" lazy && take rust_kdma "$dev" &&
		[ -n "$(window_of "$dev" pages)$(kept_of "$dev")" ] && races inject gate stop "$dev" || return 1
	races device "$dev" unbind &
	holder=$!
	races inject wait stop 20
}

lazy_type_stays()
{
	is_refused identity && is_refused DMA && is_refused auto || return 1
	# A unit that keeps no table has that already.
	[ "$(type_of "$dev")" = DMA-FQ ] || set_type "$dev" DMA-FQ || return 1
	is_refused identity && is_refused DMA && is_refused DMA-FQ && is_refused auto
}

lazy_ends()
{
	races inject open stop && wait "$holder"
	expect driver "" "$(readlink "/sys/bus/pci/devices/$dev/driver")" || return 1
	for type in identity DMA-FQ auto DMA; do
		set_type "$dev" $type || return 1
	done
	bound_with_buffer && leave "$dev" && races inject clear && leak_scan
}

# Then nothing may be left of the policy lazy when the driver core forgets a driver whose probe has failed.
nobody_tells_of_the_end()
{
	mark_log
	set_policy "$dev" lazy && races inject fail bind.end 12 "$dev" && races inject fail kdma.probe.4 16 "$dev" || return 1
	take rust_kdma "$dev" >/tmp/probe
	grep -q 'Device or resource busy' /tmp/probe || return 1
	expect "window" "" "$(window_of "$dev" pages)$(kept_of "$dev")" &&
		expect "message" 1 "$(log_since_mark | grep -c "$dev: no memory: what rust_kdma leaves behind")" &&
		expect "message about the policy" 1 "$(log_since_mark | grep -c "$dev: its policy is that of its group (error -12)")" || return 1
	for type in identity DMA-FQ auto DMA; do
		set_type "$dev" $type || return 1
	done
	bound_with_buffer && leave "$dev" && races inject clear && leak_scan
}

ktap_test_result "B3 load" load
ktap_test_result "B3 an unbind is held before devres frees the buffer" unbind_is_held
ktap_test_result "B3 from DMA to identity, DMA and auto: refused, and told why" held_type_stays
ktap_test_result "B3 from DMA to DMA-FQ, the same domain, is allowed" held_goes_lazy
ktap_test_result "B3 from DMA-FQ to identity, DMA and auto: refused" held_type_stays
ktap_test_result "Y9 the buffer was freed in its own domain, then the type changes" let_go
ktap_test_result "B3 a failed probe is held before devres frees the buffer" failed_probe_is_held
ktap_test_result "B3 failed probe, from DMA: refused" held_type_stays
ktap_test_result "Y9 failed probe: freed in its own domain" failed_probe_ends
ktap_test_result "B3 from identity: refused, and the type changes after the end" held_identity_stays
ktap_test_result "B3 policy lazy: an unbind is held before the window goes" lazy_end_is_held
ktap_test_result "B3 policy lazy: to identity, DMA and auto: refused" lazy_type_stays
ktap_test_result "Y9 policy lazy: the window went from its own domain" lazy_ends
ktap_test_result "B3 policy lazy: not where nobody tells of the driver's end" nobody_tells_of_the_end
ktap_finished
