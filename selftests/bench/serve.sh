#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Measures what the program bench (tools/measure) asks for, one order after the other, until it says "end". In the
# guest, on whatever drives the IOMMU. Each policy has devices of its own, an edu and perhaps an NVMe disk: the
# first policy the first ones, and so on. So nothing has to be changed between two measurements.
#
# Orders, N being the number of a policy, from 1:
#	tables N             pages of tables that mapping 4 MB in pages took, "pages PAGES"; once, as tables stay
#	pair N KEY=VALUE...  a run of rust_bench, what it answers
#	count N KEY=VALUE... the same after one that fills caches and queues, and a line "EVENT NUMBER" for each kind of
#	                     event in QEMU's trace
#	fio N OPTION...      what fio says, as JSON in one line after the word "fio"
#	busy N COUNT OPTION...  "busy NS", for how long tasks ran for so many I/Os of fio, without its start
#	delayed              the function that an invalidation is submitted with
#	cost MICROSECONDS    what each call of it takes more; "calls CALLS", how often it was called so far
#
# Environment:
#	POLICIES  of our driver, with commas between; the kernel's own is used as it is where OURS is empty
#	OURS      1: our driver is loaded
#	PROBE     the function to delay (flushcost.ko), an expression for awk; empty: "cost" is not asked for

. /selftests/lib.sh

# policy PCI-ADDRESS NAME: of a device without a driver
policy()
{
	if [ -n "$OURS" ]; then
		set_policy "$1" "$2"
		return
	fi
	case $2 in
	strict) policy_type=DMA ;;
	fq) policy_type=DMA-FQ ;;
	*) policy_type=$2 ;;
	esac
	set_type "$1" $policy_type
	expect "type of $1" $policy_type "$(type_of "$1")"
}

