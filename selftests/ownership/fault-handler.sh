#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# report_iommu_fault(): who has set a handler for a domain is told what was refused there, and may map it; of
# other devices the kernel's trace event tells. With rust_testowner, see selftests/modules/owner/faults.rs.
#
# variant strict: --policy strict --nvme 0 --testdev=2 --device edu,dma_mask=0xffffffffffffffff
# variant caching-mode: --policy strict --iommu-opt caching-mode=on --nvme 0 --testdev=2 --device edu,dma_mask=0xffffffffffffffff
# variant lazy on stock: --policy lazy --nvme 0 --testdev=2 --device edu,dma_mask=0xffffffffffffffff
# variant amd: --iommu amd --policy strict --nvme 0 --testdev=2 --device edu,dma_mask=0xffffffffffffffff
# variant virtio: --iommu virtio --policy strict --nvme 0 --testdev=2 --device edu,dma_mask=0xffffffffffffffff
# extra: lazy caching-mode/debug strict/debug amd/debug virtio/debug
# timeout: 90

. /selftests/lib.sh

IOVA=0x40003000
OTHER=0x52345000
TRACING=/sys/kernel/tracing

load()
{
	load_iommu && insmod /modules/rust_testowner.ko || return 1
	one=$(pci_devices 1b36:0005 | head -n 1)
	two=$(pci_devices 1b36:0005 | tail -n 1)
	edu=$(pci_devices 1234:11e8)
	[ "$one" != "$two" ] && take rust_udma "$one" && take rust_udma "$two" && take rust_udma "$edu" &&
		{ [ -d $TRACING/events ] || mount -t tracefs tracefs $TRACING; }
}

recorded()
{
	cat "/sys/class/iommu/${UNIT_NAME}0/rust_iommu/faults"
}

# own DEVICE note|map: claims, and attaches a new domain with a handler; sets $domain
own()
{
	says done rust_udma "$1" claim 1 && domain=$(answer_of domain "$(ask rust_udma "$1" domain-new "$2")") &&
		says done rust_udma "$1" attach "$domain"
}

give_up()
{
	says done rust_udma "$1" release && says done rust_udma "$1" domain-free "$2"
}

# sees DEVICE DOMAIN TEXT: soon the domain's handler says that.
sees()
{
	seen()
	{
		[ "$(ask rust_udma "$1" domain-faults "$2")" = "$3" ]
	}
	wait_for 10 seen "$@" || expect "handler of $1" "$3" "$(ask rust_udma "$1" domain-faults "$2")"
}

# told PCI-ADDRESS read|write IOVA [sure]: what a handler is told. See "reported" in lib.sh: QEMU's AMD-Vi does not
# record the address nor what was wanted, its virtio-iommu the latter only where something else is allowed; then it
# passes for a read.
told()
{
	case $UNIT_NAME in
	amdvi) echo "device $1 iova 0x0 read" ;;
	viommu) [ -n "$4" ] && echo "device $1 iova $3 $2" || echo "device $1 iova $3 read" ;;
	*) echo "device $1 iova $3 $2" ;;
	esac
}

handler_is_told()
{
	own "$one" note && says "count 0 mapped 0" rust_udma "$one" domain-faults "$domain" &&
		says tx_fail rust_udma "$one" dma write $IOVA 4 &&
		sees "$one" "$domain" "count 1 mapped 0 $(told "$one" write $IOVA)" &&
		says tx_fail rust_udma "$one" dma write $OTHER 4 &&
		sees "$one" "$domain" "count 2 mapped 0 $(told "$one" write $OTHER)"
}

handler_is_told_of_reads()
{
	own "$edu" note && says over rust_udma "$edu" dma read $IOVA 4 &&
		sees "$edu" "$domain" "count 1 mapped 0 $(told "$edu" read $IOVA)" && give_up "$edu" "$domain"
}

# Mapped, but not for this.
handler_is_told_of_permissions()
{
	page=$(answer_of handle "$(ask rust_udma "$one" page)") && says done rust_udma "$one" domain-map "$domain" $IOVA "$page" r &&
		says tx_fail rust_udma "$one" dma write $IOVA 4 &&
		sees "$one" "$domain" "count 3 mapped 0 $(told "$one" write $IOVA sure)"
}

# Each one's own, at the same address.
each_has_its_own()
{
	first=$domain
	own "$two" note && second=$domain && domain=$first && says tx_fail rust_udma "$two" dma write $OTHER 4 &&
		sees "$two" "$second" "count 1 mapped 0 $(told "$two" write $OTHER)" &&
		sees "$one" "$first" "count 3 mapped 0 $(told "$one" write $IOVA sure)" &&
		says tx_fail rust_udma "$one" dma write $OTHER 4 &&
		sees "$one" "$first" "count 4 mapped 0 $(told "$one" write $OTHER)" &&
		sees "$two" "$second" "count 1 mapped 0 $(told "$two" write $OTHER)" && give_up "$two" "$second"
}

