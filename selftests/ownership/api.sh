#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Ownership of DMA as the Rust API gives it out, by rust_testowner: devices in a
# group of three (behind a PCI bridge) and one in a group of its own. A device that
# writes and tells whether it could is what all of it is judged by.
#
# variant strict: --policy strict --nvme 0 --device pcie-root-port,id=c0,chassis=1,slot=1 --device pcie-pci-bridge,id=c1,bus=c0 --device iommu-testdev,bus=c1,addr=1 --device edu,bus=c1,addr=2,dma_mask=0xffffffffffffffff --device iommu-testdev,bus=c1,addr=3 --device iommu-testdev
# variant lazy on stock: --policy lazy --nvme 0 --device pcie-root-port,id=c0,chassis=1,slot=1 --device pcie-pci-bridge,id=c1,bus=c0 --device iommu-testdev,bus=c1,addr=1 --device edu,bus=c1,addr=2,dma_mask=0xffffffffffffffff --device iommu-testdev,bus=c1,addr=3 --device iommu-testdev
# variant amd on stock: --iommu amd --policy strict --nvme 0 --device pcie-root-port,id=c0,chassis=1,slot=1 --device pcie-pci-bridge,id=c1,bus=c0 --device iommu-testdev,bus=c1,addr=1 --device edu,bus=c1,addr=2,dma_mask=0xffffffffffffffff --device iommu-testdev,bus=c1,addr=3 --device iommu-testdev
# variant in-tree: --in-tree --policy strict --nvme 0 --device pcie-root-port,id=c0,chassis=1,slot=1 --device pcie-pci-bridge,id=c1,bus=c0 --device iommu-testdev,bus=c1,addr=1 --device edu,bus=c1,addr=2,dma_mask=0xffffffffffffffff --device iommu-testdev,bus=c1,addr=3 --device iommu-testdev
# variant virtio on stock: --iommu virtio --policy strict --nvme 0 --device pcie-root-port,id=c0,chassis=1,slot=1 --device pcie-pci-bridge,id=c1,bus=c0 --device iommu-testdev,bus=c1,addr=1 --device edu,bus=c1,addr=2,dma_mask=0xffffffffffffffff --device iommu-testdev,bus=c1,addr=3 --device iommu-testdev
# extra: in-tree lazy strict/debug
# timeout: 90

. /selftests/lib.sh

# What iommu-testdev writes, and what was there before.
PATTERN=0x12345678
BEFORE=0x0f0f0f0f
# Where the tests map what they own.
IOVA=0x40000000

load()
{
	load_iommu && { [ -d /sys/module/rust_iommu ] || insmod /modules/rust_iommu.ko; } &&
		insmod /modules/rust_testowner.ko || return 1
	# Three in one group, one alone. The edu is the third of the group.
	edu=$(pci_devices 1234:11e8)
	for device in $(pci_devices 1b36:0005); do
		if [ "$(group_of "$device")" != "$(group_of "$edu")" ]; then
			alone=$device
		elif [ -z "$a" ]; then
			a=$device
		else
			b=$device
		fi
	done
	[ -n "$a" ] && [ -n "$b" ] && [ -n "$alone" ]
}

# counter NAME
counter()
{
	sed -n "s/^$1 //p" /sys/kernel/debug/rust_testowner/counters
}

bound()
{
	expect "driver of $2" "rust_$1" "$(basename "$(readlink "/sys/bus/pci/devices/$2/driver")")"
}

# own_page DEVICE KEY: claims, and attaches a domain with one page at $IOVA; sets $page
own_page()
{
	says done rust_udma "$1" claim "$2" && new_page "$1" &&
		domain=$(answer_of domain "$(ask rust_udma "$1" domain-new)") &&
		says done rust_udma "$1" domain-map "$domain" $IOVA "$page" rw &&
		says done rust_udma "$1" attach "$domain"
}

new_page()
{
	page=$(answer_of handle "$(ask rust_udma "$1" page)") &&
		says done rust_udma "$1" fill "$page" $BEFORE
}

# write_reaches DEVICE [OWNER-OF-THE-PAGE], write_fails DEVICE
write_reaches()
{
	says ok rust_udma "$1" dma write $IOVA &&
		says match rust_udma "${2:-$1}" check "$page" $PATTERN &&
		says done rust_udma "${2:-$1}" fill "$page" $BEFORE
}

write_fails()
{
	says tx_fail rust_udma "$1" dma write $IOVA && says match rust_udma "$1" check "$page" $BEFORE
}

