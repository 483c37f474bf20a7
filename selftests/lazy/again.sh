#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# With caching mode, and with AMD-Vi's NpCache, every new mapping takes an invalidation. One that comes back before its flush is not new.
#
# variant caching-mode: --policy strict --iommu-opt caching-mode=on --nvme 0 --device edu --trace vtd_inv_desc_*
# variant amd on stock: --iommu amd --policy strict --nvme 0 --device edu --trace amdvi_pages_inval
# skip virtio: there is no window where units keep no table; virtio looks at what comes back
# extra: amd caching-mode/debug
# timeout: 120

. /selftests/lib.sh

ktap_print_header
ktap_set_plan 7

edu=$(pci_devices 1234:11e8)
# The parameter max_age_ms, in which all becomes free that was unmapped before.
case $KERNEL in
debug) PAIRS=4000 MAX_AGE_MS=3000 ;;
*) PAIRS=20000 MAX_AGE_MS=1000 ;;
esac

load()
{
	load_iommu max_age_ms=$MAX_AGE_MS && insmod /modules/rust_bench.ko || return 1
	# Once it was taken it goes to the module by itself.
	[ -e "/sys/bus/pci/devices/$edu/driver" ] || take rust_bench "$edu"
}

unload()
{
	unbind "$edu" && rmmod rust_bench && echo 1 >/sys/module/$DRIVER/parameters/shutdown &&
		rmmod $DRIVER && rmmod rust_iommu
}

# told POLICY PAIRS PARAMETER...: how many invalidations there were
told()
{
	policy=$1 pairs=$2
	shift 2
	unbind "$edu" && set_policy "$edu" "$policy" && bind rust_bench "$edu" && sleep $(((MAX_AGE_MS + 999) / 1000)) &&
		again "$policy" "$pairs" "$@"
}

# again POLICY PAIRS PARAMETER...: the same, of a driver that is bound
again()
{
	policy=$1 pairs=$2
	shift 2
	vm_host trace mark again || return 1
	answer=$(ask rust_bench "$edu" run pairs="$pairs" "$@") && expect failed 0 "$(answer_of failed "$answer")" &&
		vm_host trace count again >/tmp/counts || return 1
	told=$(awk "/^$INVALIDATION/"' { n += $2 } END { print n + 0 }' /tmp/counts)
	ktap_print_msg "$policy $*: $pairs pairs, $told invalidations"
}

# One for the map and one for the unmap.
strict()
{
	told strict 500 && expect invalidations 1000 "$told"
}

# What was kept is not, when the maximum age is over.
new_ones()
{
	told lazy 32 depth=32 && [ "$told" -ge 32 ] && sleep $(((MAX_AGE_MS + 999) / 1000)) &&
		expect kept 0 "$(kept_of "$edu")" && again lazy 32 depth=32 && [ "$told" -ge 32 ]
}

# The maximum age makes a flush now and then, and all come anew after it.
few()
{
	told lazy $PAIRS "$@" && [ "$told" -le $((PAIRS / 10)) ]
}

nothing_is_left()
{
	unload && leak_scan && ! dmesg | grep -E "driver .* left "
}

ktap_test_result "load" load
ktap_test_result "Y4 strict: each map and each unmap is announced" strict
ktap_test_result "Y4 lazy: each new mapping is announced" new_ones
ktap_test_result "Y4 lazy: pages that come back are not" few depth=32
ktap_test_result "Y4 lazy: nor are buffers of 128 KB" few depth=8 size=128k
ktap_test_result "Y4 lazy: nor from two CPUs" few depth=8 threads=2
ktap_test_result "nothing is left" nothing_is_left
ktap_finished
