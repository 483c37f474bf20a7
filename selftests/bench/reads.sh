#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Random reads from an NVMe disk, on whatever drives the IOMMU, where a nanosecond is an instruction (tools/vm
# --icount). In the guest; started by selftests/figures/read-insns. Prints lines "figure NAME VALUE".
#
# Buffers are side by side in memory (huge pages), or scattered: of single pages, few of which have
# their neighbour next to them. For the latter a file is filled, and every second page of it given back,
# just before fio takes its memory: the page allocator hands out single free pages first. 128 KB were
# then 25 pieces on average (dma_map_phys events), and 1 in huge pages.
#
# Interrupts of an idle CPU are not counted, the start of fio is.
#
# Environment: POLICY: our driver is loaded and every device has this policy; empty: it is not

. /selftests/lib.sh

insmod /modules/rust_iommu.ko ${POLICY:+policy=$POLICY} || exit 1
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

# reads NAME IOMEM BLOCK DEPTH COUNT
reads()
{
	name=$1
	count=$5
	[ "$2" != malloc ] || holes || exit 1
	set -- fio --minimal --name=read --filename=/dev/nvme0n1 --direct=1 --ioengine=libaio --thread --rw=randread \
		--iomem="$2" --bs="$3" --iodepth="$4" --io_size=100g
	"$@" --number_ios=200 >/dev/null
	before=$(busy_ns)
	"$@" --number_ios="$count" >/tmp/terse || { cat /tmp/terse && exit 1; }
	echo "figure $name $((($(busy_ns) - before) / count))"
}

sleep 30
reads 4k-q32 shmhuge 4k 32 50000
reads 128k-q16 shmhuge 128k 16 20000
reads 4k-q32-scattered malloc 4k 32 50000
reads 128k-q16-scattered malloc 128k 16 20000