both_drivers_bind_by_override()
{
	take rust_udma "$a" && bound udma "$a" && take rust_kdma "$alone" && bound kdma "$alone" &&
		mapping=$(answer_of iova "$(ask rust_kdma "$alone" buffer)") &&
		says ok rust_kdma "$alone" dma write "$mapping" &&
		says "error EOPNOTSUPP" rust_udma "$a" map both
}

remove_ends_all_but_devres_first()
{
	leave "$alone" && expect removes 1 "$(counter kdma.removes)" &&
		expect "devres ends" 1 "$(counter kdma.devres_ends)" &&
		expect failures 0 "$(counter kdma.probe_failures)"
}

claim_blocks_all_dma()
{
	says done rust_udma "$a" claim 1 && new_page "$a" && write_fails "$a"
}

second_claim_is_refused()
{
	says "error EALREADY" rust_udma "$a" claim 1 && says "error EALREADY" rust_udma "$a" claim 2
}

# The message names the group, and the device and driver that are in the way.
other_key_is_refused_and_told_why()
{
	take rust_udma "$b" && mark_log && says "error EPERM" rust_udma "$b" claim 2 &&
		expect message 1 "$(log_since_mark | grep -c \
			"$b: cannot own DMA of group $(group_of "$b"): claimed for $a (rust_udma)\$")"
}

shared_key_is_one_owner()
{
	says done rust_udma "$b" claim 1 && says done rust_udma "$a" release &&
		says "error EPERM" rust_udma "$a" claim 2 && says done rust_udma "$a" claim 1 &&
		in_report "group $(group_of "$b"): claimed through 2 of 4 devices" &&
		in_report "  $b driver rust_udma, manages DMA itself, has claimed, domain blocked" &&
		says done rust_udma "$a" release && says done rust_udma "$b" release &&
		expect releases "$(counter udma.claims)" "$(counter udma.releases)"
}

attached_for_the_whole_group()
{
	own_page "$a" 1 && write_reaches "$a" && says done rust_udma "$b" claim 1 &&
		write_reaches "$b" "$a"
}

domain_to_domain_is_refused()
{
	second=$(answer_of domain "$(ask rust_udma "$a" domain-new)") &&
		says "error EBUSY" rust_udma "$a" attach "$second" &&
		theirs=$(answer_of domain "$(ask rust_udma "$b" domain-new)") &&
		says "error EBUSY" rust_udma "$b" attach "$theirs" && write_reaches "$a" &&
		says done rust_udma "$a" detach && write_fails "$a" &&
		says done rust_udma "$a" attach "$second" && write_fails "$a" &&
		says done rust_udma "$a" detach && says done rust_udma "$a" attach "$domain" &&
		write_reaches "$a"
}

only_what_is_mapped_is_reached()
{
	says tx_fail rust_udma "$a" dma write 0x40001000 4 &&
		says tx_fail rust_udma "$a" dma write 0x3ffff000 4 &&
		says "error EEXIST" rust_udma "$a" domain-map "$domain" $IOVA "$page" rw &&
		says done rust_udma "$a" domain-unmap "$domain" $IOVA && write_fails "$a" &&
		says done rust_udma "$a" domain-map "$domain" $IOVA "$page" r && write_fails "$a" &&
		says done rust_udma "$a" domain-unmap "$domain" $IOVA &&
		says done rust_udma "$a" domain-map "$domain" $IOVA "$page" rw && write_reaches "$a"
}

# A domain that is freed while it is attached stays until it is detached.
attached_domain_outlives_its_name()
{
	says done rust_udma "$a" domain-free "$domain" && write_reaches "$a"
}

probe_on_claimed_group_is_refused()
{
	probes=$(counter kdma.probes)
	take rust_kdma "$edu" | grep -q 'Device or resource busy' &&
		expect "driver of $edu" "" "$(readlink "/sys/bus/pci/devices/$edu/driver")" &&
		expect probes "$probes" "$(counter kdma.probes)" && write_reaches "$a" &&
		write_reaches "$b" "$a"
}

# Only the group's last token gives the group back.
release_of_one_keeps_the_other()
{
	says done rust_udma "$b" release && write_reaches "$a" &&
		take rust_kdma "$edu" | grep -q 'Device or resource busy'
}

# The domain goes with the token that it was attached through: what is left blocks.
release_takes_its_domain_along()
{
	says done rust_udma "$b" claim 1 && write_reaches "$b" "$a" && says done rust_udma "$a" release &&
		write_fails "$a" && says done rust_udma "$b" attach "$theirs" &&
		says done rust_udma "$b" release
}

