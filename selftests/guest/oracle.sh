#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# What a device can reach: two iommu-testdev, which tell whether a write went
# through, and an edu, which can also read.
#
# variant strict: --policy strict --nvme 0 --testdev=2 --device edu,dma_mask=0xffffffffffffffff
# variant lazy: --policy lazy --nvme 0 --testdev=2 --device edu,dma_mask=0xffffffffffffffff
# variant caching-mode: --policy strict --iommu-opt caching-mode=on --nvme 0 --testdev=2 --device edu,dma_mask=0xffffffffffffffff
# variant window: --policy strict --iommu-opt caching-mode=on --nvme 0 --testdev=2 --device edu,dma_mask=0xffffffffffffffff
# variant 39-bit on stock: --policy strict --iommu-opt aw-bits=39 --nvme 0 --testdev=2 --device edu,dma_mask=0xffffffffffffffff
# variant amd: --iommu amd --policy strict --nvme 0 --testdev=2 --device edu,dma_mask=0xffffffffffffffff
# variant lazy-amd on stock: --iommu amd --policy lazy --nvme 0 --testdev=2 --device edu,dma_mask=0xffffffffffffffff
# variant window-amd: --iommu amd --policy strict --nvme 0 --testdev=2 --device edu,dma_mask=0xffffffffffffffff
# variant in-tree: --in-tree --policy strict --nvme 0 --testdev=2 --device edu,dma_mask=0xffffffffffffffff
# variant virtio: --iommu virtio --policy strict --nvme 0 --testdev=2 --device edu,dma_mask=0xffffffffffffffff
# variant lazy-virtio on stock: --iommu virtio --policy lazy --nvme 0 --testdev=2 --device edu,dma_mask=0xffffffffffffffff
# variant window-virtio: --iommu virtio --policy strict --nvme 0 --testdev=2 --device edu,dma_mask=0xffffffffffffffff
# extra: in-tree lazy-amd strict/debug lazy/debug caching-mode/debug window/debug window-virtio/debug lazy-virtio 39-bit amd/debug window-amd virtio/debug
# timeout: 60

. /selftests/lib.sh

ktap_print_header
ktap_set_plan 17

# What iommu-testdev writes.
PATTERN=0x12345678

one=$(pci_devices 1b36:0005 | sed -n 1p)
two=$(pci_devices 1b36:0005 | sed -n 2p)
edu=$(pci_devices 1234:11e8)

setup()
{
	load_iommu && { [ -d /sys/module/rust_iommu ] || insmod /modules/rust_iommu.ko; } &&
		insmod /modules/rust_testdev.ko &&
		[ -n "$(group_of "$one")" ] && [ "$(group_of "$one")" != "$(group_of "$two")" ]
}

# map DEVICE to|from|both: sets $handle and $iova
map()
{
	map_answer=$(oracle "$1" map "$2") || return 1
	handle=$(answer_of handle "$map_answer")
	iova=$(answer_of iova "$map_answer")
}

write_reaches_its_page()
{
	map "$one" from && a=$handle && a_iova=$iova &&
		map "$one" from && b=$handle &&
		oracle "$one" fill "$a" 0x11111111 && oracle "$one" fill "$b" 0x22222222 &&
		expect write ok "$(oracle "$one" dma write "$a_iova")" &&
		expect page match "$(oracle "$one" check "$a" $PATTERN)" &&
		expect neighbour match "$(oracle "$one" check "$b" 0x22222222)" &&
		oracle "$one" free "$a" && oracle "$one" free "$b"
}

read_reaches_its_page()
{
	map "$edu" to && from=$handle && from_iova=$iova &&
		map "$edu" from && to=$handle && to_iova=$iova &&
		oracle "$edu" fill "$from" 0xa5b6c7d8 && oracle "$edu" fill "$to" 0 &&
		oracle "$edu" dma read "$from_iova" && oracle "$edu" dma write "$to_iova" &&
		expect data match "$(oracle "$edu" check "$to" 0xa5b6c7d8)" &&
		oracle "$edu" free "$from" && oracle "$edu" free "$to"
}

# one_fault DEVICE read|write ADDRESS [read|write]: that, and nothing else, was reported. A
# second report would be there within the time.
one_fault()
{
	wait_for 5 test -n "$(faults)"
	sleep 1
	expect faults "$(reported "$@")" "$(faults)"
}

unmapped_write_is_reported_once()
{
	mark_log
	expect write tx_fail "$(oracle "$one" dma write 0x12345000 4)" &&
		one_fault "$one" write 0x12345000
}

unmapped_read_is_reported_once()
{
	mark_log
	oracle "$edu" dma read 0x23456000 4 && one_fault "$edu" read 0x23456000
}

