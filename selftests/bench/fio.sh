#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Random reads from an NVMe disk, on whatever drives the IOMMU. In the guest; started by
# selftests/figures/lazy-cost. Prints lines "figure NAME VALUE UNIT".
#
# Buffers are side by side in memory (huge pages), or scattered: of single pages, few of which have
# their neighbour next to them. For the latter a file is filled, and every second page of it given back,
# just before fio takes its memory: the page allocator hands out single free pages first. 128 KB were
# then 25 pieces on average (dma_map_phys events), and 1 in huge pages.
#
# Environment: POLICY and WINDOW as for matrix.sh; SECONDS of each measurement (4); UNIT=insns with --icount: then the
# instructions are counted of a number of reads, but for interrupts of an idle CPU. The start of fio is among them.

. /selftests/lib.sh

SECONDS=${SECONDS:-4}

insmod /modules/rust_iommu.ko ${POLICY:+policy=$POLICY} ${WINDOW:+lazy_window_mb=$WINDOW} || exit 1
[ -z "$POLICY" ] || insmod /modules/$DRIVER.ko || exit 1
modprobe nvme && wait_for 30 test -b /dev/nvme0n1 || exit 1

echo never >/sys/kernel/mm/transparent_hugepage/enabled
echo 16 >/proc/sys/vm/nr_hugepages
mount -t tmpfs -o huge=never none /mnt || exit 1

holes()
{
	rm -f /mnt/pages
	fio --name=pages --filename=/mnt/pages --size=64m --rw=write --bs=64k --thread >/dev/null &&
		fio --name=holes --filename=/mnt/pages --size=64m --rw=trim:4k --bs=4k --ioengine=falloc --thread \
			--io_size=32m >/dev/null
}

# read NAME IOMEM BLOCK DEPTH COUNT
read_at()
{
	name=$1
	count=$5
	[ "$2" != malloc ] || holes || exit 1
	set -- fio --minimal --name=read --filename=/dev/nvme0n1 --direct=1 --ioengine=libaio --thread --rw=randread \
		--iomem="$2" --bs="$3" --iodepth="$4"
	if [ -n "$UNIT" ]; then
		"$@" --number_ios=200 >/dev/null
		before=$(busy_ns)
		"$@" --number_ios="$count" --io_size=100g >/tmp/terse || { cat /tmp/terse && exit 1; }
		echo "figure $name $((($(busy_ns) - before) / count)) $UNIT/read"
	else
		"$@" --time_based --ramp_time=1 --runtime="$SECONDS" >/tmp/terse || { cat /tmp/terse && exit 1; }
		# Terse output: 8 is the read IOPS.
		echo "figure $name $(cut -d';' -f8 /tmp/terse) IOPS"
	fi
}

[ -z "$UNIT" ] || sleep 30
read_at 4k-q32 shmhuge 4k 32 50000
read_at 128k-q16 shmhuge 128k 16 20000
read_at 4k-q32-scattered malloc 4k 32 50000
read_at 128k-q16-scattered malloc 128k 16 20000