nothing_is_reached_after_release()
{
	for _ in 1 2 3 4 5 6 7 8; do
		own_page "$a" 0 && write_reaches "$a" && says done rust_udma "$a" release &&
			write_fails "$a" && says tx_fail rust_udma "$b" dma write $IOVA || return 1
	done
}

# What is claimed ends with the driver, without a release.
unbind_releases()
{
	own_page "$a" 3 && write_reaches "$a" && leave "$a" &&
		expect releases "$(counter udma.claims)" "$(counter udma.releases)" &&
		says tx_fail rust_udma "$b" dma write $IOVA
}

# Made for a device, used by one of another group too, and kept by that one when the first has
# lost its driver and with it the domain's number.
domain_is_shared_and_outlives_its_maker()
{
	take rust_udma "$alone" && own_page "$alone" 1 && write_reaches "$alone" &&
		says done rust_udma "$b" claim 2 && says done rust_udma "$b" attach "$domain" &&
		write_reaches "$b" "$alone" && write_reaches "$alone" &&
		says done rust_udma "$b" domain-unmap "$domain" $IOVA && write_fails "$alone" &&
		says tx_fail rust_udma "$b" dma write $IOVA &&
		says done rust_udma "$alone" domain-map "$domain" $IOVA "$page" rw &&
		write_reaches "$b" "$alone" && leave "$alone" && says ok rust_udma "$b" dma write $IOVA &&
		says "error ENOENT" rust_udma "$b" domain-unmap "$domain" $IOVA &&
		says done rust_udma "$b" release && says tx_fail rust_udma "$b" dma write $IOVA &&
		races device "$alone" override rust_kdma
}

kernel_driver_binds_after_release()
{
	take rust_kdma "$edu" && bound kdma "$edu" && take rust_kdma "$a" && bound kdma "$a" &&
		iova=$(answer_of iova "$(ask rust_kdma "$a" buffer)") &&
		says ok rust_kdma "$a" dma write "$iova"
}

# told_why DEVICE NAME...: the last refusal named these, where our driver knows them.
told_why()
{
	told_text="$1: cannot own DMA of group $(group_of "$1"): used through the DMA API, or by another owner"
	shift
	[ "$VARIANT" = in-tree ] || told_text="$told_text: $*"
	expect message "$told_text" "$(log_since_mark | grep 'cannot own' | tail -n 1 | sed 's/^rust_udma //')"
}

# in_report LINE: the report of holders has it.
in_report()
{
	[ "$VARIANT" = in-tree ] || grep -qxF "$1" $DRIVER_FILES/groups && return 0
	sed 's/^/# /' $DRIVER_FILES/groups
	return 1
}

kernel_driver_refuses_claims()
{
	mark_log
	says "error EPERM" rust_udma "$b" claim 1 &&
		told_why "$b" "$a (rust_kdma), $edu (rust_kdma)" &&
		in_report "group $(group_of "$b"): held for the DMA API by 2 of 4 devices" &&
		in_report "  $a driver rust_kdma, uses the DMA API, domain default" &&
		says ok rust_kdma "$a" dma write "$iova" && leave "$a" && mark_log &&
		says "error EPERM" rust_udma "$b" claim 1 && told_why "$b" "$edu (rust_kdma)" && leave "$edu" &&
		says done rust_udma "$b" claim 1 && says done rust_udma "$b" release
}

# set_type DEVICE TYPE: prints the reason where it fails.
set_type()
{
	( echo "$2" >"/sys/bus/pci/devices/$1/iommu_group/type" ) 2>&1
}

refused()
{
	set_type "$1" "$2" | grep -q 'Operation not permitted'
}

type_is_fixed_while_owned()
{
	leave "$a" "$edu" && says done rust_udma "$b" claim 1 && before=$(type_of "$b") &&
		refused "$b" identity && refused "$b" auto &&
		expect type "$before" "$(type_of "$b")" && says done rust_udma "$b" release &&
		take rust_kdma "$edu" && refused "$b" identity && refused "$b" auto &&
		says tx_fail rust_udma "$b" dma write $IOVA && leave "$edu"
}

# The default domain of a group without owner: identity lets everything through.
type_changes_while_unowned()
{
	new_page "$b" && phys=$(answer_of phys "$(ask rust_udma "$b" page)") || return 1
	for _ in 1 2 3 4 5; do
		set_type "$b" identity && expect type identity "$(type_of "$b")" &&
			says ok rust_udma "$b" dma write "$phys" &&
			set_type "$b" DMA && expect type DMA "$(type_of "$b")" &&
			says tx_fail rust_udma "$b" dma write "$phys" &&
			set_type "$b" DMA-FQ && expect type DMA-FQ "$(type_of "$b")" &&
			says tx_fail rust_udma "$b" dma write "$phys" &&
			set_type "$b" auto || return 1
	done
}

