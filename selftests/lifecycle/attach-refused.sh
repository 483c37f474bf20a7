#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Row U4: a unit that keeps no table refuses an attach, which it can do for any. The device stays where it was, with
# all that is mapped there, though the unit has forgotten that meanwhile; and nothing is left of the attach. Here it
# has done what it was asked for, and only its answer is another one.
#
# The kernel's own DMA debugging would warn of the leak that is made here: it is off.
#
# variant virtio: --iommu virtio --policy lazy --nvme 0 --testdev --append dma_debug=off
# skip vtd amd: a table's entry is written, which cannot be refused
# modules: inject
# timeout: 60

. /selftests/lib.sh

ktap_print_header
ktap_set_plan 6

dev=$(pci_devices 1b36:0005)
IOVA=0x40000000

load()
{
	load_iommu && insmod /modules/rust_testowner.ko && set_type "$dev" DMA-FQ && take rust_kdma "$dev" &&
		leak=$(answer_of iova "$(ask rust_kdma "$dev" leak both)") && says ok rust_kdma "$dev" dma write "$leak" &&
		leave "$dev" && expect "write without a driver" ok "$(races ghost "$dev" "$leak")"
}

refused_once()
{
	mark_log
	races inject fail attach.told 5
}

# refused_line: that was said, and that nothing was leaked
refused_line()
{
	races inject clear && expect lines 1 "$(log_since_mark | grep -c "$dev: attach was refused")" &&
		expect leaks 0 "$(log_since_mark | grep -c leaking)"
}

numbers()
{
	sed -n 's/^domain_ids: //p' $DRIVER_FILES/${UNIT_NAME}0/stats
}

# From one default domain to another one.
back_to_what_is_mapped()
{
	before=$(numbers) && refused_once && set_type "$dev" DMA | grep -q 'Input/output error' && refused_line &&
		expect type DMA-FQ "$(type_of "$dev")" && expect numbers "$before" "$(numbers)" &&
		expect "write after that" ok "$(races ghost "$dev" "$leak")"
}

# A second one is not.
the_next_one_is_not()
{
	set_type "$dev" DMA && expect type DMA "$(type_of "$dev")" &&
		expect "write in another domain" tx_fail "$(races ghost "$dev" "$leak")"
}

# The unit does not know the domain any more, and is not to be told of it.
owner_stays_blocked()
{
	take rust_udma "$dev" && says "done" rust_udma "$dev" claim 0 &&
		page=$(answer_of handle "$(ask rust_udma "$dev" page)") &&
		domain=$(answer_of domain "$(ask rust_udma "$dev" domain-new)") && before=$(numbers) && refused_once &&
		says "error EIO" rust_udma "$dev" attach "$domain" && refused_line &&
		expect numbers "$before" "$(numbers)" &&
		says "done" rust_udma "$dev" domain-map "$domain" $IOVA "$page" rw &&
		says tx_fail rust_udma "$dev" dma write $IOVA &&
		says "done" rust_udma "$dev" attach "$domain" && says ok rust_udma "$dev" dma write $IOVA &&
		says "done" rust_udma "$dev" release && leave "$dev" &&
		expect refused "refused: 0" "$(grep refused $DRIVER_FILES/${UNIT_NAME}0/stats)"
}

# The device would forget all. pm_test would end it in time.
no_suspend()
{
	[ ! -e /sys/power/pm_test ] || echo devices >/sys/power/pm_test
	mark_log
	! ( echo freeze >/sys/power/state ) 2>/tmp/freeze && grep -q 'resource busy' /tmp/freeze &&
		expect lines 1 "$(log_since_mark | grep -c 'in use as an IOMMU, and cannot be suspended')"
}

unload()
{
	rmmod rust_testowner && echo 1 >/sys/module/$DRIVER/parameters/shutdown && rmmod $DRIVER && rmmod rust_iommu
}

ktap_test_result "U4 load" load
ktap_test_result "U4 refused: it is back in its domain, with what is mapped" back_to_what_is_mapped
ktap_test_result "U4 the next one is not refused" the_next_one_is_not
ktap_test_result "U4 an owner's device stays blocked" owner_stays_blocked
if grep -q freeze /sys/power/state; then
	ktap_test_result "U4 no suspend" no_suspend
else
	ktap_test_skip "U4 no suspend: this kernel knows none"
fi
ktap_test_result "U4 unload" unload
ktap_finished
