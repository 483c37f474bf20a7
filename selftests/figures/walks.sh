#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# What an emulator does for the addresses of random reads under each policy, as QEMU counts it: walks of the page
# table, translations that its cache had, and invalidations that it was told. Figures, not a test: tools/check does
# not run it. The counts do not depend on what else the host does.
#
#	tools/vm --quiet --policy strict --nvme 1 --timeout 500 --env READS=2000 \
#		--trace 'vtd_iotlb_page_*,vtd_iotlb_cc_*,vtd_inv_desc_iotlb*' --script selftests/figures/walks.sh
#
# For VT-d only: the events are those of its emulation.
#
# environment: READS (10000)

. /selftests/lib.sh

READS=${READS:-10000}

# reads SIZE NUMBER
reads()
{
	fio --name=walks --filename=/dev/nvme0n1 --direct=1 --ioengine=libaio --thread --rw=randread --bs="$1" \
		--iodepth=32 --number_ios="$2" --io_size=100g >/tmp/fio.walks 2>&1 || { cat /tmp/fio.walks && exit 1; }
}

# at POLICY: what a thousand reads cost
at()
{
	unbind "$disk" && set_policy "$disk" "$1" && bind nvme "$disk" && wait_for 30 test -b /dev/nvme0n1 || exit 1
	for size in 4k 128k; do
		reads $size $((READS / 10))
		vm_host trace mark walks || exit 1
		reads $size "$READS"
		vm_host trace count walks >/tmp/walks || exit 1
		awk -v what="$1 $size" -v reads="$READS" '
			/^vtd_iotlb_page_update/ { walks = $2 }
			/^vtd_iotlb_page_hit/ { hits = $2 }
			/^vtd_iotlb_cc/ { contexts += $2 }
			/^vtd_inv_desc_iotlb/ { told += $2 }
			END {
				printf "figure %s walks %.0f\nfigure %s cached %.0f\n", what, walks * 1000 / reads, what, hits * 1000 / reads
				printf "figure %s contexts %.0f\nfigure %s invalidations %.1f\n", what, contexts * 1000 / reads, what, told * 1000 / reads
			}' /tmp/walks
	done
}

load_iommu && modprobe nvme && wait_for 30 test -b /dev/nvme0n1 && disk=$(pci_of nvme0n1) || exit 1
for policy in identity lazy fq-single fq strict; do
	at $policy
done