# One domain, two devices: the handler is told which.
shared_domain_tells_devices_apart()
{
	says done rust_udma "$two" claim 1 && says done rust_udma "$two" attach "$domain" &&
		says tx_fail rust_udma "$two" dma write $OTHER 4 &&
		sees "$one" "$domain" "count 5 mapped 0 $(told "$two" write $OTHER)" &&
		says tx_fail rust_udma "$one" dma write $OTHER 4 &&
		sees "$one" "$domain" "count 6 mapped 0 $(told "$one" write $OTHER)" && says done rust_udma "$two" release
}

# The unit reports what is refused to a blocked device; the handler of the domain that it has left is not called.
nobody_is_told_after_detach()
{
	before=$(recorded)
	more()
	{
		[ "$(recorded)" -gt "$before" ]
	}
	says done rust_udma "$one" detach && says tx_fail rust_udma "$one" dma write $OTHER 4 && wait_for 10 more &&
		sleep 1 && sees "$one" "$domain" "count 6 mapped 0 $(told "$one" write $OTHER)" && give_up "$one" "$domain"
}

handler_maps_on_demand()
{
	own "$one" map && says tx_fail rust_udma "$one" dma write $IOVA 4 &&
		sees "$one" "$domain" "count 1 mapped 1 $(told "$one" write $IOVA)" &&
		says ok rust_udma "$one" dma write $IOVA 4 && says tx_fail rust_udma "$one" dma write $OTHER 4 &&
		sees "$one" "$domain" "count 2 mapped 2 $(told "$one" write $OTHER)" &&
		says ok rust_udma "$one" dma write $OTHER 4 && says ok rust_udma "$one" dma write $IOVA 4 &&
		sees "$one" "$domain" "count 2 mapped 2 $(told "$one" write $OTHER)" && give_up "$one" "$domain"
}

# traced DRIVER PCI-ADDRESS IOVA FLAGS: the kernel's event of this.
traced()
{
	case $UNIT_NAME in
	amdvi) set -- "$1" "$2" 0 0 ;;
	viommu) set -- "$1" "$2" "$3" 0 ;;
	esac
	grep -q "io_page_fault: IOMMU:$1 $2 iova=$(printf '0x%016x flags=0x%04x' "$3" "$4")" $TRACING/trace
}

event_for_the_dma_api()
{
	leave "$two" && take rust_kdma "$two" && echo >$TRACING/trace && echo 1 >$TRACING/events/iommu/io_page_fault/enable &&
		says tx_fail rust_kdma "$two" dma write $OTHER 4
	wait_for 10 traced rust_kdma "$two" $OTHER 1
	found=$?
	echo 0 >$TRACING/events/iommu/io_page_fault/enable
	[ $found = 0 ] || grep -v '^#' $TRACING/trace | sed 's/^/# /'
	return $found
}

all_were_handled()
{
	counter()
	{
		sed -n "s/^udma.$1 //p" /sys/kernel/debug/rust_testowner/counters
	}
	expect handled "$(counter faults)" "$(counter handled)" &&
		grep -q '^dropped_reports: 0$' "$DRIVER_FILES/${UNIT_NAME}0/stats"
}

unload()
{
	leave "$one" "$two" "$edu" && rmmod rust_testowner && leak_scan
}

ktap_print_header
ktap_set_plan 11
ktap_test_result "load" load
ktap_test_result "a handler is told of a write: device, address, access" handler_is_told
ktap_test_result "a handler is told of what its mapping does not allow" handler_is_told_of_permissions
ktap_test_result "each domain's handler is told of its device" each_has_its_own
ktap_test_result "the handler of a shared domain is told which device" shared_domain_tells_devices_apart
ktap_test_result "after a detach the handler is not called" nobody_is_told_after_detach
ktap_test_result "a handler is told of a read" handler_is_told_of_reads
if [ $UNIT_NAME = amdvi ]; then
	ktap_test_skip "a handler maps what is missing: QEMU's AMD-Vi does not say where"
else
	ktap_test_result "a handler maps what is missing, and the next access succeeds" handler_maps_on_demand
fi
ktap_test_result "the trace event tells of a device of the DMA API" event_for_the_dma_api
ktap_test_result "all calls have ended, and no report was dropped" all_were_handled
ktap_test_result "unload" unload
ktap_finished
