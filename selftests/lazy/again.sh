#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# With caching mode every new mapping takes an invalidation. With revive=1 one does not that comes back before
# anything was invalidated since it was unmapped.
#
# variant caching-mode: --policy strict --iommu-opt caching-mode=on --nvme 0 --device edu --trace vtd_inv_desc_*
# variant virtio on stock: --iommu virtio --nvme 0
# timeout: 120

. /selftests/lib.sh

if [ "$VARIANT" = virtio ]; then
	ktap_print_header
	ktap_skip_all "there is no window where units keep no table; what comes back is in virtio.sh"
	exit 0
fi

ktap_print_header
ktap_set_plan 9

# The parameter max_age_ms, in which all becomes free that was unmapped before.
MAX_AGE_MS=1000

edu=$(pci_devices 1234:11e8)
case $KERNEL in
debug) PAIRS=4000 ;;
*) PAIRS=20000 ;;
esac

# load REVIVE
load()
{
	load_iommu max_age_ms=$MAX_AGE_MS revive="$1" && insmod /modules/rust_bench.ko || return 1
	# Once it was taken it goes to the module by itself.
	[ -e "/sys/bus/pci/devices/$edu/driver" ] || take rust_bench "$edu"
}

unload()
{
	unbind "$edu" && rmmod rust_bench && echo 1 >/sys/module/rust_vtd/parameters/shutdown &&
		rmmod rust_vtd && rmmod rust_iommu
}

# told POLICY PAIRS PARAMETER...: how many invalidations there were
told()
{
	policy=$1 pairs=$2
	shift 2
	unbind "$edu" && set_policy "$edu" "$policy" && bind rust_bench "$edu" && sleep $(((MAX_AGE_MS + 999) / 1000)) &&
		vm_host trace mark again || return 1
	answer=$(ask rust_bench "$edu" run pairs="$pairs" "$@") && expect failed 0 "$(answer_of failed "$answer")" &&
		vm_host trace count again >/tmp/counts || return 1
	told=$(awk '/^vtd_inv_desc_iotlb/ { n += $2 } END { print n + 0 }' /tmp/counts)
	ktap_print_msg "$policy $*: $pairs pairs, $told invalidations"
}

# One for the map and one for the unmap.
strict()
{
	told strict 500 && expect invalidations 1000 "$told"
}

each_map()
{
	told lazy $PAIRS depth=32 && [ "$told" -ge $PAIRS ] && unload
}

# The maximum age makes a flush now and then, and all come anew after it.
few()
{
	told lazy $PAIRS "$@" && [ "$told" -le $((PAIRS / 10)) ]
}

refused()
{
	! insmod /modules/rust_iommu.ko revive=2 2>/tmp/refused && grep -q "Invalid argument" /tmp/refused &&
		dmesg | grep -q "revive=2: must be 0 or 1"
}

nothing_is_left()
{
	unload && leak_scan
}

ktap_test_result "load" load 0
ktap_test_result "Y4 strict: each map and each unmap is announced" strict
ktap_test_result "Y4 lazy: each map is announced" each_map
ktap_test_result "a parameter that means nothing" refused
ktap_test_result "load with revive=1" load 1
ktap_test_result "Y4 lazy: pages that come back are not" few depth=32
ktap_test_result "Y4 lazy: nor are buffers of 128 KB" few depth=8 size=128k
ktap_test_result "Y4 lazy: nor from two CPUs" few depth=8 threads=2
ktap_test_result "nothing is left" nothing_is_left
ktap_finished