# The page is still there, so that a write to it would show.
nothing_is_reached_after_unmap()
{
	map "$one" from && oracle "$one" fill "$handle" 0x33333333 &&
		expect "mapped" ok "$(oracle "$one" dma write "$iova")" &&
		oracle "$one" fill "$handle" 0x44444444 || return 1
	if [ "$VARIANT" != "${VARIANT#lazy}" ] || [ "$VARIANT" != "${VARIANT#window}" ]; then
		# The flush queue's timer has ten milliseconds, a window a second at most.
		oracle "$one" unmap "$handle" && sleep 1 &&
			expect "unmapped" tx_fail "$(oracle "$one" dma write "$iova")"
	else
		expect "unmapped" tx_fail "$(oracle "$one" unmap "$handle" then-write)"
	fi &&
		expect page match "$(oracle "$one" check "$handle" 0x44444444)" &&
		oracle "$one" free "$handle"
}

# put_off: without a maximum age the device still reaches what was unmapped. Sets $handle and $iova.
put_off()
{
	map "$one" from && expect "mapped" ok "$(oracle "$one" dma write "$iova")" &&
		oracle "$one" unmap "$handle" && expect "unmapped" ok "$(oracle "$one" dma write "$iova")" &&
		oracle "$one" fill "$handle" 0x44444444
}

# ended WHAT: nothing of it is reached after that
ended()
{
	expect "after $1" tx_fail "$(oracle "$one" dma write "$iova")" &&
		expect page match "$(oracle "$one" check "$handle" 0x44444444)" && oracle "$one" free "$handle"
}

no_maximum_age()
{
	echo 0 >"/sys/bus/pci/devices/$one/rust_iommu/max_age_ms"
}

# A minute is far from being over.
another_age_ends_what_was_put_off()
{
	for age in 60000 0 60001; do
		no_maximum_age && put_off && echo $age >"/sys/bus/pci/devices/$one/rust_iommu/max_age_ms" &&
			ended "max_age_ms $age" || return 1
	done
}

another_policy_ends_what_was_put_off()
{
	for policy in strict fq; do
		no_maximum_age && put_off && set_policy "$one" $policy && ended "policy $policy" || return 1
		[ $policy = fq ] || {
			map "$one" from && oracle "$one" dma write "$iova" &&
				expect "under strict" tx_fail "$(oracle "$one" unmap "$handle" then-write)" &&
				oracle "$one" free "$handle" || return 1
		}
		set_policy "$one" lazy || return 1
	done
	echo 1000 >"/sys/bus/pci/devices/$one/rust_iommu/max_age_ms"
}

# Contiguous, but of no page's size: the core maps and unmaps it in parts. Nothing of it is left, so the same
# can be had again; and what a driver leaves mapped would be in the log when it goes.
all_of_odd_sizes_goes()
{
	for pages in 3 5 7 3 5 7; do
		map_odd=$(oracle "$one" map from $pages) || return 1
		handle=$(answer_of handle "$map_odd")
		iova=$(answer_of iova "$map_odd")
		last=$(printf '0x%x' $((iova + (pages - 1) * 4096)))
		oracle "$one" fill "$handle" 0x44444444 &&
			expect "first of $pages" ok "$(oracle "$one" dma write "$iova" 4)" &&
			expect "last of $pages" ok "$(oracle "$one" dma write "$last" 4)" &&
			oracle "$one" fill "$handle" 0x44444444 &&
			oracle "$one" unmap "$handle" || return 1
		case $VARIANT in
		lazy* | window*) sleep 1.5 ;;
		esac
		for page in "$iova" "$last"; do
			expect "$page of $pages" tx_fail "$(oracle "$one" dma write "$page" 4)" || return 1
		done
		expect "$pages pages" match "$(oracle "$one" check "$handle" 0x44444444)" &&
			oracle "$one" free "$handle" || return 1
	done
}

neighbour_survives_unmap()
{
	map "$one" from && a=$handle && map "$one" from && b=$handle && b_iova=$iova &&
		oracle "$one" dma write "$b_iova" && oracle "$one" fill "$b" 0 &&
		oracle "$one" unmap "$a" &&
		expect write ok "$(oracle "$one" dma write "$b_iova")" &&
		expect page match "$(oracle "$one" check "$b" $PATTERN)" &&
		oracle "$one" free "$a" && oracle "$one" free "$b"
}

read_only_refuses_write()
{
	map "$one" to && oracle "$one" fill "$handle" 0x55555555 && mark_log &&
		expect write tx_fail "$(oracle "$one" dma write "$iova" 4)" &&
		expect page match "$(oracle "$one" check "$handle" 0x55555555)" &&
		one_fault "$one" write "$iova" write && oracle "$one" free "$handle"
}

# Reports are rate-limited: in-tree, three in five seconds. Here come the fourth.
write_only_refuses_read()
{
	sleep 6
	map "$edu" from && mark_log && oracle "$edu" dma read "$iova" 4 &&
		one_fault "$edu" read "$iova" read && oracle "$edu" free "$handle"
}

# page DEVICE VALUE [PAGES]: a page that the DMA API has not mapped; sets $handle, $phys
page()
{
	page_answer=$(oracle "$1" page "${3:-1}") || return 1
	handle=$(answer_of handle "$page_answer")
	phys=$(answer_of phys "$page_answer")
	oracle "$1" fill "$handle" "$2" >/dev/null
}

