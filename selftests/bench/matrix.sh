#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# What a pair of map and unmap costs, on whatever drives the IOMMU. In the guest; started by
# selftests/figures/lazy-cost. Prints lines "figure NAME VALUE UNIT".
#
# Environment:
#	POLICY       our driver is loaded and every device has this policy; empty: it is not
#	WINDOW       MB of IOVAs of a window
#	UNIT         what a nanosecond of the guest is: ns, or insns with --icount
#	COUNT=1      count commands instead (tools/vm --trace 'vtd_inv_desc_*')
#	REPEAT       runs of which the middle one is printed (5)

. /selftests/lib.sh

REPEAT=${REPEAT:-5}
UNIT=${UNIT:-ns}

insmod /modules/rust_iommu.ko ${POLICY:+policy=$POLICY} ${WINDOW:+lazy_window_mb=$WINDOW} || exit 1
[ -z "$POLICY" ] || insmod /modules/$DRIVER.ko || exit 1
insmod /modules/rust_bench.ko || exit 1
dev=$(pci_devices 1234:11e8)
[ -z "$(take rust_bench "$dev")" ] || exit 1

run()
{
	answer=$(ask rust_bench "$dev" run "$@") || { echo "run $*: $answer" >&2 && exit 1; }
	[ "$(answer_of failed "$answer")" = 0 ] || echo "run $*: $answer" >&2
}

# count NAME PARAMETER..., cost NAME PARAMETER...: of run
# Commands to the hardware for a thousand pairs, after as many that fill caches and queues.
count()
{
	name=$1
	shift
	run "$@"
	vm_host trace mark bench || exit 1
	before=$(window_of "$dev" flushes)
	run "$@"
	after=$(window_of "$dev" flushes)
	vm_host trace count bench >/tmp/count || exit 1
	pairs=$(answer_of pairs "$answer")
	awk -v name="$name" -v pairs="$pairs" '
		$1 ~ /iotlb/ { iotlb += $2 }
		END { printf "figure %s %.2f iotlb/1000\n", name, iotlb * 1000 / pairs }' /tmp/count
	[ -z "$after" ] || awk "BEGIN { printf \"figure $name %.2f flush/1000\n\", ($after - $before) * 1000 / $pairs }"
}

cost()
{
	name=$1
	shift
	for i in $(seq "$REPEAT"); do
		run "$@"
		answer_of ns "$answer"
	done | sort -n | sed -n "$(((REPEAT + 1) / 2))p" | sed "s/.*/figure $name & $UNIT/"
}

# Until the kernel has done what it does after booting, which takes CPU time from the runs.
idle()
{
	before=$(cut -d' ' -f2 /proc/uptime)
	sleep 2
	awk -v before="$before" -v cpus="$(nproc)" '{ exit !($2 - before > 1.9 * cpus) }' /proc/uptime
}

settle_by=$(($(cut -d. -f1 /proc/uptime) + 40))
until idle || [ "$(cut -d. -f1 /proc/uptime)" -gt $settle_by ]; do :; done

measure=cost
[ -z "$COUNT" ] || measure=count
two=$([ "$(nproc)" = 1 ] || echo 1)

# The first maps make tables.
run pairs=2000 depth=32
run pairs=100 size=1M
$measure 4k pairs=20000
$measure 4k-depth32 pairs=20000 depth=32
${two:+$measure 4k-2cpus pairs=20000 threads=2}
${two:+$measure 4k-2cpus-depth32 pairs=20000 threads=2 depth=32}
$measure 64k pairs=5000 size=64k
$measure 64k-depth32 pairs=5000 size=64k depth=32
$measure 1M pairs=5000 size=1M
$measure sg-32x4k pairs=2000 kind=sg
$measure sg-32x4k-scattered pairs=2000 kind=scattered
$measure sg-32x4k-scattered-depth32 pairs=2000 kind=scattered depth=32
