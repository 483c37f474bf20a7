#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Row A13: what each policy leaves of a disk's speed where an invalidation is expensive. Figures, not a
# test: tools/check does not run it.
#
#	tools/vm --quiet --policy strict --nvme 1 --script selftests/figures/flush-cost.sh
#	tools/vm --quiet --in-tree --policy strict --nvme 1 --script selftests/figures/flush-cost.sh
#
# With --icount --cpus 1 --env UNIT=insns it is the time that a CPU is busy, as counted in instructions, whatever
# else the host does; a flush costs so many of them more. Without, the machine should have nothing else to do.
#
# The cost is that at which strict has half of the speed of lazy: twice the time of a read under lazy, less its
# time under strict (the in-tree driver has no lazy: COST is taken). Then all policies take turns; fq-single
# needs a domain of its own, for the others the disk's driver stays bound.
#
# environment: TURNS (5), SECONDS of each run (3), UNIT=insns, COST in microseconds instead of the one found

. /selftests/lib.sh

TURNS=${TURNS:-5}
SECONDS=${SECONDS:-3}
COUNT=20000
PARAMETERS=/sys/module/flushcost/parameters

# reads: how many in a second
reads()
{
	set -- fio --name=reads --filename=/dev/nvme0n1 --direct=1 --ioengine=libaio --thread --rw=randread --bs=4k \
		--iodepth=32 --output-format=terse
	if [ -n "$UNIT" ]; then
		"$@" --number_ios=200 >/dev/null
		before=$(busy_ns)
		"$@" --number_ios=$COUNT --io_size=100g >/dev/null && echo $((COUNT * 1000000000 / ($(busy_ns) - before)))
	else
		"$@" --time_based --runtime="$SECONDS" --ramp_time=0.5 | awk -F';' 'NF > 50 { print $8; exit }'
	fi
}

# at POLICY: so many reads under it
at()
{
	[ -d /sys/module/$DRIVER ] || { reads && return; }
	# What takes a new domain is refused while a driver is bound.
	set_policy "$disk" "$1" 2>/dev/null >&2 || {
		unbind "$disk" && set_policy "$disk" "$1" && bind nvme "$disk" && wait_for 30 test -b /dev/nvme0n1
	} >&2 || exit 1
	reads
}

cost()
{
	echo "$1" >$PARAMETERS/cost_us
}

# turns FILE POLICY...: each policy in each turn
turns()
{
	turns_file=$1
	shift
	for turn in $(seq "$TURNS"); do
		for policy; do
			echo "$turn $policy $(at "$policy")"
		done
	done | tee "$turns_file" | sed 's/^/# /'
}

# middle FILE POLICY: median over the turns
middle()
{
	awk -v p="$2" '$2 == p { print $3 }' "$1" | sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'
}

# share FILE POLICY: of lazy, in each turn: median, least, greatest
share()
{
	awk -v policy="$2" '
		$2 == "lazy" { lazy[$1] = $3 }
		$2 == policy { other[$1] = $3 }
		END { for (turn in other) if (lazy[turn] > 0) print other[turn] / lazy[turn] }' "$1" | sort -n |
		awk '{ v[NR] = $1 } END { if (NR) printf ", of lazy %.2f (%.2f-%.2f)", v[int((NR + 1) / 2)], v[1], v[NR] }'
}

if [ -e /sys/class/iommu/dmar0 ]; then
	function=qi_submit_sync policies=in-tree COST=${COST:-0}
else
	insmod /modules/rust_iommu.ko && insmod /modules/$DRIVER.ko || exit 1
	# Queue::submit of the driver, which waits.
	function=$(sed -n 's/.* t \(_R[^ ]*5iommu5queue[^ ]*5Queue[^ ]*6submit[^ ]*\).*/\1/p' /proc/kallsyms | head -n 1)
	policies="strict fq fq-single lazy"
fi
modprobe nvme && wait_for 30 test -b /dev/nvme0n1 && disk=$(pci_of nvme0n1) &&
	insmod /modules/flushcost.ko symbol="$function" || exit 1
[ -z "$UNIT" ] || sleep 30

if [ -z "$COST" ]; then
	turns /tmp/free strict lazy
	COST=$((2000000 / $(middle /tmp/free lazy) - 1000000 / $(middle /tmp/free strict)))
	[ $COST -gt 0 ] || COST=0
fi
cost "$COST"
# shellcheck disable=SC2086 # One word each.
turns /tmp/turns $policies
echo "figure cost $COST us"
for policy in $policies; do
	echo "figure $policy $(middle /tmp/turns "$policy") reads/s$(share /tmp/turns "$policy")"
done