# With a driver bound: from DMA to DMA-FQ only, live.
type_goes_lazy_while_bound()
{
	set_type "$b" DMA && take rust_kdma "$a" &&
		iova=$(answer_of iova "$(ask rust_kdma "$a" map both)") && set_type "$b" DMA-FQ &&
		expect type DMA-FQ "$(type_of "$b")" && says ok rust_kdma "$a" dma write "$iova" &&
		refused "$b" DMA && leave "$a"
}

# A claim and its release bring back the default domain that there is then.
default_domain_after_release()
{
	set_type "$b" identity && says done rust_udma "$b" claim 2 &&
		says tx_fail rust_udma "$b" dma write "$phys" && says done rust_udma "$b" release &&
		says ok rust_udma "$b" dma write "$phys" && set_type "$b" auto
}

counts_agree_and_modules_unload()
{
	leave "$a" "$b" "$edu" "$alone" &&
		expect releases "$(counter udma.claims)" "$(counter udma.releases)" &&
		expect "devres ends" "$(counter kdma.removes)" "$(counter kdma.devres_ends)" &&
		leak_scan && sed 's/^/# /' /sys/kernel/debug/rust_testowner/counters &&
		rmmod rust_testowner && leak_scan
}

# The device is bound as soon as its driver is there again: the override still names it.
leak_is_made_on_purpose()
{
	insmod /modules/rust_testowner.ko && wait_for 5 bound kdma "$alone" &&
		answer=$(ask rust_kdma "$alone" leak both 2) &&
		expect size 0x2000 "$(answer_of size "$answer")" &&
		says ok rust_kdma "$alone" dma write "$(answer_of iova "$answer")" && leave "$alone"
}

ktap_print_header
ktap_set_plan 25
ktap_test_result "H3 load" load
ktap_print_msg "group: $a $b $edu, alone: $alone"
ktap_test_result "H3 both drivers bind by override and do what is theirs" both_drivers_bind_by_override
ktap_test_result "B1 remove ends what the driver had, devres its buffer" remove_ends_all_but_devres_first
ktap_test_result "B7 a claim blocks DMA" claim_blocks_all_dma
ktap_test_result "B19 a device is claimed once: EALREADY" second_claim_is_refused
ktap_test_result "B23 another key: EPERM, and who is in the way" other_key_is_refused_and_told_why
ktap_test_result "B19 devices with one key are one owner" shared_key_is_one_owner
ktap_test_result "B21 a domain is attached for the whole group" attached_for_the_whole_group
ktap_test_result "B21 not from domain to domain: EBUSY" domain_to_domain_is_refused
ktap_test_result "B19 only what is mapped is reached" only_what_is_mapped_is_reached
ktap_test_result "B19 an attached domain is not freed" attached_domain_outlives_its_name
ktap_test_result "B7 a driver's probe on a claimed group: EBUSY, owner unaffected" probe_on_claimed_group_is_refused
ktap_test_result "B19 a release is that of one device" release_of_one_keeps_the_other
ktap_test_result "B27 a release takes its domain along" release_takes_its_domain_along
ktap_test_result "B27 nothing of the owner's is reached after release" nothing_is_reached_after_release
ktap_test_result "B12 unbind releases the driver's claim" unbind_releases
ktap_test_result "B21 a domain is shared, and outlives its maker's binding" \
	domain_is_shared_and_outlives_its_maker
ktap_test_result "B7 after release a driver binds" kernel_driver_binds_after_release
ktap_test_result "B10 no claim while a driver is bound, and none left by the refusal" kernel_driver_refuses_claims
ktap_test_result "B22 type is fixed while claimed or bound: EPERM" type_is_fixed_while_owned
ktap_test_result "B22 type changes while unowned" type_changes_while_unowned
ktap_test_result "B22 DMA to DMA-FQ while bound" type_goes_lazy_while_bound
ktap_test_result "B22 the default domain is back after release" default_domain_after_release
ktap_test_result "B1 as many releases as claims, nothing is left" counts_agree_and_modules_unload
if [ "$KERNEL" = debug ]; then
	ktap_test_skip "Y16 a mapping can be leaked: this kernel's DMA debugging warns of it"
else
	ktap_test_result "Y16 a mapping can be leaked" leak_is_made_on_purpose
fi
ktap_finished
