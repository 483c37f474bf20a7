#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Row E13's stand-in: files are copied by the DMA of a device of VFIO, an igb that sends to itself. Each copy has
# data of its own, of which the checksums are compared.
#
# options: --policy strict --nvme 0 --kselftest --device pcie-root-port,id=a,chassis=1,slot=1 --device igb,bus=a
# variant vtd:
# variant amd on stock: --iommu amd
# variant virtio on stock: --iommu virtio
# variant full on stock: --mem 4096
# variant full-amd on stock: --iommu amd --mem 4096
# variant full-virtio on stock: --iommu virtio --mem 4096
# extra: vtd/debug amd
# long: full full-amd full-virtio
# timeout: 300

. /selftests/lib.sh

# In MB, a power of two. The distribution's kernel is built without iommufd, the debug kernel without
# transparent huge pages.
case $VARIANT/$KERNEL in
full*) : "${COPIES:=10}" "${SIZE:=1024}" ;;
*/debug) : "${COPIES:=3}" "${SIZE:=1}" ;;
esac
COPIES=${COPIES:-10}
SIZE=${SIZE:-4}
case $KERNEL in
stock) MODE=vfio_type1v2_iommu HUGE=always ;;
*) MODE=iommufd HUGE=never ;;
esac

load()
{
	load_iommu || return 1
	# vfio would load iommufd, without the parameter.
	[ $MODE != iommufd ] || modprobe iommufd allow_unsafe_interrupts=1 || return 1
	modprobe vfio_iommu_type1 allow_unsafe_interrupts=1 && modprobe vfio-pci disable_idle_d3=1 && mkdir /tmp/copy &&
		mount -t tmpfs -o huge=$HUGE,size=$((2 * SIZE + 16))m copy /tmp/copy &&
		truncate -s "${SIZE}M" /tmp/copy/from /tmp/copy/to || return 1
	nic=$(pci_devices 8086:10c9)
	take vfio-pci "$nic" && races vmstat >/tmp/before
}

# sum FILE
sum()
{
	sha256sum "/tmp/copy/$1" | cut -d' ' -f1
}

copies()
{
	for copy in $(seq "$COPIES"); do
		dd if=/dev/urandom of=/tmp/copy/from bs=1M count="$SIZE" conv=notrunc 2>/dev/null &&
			/kselftest/vfio_copy $MODE /tmp/copy/from /tmp/copy/to "$nic" &&
			expect "checksum of copy $copy" "$(sum from)" "$(sum to)" || return 1
	done
}

no_faults()
{
	expect faults "" "$(faults)"
}

nothing_left()
{
	races vmstat --compare /tmp/before
}

ktap_print_header
ktap_set_plan 4
ktap_test_result "load" load
mark_log
ktap_test_result "E13 $COPIES copies of $SIZE MB by a device: no mismatch" copies
ktap_test_result "E13 no faults" no_faults
ktap_test_result "E13 nothing is left" nothing_left
ktap_finished
