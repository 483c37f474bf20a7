#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Memory that firmware wants mapped for devices (RMRR, IVMD): it is mapped in each default domain, and nothing
# beside it; it is no leak of a driver's; parking leaves the devices alone; and they cannot be given to user space.
#
# QEMU's tables have none, so the initramfs has others: dmar/rmrr.aml and ivrs/ivmd.aml. The memory is nobody's:
# a page for 00:10.0, a page for none, two for 00:12.0 and 00:13.0, and one that the IVRS names but says nothing of.
# 00:11.0 has none. DMA debugging would warn of the leak that is made here: it is off.
#
# options: --policy strict --nvme 0 --append memmap=20K$0x10000000 --append dma_debug=off --device iommu-testdev,addr=10.0 --device iommu-testdev,addr=11.0 --device iommu-testdev,addr=12.0 --device qemu-xhci,addr=13.0
# variant rmrr on stock: --copy selftests/guest/dmar/rmrr.aml:kernel/firmware/acpi/dmar.aml
# variant rmrr-parked on stock: --copy selftests/guest/dmar/rmrr.aml:kernel/firmware/acpi/dmar.aml
# variant ivmd on stock: --iommu amd --copy selftests/guest/ivrs/ivmd.aml:kernel/firmware/acpi/ivrs.aml
# variant ivmd-parked on stock: --iommu amd --copy selftests/guest/ivrs/ivmd.aml:kernel/firmware/acpi/ivrs.aml
# extra: ivmd-parked
# skip virtio: a VIOT names no memory of devices
# timeout: 90

. /selftests/lib.sh

one=0000:00:10.0 none=0000:00:11.0 two=0000:00:12.0 usb=0000:00:13.0
ONE=0x10000000 BESIDE=0x10001000 TWO=0x10002000 UNSAID=0x10004000

# Firmware uses the memory of USB controllers until they have a driver. An IVMD does not say so.
case $VARIANT in
rmrr*) of_usb=direct-relaxable ;;
ivmd*) of_usb=direct ;;
esac

load()
{
	case $VARIANT in
	*-parked) load_iommu park_unbound=1 ;;
	*) load_iommu ;;
	esac && insmod /modules/rust_testowner.ko && modprobe vfio_iommu_type1 allow_unsafe_interrupts=1 &&
		modprobe vfio-pci disable_idle_d3=1 &&
		grep -qi '^ *10000000-10004fff : reserved' /proc/iomem
}

# regions_of DEVICE WANTED: the ranges to be mapped, as the group's file has them and as ours has
regions_of()
{
	for file in iommu_group/reserved_regions rust_iommu/reserved_regions; do
		expect "$file of $1" "$2" "$(grep direct "/sys/bus/pci/devices/$1/$file")" || return 1
	done
}

regions_are_shown()
{
	regions_of $one "0x0000000010000000 0x0000000010000fff direct" && regions_of $none "" &&
		regions_of $two "0x0000000010002000 0x0000000010003fff direct" &&
		regions_of $usb "0x0000000010002000 0x0000000010003fff $of_usb"
}

# writes ok|tx_fail DEVICE ADDRESS: what becomes of a write, and of the memory
writes()
{
	devmem "$3" 32 0x0f0f0f0f
	# While a driver has the registers only that can write to them.
	if [ "$(readlink "/sys/bus/pci/devices/$2/driver" | sed 's/.*rust_/rust_/')" = rust_kdma ]; then
		outcome=$(ask rust_kdma "$2" dma write "$3" 4)
	else
		outcome=$(races ghost "$2" "$3")
	fi
	case $1 in
	ok) after=0x12345678 ;;
	*) after=0x0F0F0F0F ;;
	esac
	expect "write of $2 at $3" "$1" "$outcome" && expect "memory at $3" $after "$(devmem "$3" 32)"
}

# Translated, a device reaches its own memory, to the last word, and nothing else.
own_memory_only()
{
	writes ok $one $ONE && writes ok $one $((ONE + 0xffc)) && writes tx_fail $one $BESIDE && writes tx_fail $one $TWO &&
		writes ok $two $TWO && writes ok $two $((TWO + 0x1ffc)) && writes tx_fail $two $BESIDE &&
		writes tx_fail $two $UNSAID && writes tx_fail $none $ONE && writes tx_fail $none $UNSAID
}

