#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Row A17: a device that reaches 28 bits of addresses only, and maps large buffers one after the
# other. What was unmapped waits for a flush, and must not be what the next map lacks.
#
# variant window-16: --policy strict --nvme 0 --device edu
# variant window-64 on stock: --policy strict --nvme 0 --device edu
# variant window-caching-mode on stock: --policy strict --iommu-opt caching-mode=on --nvme 0 --device edu
# variant window-million on stock: --policy strict --nvme 0 --device edu
# variant window-amd on stock: --iommu amd --policy strict --nvme 0 --device edu
# variant window-million-amd on stock: --iommu amd --policy strict --nvme 0 --device edu
# variant in-tree: --in-tree --policy lazy --nvme 0 --device edu
# skip virtio: there is no window where units keep no table; kept looks at how much of the addresses is kept instead
# extra: in-tree window-16/debug window-amd
# long: window-million window-million-amd
# timeout: 150

. /selftests/lib.sh

case $VARIANT in
in-tree) ktap_print_header && ktap_set_plan 2 ;;
*) ktap_print_header && ktap_set_plan 7 ;;
esac

# How many maps all together, but for those of a kernel that is slow.
window=16
case $VARIANT in
*-million*) MAPS=${MAPS:-1000000} ;;
*-64) window=64 ;;
esac
[ "$KERNEL" != debug ] || MAPS=${MAPS:-10000}
MAPS=${MAPS:-50000}

edu=$(pci_devices 1234:11e8)

# The window is made for the mask that the device has when its driver comes.
load()
{
	insmod /modules/rust_iommu.ko policy=lazy lazy_window_mb=$window || return 1
	[ "$VARIANT" = in-tree ] || insmod /modules/$DRIVER.ko || return 1
	insmod /modules/rust_bench.ko && take rust_bench "$edu" &&
		expect mask "done" "$(ask rust_bench "$edu" mask 28)" && unbind "$edu" && bind rust_bench "$edu" || return 1
	case $VARIANT in
	window*) ktap_print_msg "$(window_line)" && [ -n "$(window_at)" ] && [ $(($(window_at) + (window << 20) - 1 >> 28)) = 0 ] ;;
	esac
}

window_line()
{
	sed -n "/^group $(group_of "$edu"):/,/^group/s/^ *window at/window at/p" $DRIVER_FILES/groups
}

window_at()
{
	window_line | sed 's/window at \(0x[0-9a-f]*\),.*/\1/'
}

# maps COUNT PARAMETER...: so many, by runs that end well before their time is over.
maps()
{
	left=$1
	failed=0
	low=$((1 << 62))
	high=0
	shift
	while [ "$left" -gt 0 ]; do
		pairs=$((left < 25000 ? left : 25000))
		answer=$(ask rust_bench "$edu" run pairs=$pairs "$@") || { ktap_print_msg "$answer" && return 1; }
		failed=$((failed + $(answer_of failed "$answer")))
		left=$((left - $(answer_of pairs "$answer")))
		from=$(($(answer_of low "$answer")))
		to=$(($(answer_of high "$answer")))
		low=$((from < low ? from : low))
		high=$((to > high ? to : high))
	done
	ktap_print_msg "$*: $failed failed, $(printf '0x%x to 0x%x' $low $high); $(answer_of ns "$answer") ns a pair"
	[ $((high >> 28)) = 0 ]
}

# Nor does one find no place in the window, for which the core would give another.
none_fails()
{
	maps "$@" && expect failures 0 $failed && [ $low -ge $(($(window_at))) ] &&
		[ $high -lt $(($(window_at) + (window << 20))) ]
}

# The kernel's own driver runs out of addresses: its queue is flushed by count or time, not for want.
some_fail()
{
	maps "$@" && [ $failed -gt 0 ]
}

nothing_is_left()
{
	ktap_print_msg "$(window_line)"
	unbind "$edu" && rmmod rust_bench && echo 1 >/sys/module/$DRIVER/parameters/shutdown &&
		rmmod $DRIVER && rmmod rust_iommu && leak_scan
}

ktap_test_result "load" load
if [ "$VARIANT" = in-tree ]; then
	ktap_test_result "control: 1 MB" some_fail 20000 size=1M threads=2
	ktap_finished
fi
ktap_test_result "A17 128 KB, one at a time" none_fails $((MAPS * 2 / 5)) size=128k
ktap_test_result "A17 128 KB, 32 at a time on each of two CPUs" none_fails $((MAPS / 5)) size=128k depth=32 threads=2
ktap_test_result "A17 1 MB, one at a time" none_fails $((MAPS / 5)) size=1M
ktap_test_result "A17 1 MB, 4 at a time on each of two CPUs" none_fails $((MAPS / 10)) size=1M depth=4 threads=2
ktap_test_result "A17 both, 8 at a time" none_fails $((MAPS / 10)) size=128k second=1M depth=8
ktap_test_result "Y1 nothing is left" nothing_is_left
ktap_finished