same_address_different_pages()
{
	page "$one" 0x66666666 && a=$handle && page "$two" 0x77777777 && b=$handle &&
		oracle "$one" domain-alloc && oracle "$two" domain-alloc &&
		oracle "$one" domain-map 0x40000000 "$a" rw &&
		oracle "$two" domain-map 0x40000000 "$b" rw &&
		expect first ok "$(oracle "$one" dma write 0x40000000)" &&
		expect "its page" match "$(oracle "$one" check "$a" $PATTERN)" &&
		expect "the other's page" match "$(oracle "$two" check "$b" 0x77777777)" &&
		oracle "$one" fill "$a" 0x66666666 &&
		expect second ok "$(oracle "$two" dma write 0x40000000)" &&
		expect "its page" match "$(oracle "$two" check "$b" $PATTERN)" &&
		expect "the other's page" match "$(oracle "$one" check "$a" 0x66666666)"
	status=$?
	oracle "$one" domain-free && oracle "$two" domain-free && return $status
}

own_domain_is_exact()
{
	page "$one" 0 && a=$handle && a_phys=$phys && oracle "$one" domain-alloc &&
		oracle "$one" domain-map 0x50000000 "$a" rw &&
		expect phys "phys $(printf '0x%x' $((a_phys + 0x123)))" \
			"$(oracle "$one" domain-phys 0x50000123)" &&
		expect "before" tx_fail "$(oracle "$one" dma write 0x4ffff000)" &&
		expect "after" tx_fail "$(oracle "$one" dma write 0x50001000)" &&
		expect "in it" ok "$(oracle "$one" dma write 0x50000ffc 4)" &&
		expect "last word" "differs at 0x0: 0x00000000" "$(oracle "$one" check "$a" $PATTERN)" &&
		oracle "$one" fill "$a" 0 &&
		expect "unmapped" tx_fail "$(oracle "$one" domain-unmap 0x50000000 then-write)" &&
		expect page match "$(oracle "$one" check "$a" 0)" &&
		expect tables none "$(oracle "$one" domain-phys 0x50000000)"
	status=$?
	oracle "$one" domain-free && return $status
}

# 2 MB and 4 KB in one table, and the large one's last page.
large_page()
{
	page "$one" 0x88888888 512 && a=$handle && page "$one" 0x99999999 && b=$handle &&
		oracle "$one" domain-alloc &&
		oracle "$one" domain-map 0x60000000 "$a" rw &&
		oracle "$one" domain-map 0x60200000 "$b" rw &&
		expect "last page" ok "$(oracle "$one" dma write 0x601ff000)" &&
		expect "large" "differs at 0x1ff000: $PATTERN" "$(oracle "$one" check "$a" 0x88888888)" &&
		expect "small" match "$(oracle "$one" check "$b" 0x99999999)" &&
		expect "unmapped" tx_fail "$(oracle "$one" domain-unmap 0x60000000 then-write)" &&
		expect "small" ok "$(oracle "$one" dma write 0x60200000)"
	status=$?
	oracle "$one" domain-free && oracle "$one" free "$a" && oracle "$one" free "$b" && return $status
}

default_domain_is_back()
{
	write_reaches_its_page
}

unload()
{
	rmmod rust_testdev && wait_for 5 test ! -e "/sys/kernel/debug/rust_testdev-$one" &&
		expect "left mapped" "" "$(log_since_mark | grep "driver .* left ")"
}

quiet()
{
	"$@" >/tmp/quiet || { sed 's/^/# /' /tmp/quiet; return 1; }
}

ktap_test_result "two groups" setup
ktap_test_result "a mapped write reaches its page and no other" quiet write_reaches_its_page
ktap_test_result "a mapped read reaches its page" quiet read_reaches_its_page
ktap_test_result "an unmapped write fails and is reported once" quiet unmapped_write_is_reported_once
ktap_test_result "an unmapped read is reported once" quiet unmapped_read_is_reported_once
ktap_test_result "a read-only mapping refuses writes" quiet read_only_refuses_write
ktap_test_result "a write-only mapping refuses reads" quiet write_only_refuses_read
ktap_test_result "nothing is reached after unmap" quiet nothing_is_reached_after_unmap
ktap_test_result "three, five and seven pages are reached, and then none of them" quiet all_of_odd_sizes_goes
case $VARIANT in
window*)
	ktap_test_result "nothing that was put off is reached once max_age_ms was written" quiet another_age_ends_what_was_put_off
	ktap_test_result "nothing that was put off is reached once the policy was changed" quiet another_policy_ends_what_was_put_off
	;;
*)
	ktap_test_skip "nothing that was put off is reached once max_age_ms was written (nothing is put off)"
	ktap_test_skip "nothing that was put off is reached once the policy was changed (nothing is put off)"
	;;
esac
ktap_test_result "a neighbour survives an unmap" quiet neighbour_survives_unmap
ktap_test_result "C12: one address, two groups, two pages" quiet same_address_different_pages
ktap_test_result "a domain of its own is exact" quiet own_domain_is_exact
ktap_test_result "large and small pages in one table" quiet large_page
ktap_test_result "the default domain is back" quiet default_domain_is_back
ktap_test_result "unload" unload
ktap_finished