# used_by_driver TYPE: the driver's own mapping is beside it, and nothing is said when the driver goes.
used_by_driver()
{
	set_type $one "$1" && take rust_kdma $one && mapped=$(ask rust_kdma $one map both) &&
		says ok rust_kdma $one dma write "$(answer_of iova "$mapped")" && own_memory_only || return 1
	mark_log
	leave $one && expect reports "" "$(reports)" && own_memory_only
}

# reports: what was said since mark_log of mappings that were left
reports()
{
	log_since_mark | sed -n 's/^rust_iommu: \(.* left .*\)/\1/p'
}

a_leak_is_named_alone()
{
	take rust_kdma $one && leaked=$(ask rust_kdma $one leak both) || return 1
	mark_log
	leave $one && expect reports "$one: driver rust_kdma left $(answer_of iova "$leaked") mapped, 4096 bytes" "$(reports)"
}

# Without a driver, and not translated: all is reached, unless that is parked.
identity()
{
	set_type $one identity && set_type $none identity && writes ok $one $ONE && writes ok $one $BESIDE || return 1
	case $VARIANT in
	*-parked) writes tx_fail $none $BESIDE ;;
	*) writes ok $none $BESIDE ;;
	esac
}

types()
{
	for to in DMA DMA-FQ DMA; do
		identity && set_type $none $to && set_type $one $to && expect type $to "$(type_of $one)" && own_memory_only ||
			return 1
	done
}

explains()
{
	iommu-info explain $one >/tmp/explained
	grep -q "the firmware wants $ONE to 0x10000fff of its group mapped one to one at all times" /tmp/explained && return 0
	sed 's/^/# /' /tmp/explained
	return 1
}

# refused_to_vfio DEVICE: and nothing has changed
refused_to_vfio()
{
	take vfio-pci "$1" || return 1
	races memlock "$(group_of "$1")" >/tmp/opened 2>&1 && { ktap_print_msg "it was opened"; return 1; }
	grep -q 'Invalid argument' /tmp/opened || { sed 's/^/# /' /tmp/opened; return 1; }
}

given_to_vfio()
{
	take vfio-pci "$1" && expect "VFIO and $1" mapped "$(races memlock "$(group_of "$1")" 2>&1)"
}

not_for_user_space()
{
	refused_to_vfio $one && explains && own_memory_only && given_to_vfio $none && leave $none || return 1
	case $of_usb in
	direct) refused_to_vfio $usb ;;
	*) given_to_vfio $usb ;;
	esac && leave $one $usb && own_memory_only
}

not_for_an_owner()
{
	take rust_udma $one && says "error EINVAL" rust_udma $one claim 1 && leave $one && own_memory_only && types
}

# Firmware does not know that the kernel has let go of a device.
removed_and_found()
{
	races device $one remove && races device $none remove && writes ok $one $ONE && writes tx_fail $none $ONE &&
		races device $one rescan && wait_for 10 test -e /sys/bus/pci/devices/$none &&
		regions_are_shown && own_memory_only
}

unload()
{
	leave $one $none $two $usb && rmmod rust_testowner && echo 1 >/sys/module/$DRIVER/parameters/shutdown &&
		rmmod $DRIVER && rmmod rust_iommu
}

ktap_print_header
ktap_set_plan 11
ktap_test_result "load" load
ktap_test_result "the ranges are shown" regions_are_shown
ktap_test_result "without a driver they are reached, and nothing else" own_memory_only
ktap_test_result "with a driver too, and they are no leak: DMA" used_by_driver DMA
ktap_test_result "with a driver too, and they are no leak: DMA-FQ" used_by_driver DMA-FQ
ktap_test_result "a leak is named, and that alone" a_leak_is_named_alone
ktap_test_result "identity, DMA, DMA-FQ and back" types
ktap_test_result "VFIO is refused, and iommu-info says why" not_for_user_space
ktap_test_result "so is an owner, and the type can still change" not_for_an_owner
ktap_test_result "removed they are reached, and found again" removed_and_found
ktap_test_result "unload" unload
ktap_finished