# nth N LIST: as nothing else is started for it, it takes no time from slices
nth()
{
	nth_n=$1
	# shellcheck disable=SC2086 # A list is words.
	set -- $2
	[ $# -lt "$nth_n" ] || eval "echo \"\$$nth_n\""
}

# pages: of tables. Each CPU counts on its own until it is told to say it.
pages()
{
	echo 1 >/proc/sys/vm/stat_refresh
	sed -n 's/^nr_iommu_pages //p' /proc/vmstat
}

# wide PCI-ADDRESS: a device that takes any address
wide()
{
	ask rust_bench "$1" mask 64 >/dev/null
}

tables()
{
	tables_edu=$(nth "$1" "$edus")
	# The window of a lazy policy is made when the driver binds.
	leave "$tables_edu"
	tables_before=$(pages)
	bind rust_bench "$tables_edu" && wide "$tables_edu" && ask rust_bench "$tables_edu" run pairs=2048 depth=1024 && [ -n "$tables_before" ] &&
		echo "pages $(($(pages) - tables_before))"
}

pair()
{
	pair_edu=$(nth "$1" "$edus")
	shift
	ask rust_bench "$pair_edu" run "$@"
}

count()
{
	pair "$@" >/dev/null && vm_host trace mark bench && pair "$@" && vm_host trace count bench
}

# The jobs of fio are on CPUs of their own, the first one on the first.
cpus=0-$(($(nproc) - 1))

# run_fio N OPTION...
run_fio()
{
	run_block=$(nth "$1" "$blocks")
	shift
	set -- fio --name=bench --filename="/dev/$run_block" --direct=1 --ioengine=libaio --thread --group_reporting \
		--norandommap --cpus_allowed="$cpus" --cpus_allowed_policy=split --output-format=json --output=/tmp/fio.json "$@"
	"$@" >/tmp/fio.log 2>&1 || { cat /tmp/fio.log && return 1; }
}

block_of()
{
	for block_name in /sys/block/nvme*; do
		[ "$(pci_of "${block_name##*/}")" != "$1" ] || echo "${block_name##*/}"
	done
}

fio_order()
{
	run_fio "$@" && echo "fio $(tr -d '\n' </tmp/fio.json)"
}

busy()
{
	busy_n=$1 busy_count=$2
	shift 2
	# The first one is the start of fio and little else.
	busy_before=$(busy_ns)
	run_fio "$busy_n" --number_ios=100 --io_size=100g "$@" || return 1
	busy_start=$(busy_ns)
	run_fio "$busy_n" --number_ios=$((100 + busy_count)) --io_size=100g "$@" &&
		echo "busy $(($(busy_ns) - busy_start - (busy_start - busy_before)))"
}

delayed()
{
	echo "$delayed_name"
}

cost()
{
	echo "$1" >/sys/module/flushcost/parameters/cost_us && echo "calls $(cat /sys/module/flushcost/parameters/calls)"
}

# Buffers of fio are side by side in memory (--iomem=shmhuge), or scattered (--iomem=malloc): single pages, few of which
# have their neighbour next to them. For that a file is filled and every second page of it given back; the page
# allocator hands out single free pages first.
buffers()
{
	echo never >/sys/kernel/mm/transparent_hugepage/enabled
	echo 16 >/proc/sys/vm/nr_hugepages
	mount -t tmpfs -o huge=never none /mnt &&
		fio --name=pages --filename=/mnt/pages --size=64m --rw=write --bs=64k --thread >/tmp/fio.log &&
		fio --name=holes --filename=/mnt/pages --size=64m --rw=trim:4k --bs=4k --ioengine=falloc --thread \
			--io_size=32m >/tmp/fio.log || { cat /tmp/fio.log && return 1; }
}

# find_delayed: the function that submits an invalidation. Compilers make parts of a function that are not it
# (NAME.cold), so the expression is for all of the name; and just one function may match.
find_delayed()
{
	delayed_name=$(awk -v probe="^($PROBE)\$" '$2 ~ /^[tT]$/ && $3 ~ probe { print $3 }' /proc/kallsyms)
	[ "$(echo "$delayed_name" | wc -w)" = 1 ] || {
		echo "functions to delay that match $PROBE, of which there must be one: ${delayed_name:-none}"
		return 1
	}
	insmod /modules/flushcost.ko symbol="$delayed_name"
}

# Until the kernel has done what it does after booting, which takes CPU time from the runs.
idle()
{
	idle_before=$(cut -d' ' -f2 /proc/uptime)
	sleep 1
	awk -v before="$idle_before" -v cpus="$(nproc)" '{ exit !($2 - before > 0.9 * cpus) }' /proc/uptime
}

setup()
{
	insmod /modules/rust_iommu.ko || return 1
	[ -z "$OURS" ] || insmod /modules/$DRIVER.ko || return 1
	no_more_waiting
	edus=$(pci_devices 1234:11e8)
	disks=$(pci_devices 1b36:0010)
	insmod /modules/rust_bench.ko || return 1
	setup_n=0
	for setup_policy in $(echo "$POLICIES" | tr , ' '); do
		setup_n=$((setup_n + 1))
		setup_edu=$(nth $setup_n "$edus")
		setup_disk=$(nth $setup_n "$disks")
		leave "$setup_edu"
		policy "$setup_edu" "$setup_policy" || return 1
		[ -z "$setup_disk" ] || policy "$setup_disk" "$setup_policy" || return 1
		# As an NVMe disk has it; 32 bits otherwise.
		[ -z "$(take rust_bench "$setup_edu")" ] && wide "$setup_edu" || return 1
	done
	[ -z "$disks" ] || { modprobe nvme && buffers; } || return 1
	blocks=
	for setup_disk in $disks; do
		wait_for 30 eval "[ -n \"\$(block_of $setup_disk)\" ]" || return 1
		blocks="$blocks $(block_of "$setup_disk")"
	done
	[ -z "$PROBE" ] || find_delayed || return 1
	setup_by=$(($(cut -d. -f1 /proc/uptime) + 20))
	until idle || [ "$(cut -d. -f1 /proc/uptime)" -gt $setup_by ]; do :; done
}

setup || exit 1
while order=$(vm_host next); do
	# shellcheck disable=SC2086 # An order is words.
	set -f -- $order
	set +f
	word=$1
	shift
	case $word in
	end) exit 0 ;;
	tables | pair | count | busy | delayed | cost) "$word" "$@" ;;
	fio) fio_order "$@" ;;
	*) echo "order $word: there is no such" && exit 1 ;;
	esac || { echo "order $order: failed" && exit 1; }
done
exit 1
