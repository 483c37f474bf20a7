#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Row U4: what a virtio-iommu does with an endpoint that is in no domain. While the driver is there it is blocked; before
# and after, it is as the machine has it (QEMU's boot-bypass). All other tests look at endpoints that are in a domain, be it
# the blocked one. Here one is plugged, and it is in none as its probe fails.
#
# It writes to the end of the extended BIOS data area, which is memory that nobody uses.
#
# variant virtio on stock: --iommu virtio --policy strict --nvme 0 --device pcie-root-port,id=rp0,chassis=1,slot=1
# variant virtio-off on stock: --iommu virtio --iommu-opt boot-bypass=off --policy strict --nvme 0 --device pcie-root-port,id=rp0,chassis=1,slot=1
# skip vtd amd: a device in no domain has an entry all the same, which parking and takeover look at
# modules: inject
# timeout: 90

. /selftests/lib.sh

ktap_print_header
ktap_set_plan 8

PHYS=0x9fff0

# What an endpoint in no domain does without the driver.
case $VARIANT in
virtio) found=on without=ok ;;
*) found=off without=tx_fail ;;
esac

# writes: by the device's driver, or past the kernel
writes()
{
	if [ -e "/sys/bus/pci/devices/$dev/driver" ]; then
		ask rust_kdma "$dev" dma write $PHYS
	else
		races ghost "$dev" $PHYS
	fi
}

# write_is WHAT WANTED: and memory has changed, or has not
write_is()
{
	case $2 in
	ok) memory=0x12345678 ;;
	*) memory=0x0F0F0F0F ;;
	esac
	devmem $PHYS 32 0x0f0f0f0f && expect "write $1" "$2" "$(writes)" &&
		expect "memory $1" $memory "$(devmem $PHYS 32)"
}

load()
{
	mark_log
	load_iommu && expect "bypass was $found" 1 "$(log_since_mark | grep -c "${UNIT_NAME}0: .* bypass was $found$")"
}

is_there()
{
	dev=$(pci_devices 1b36:0005)
	[ -n "$dev" ]
}

in_no_domain()
{
	races inject fail probe 12 1 && vm_host device_add iommu-testdev,id=hot0,bus=rp0 && wait_for 30 is_there &&
		races inject clear && expect group "" "$(group_of "$dev")"
}

blocked()
{
	write_is "in no domain" tx_fail && wait_for 5 reported_once
}

reported_once()
{
	[ "$(faults | grep -c "^$dev access ")" = 1 ]
}

end()
{
	echo 1 >/sys/module/$DRIVER/parameters/shutdown && rmmod $DRIVER && rmmod rust_iommu
}

as_it_was_found()
{
	end && write_is "after the end" $without
}

# It is there now when the driver comes, and belongs to the core. That it gets through where it is let shows
# that nothing else is in its way.
in_a_domain()
{
	load && [ -n "$(group_of "$dev")" ] && write_is "in a domain of its own" tx_fail && set_type "$dev" identity &&
		write_is "in the bypass domain" ok && set_type "$dev" DMA && write_is "in a domain again" tx_fail
}

# A driver that is there before the unit's keeps its device, in the bypass domain or in none.
with_a_driver()
{
	no_more_waiting
	insmod /modules/rust_iommu.ko && insmod /modules/rust_testowner.ko && take rust_kdma "$dev" &&
		insmod /modules/$DRIVER.ko && expect "group of a device with a driver" "" "$(group_of "$dev")" &&
		write_is "with a driver" $without && leave "$dev" && rmmod rust_testowner
}

ktap_test_result "U4 load" load
ktap_test_result "U4 a device is plugged, and gets in no domain" in_no_domain
ktap_test_result "U4 what it writes is blocked, and reported" blocked
ktap_test_result "U4 after shutdown it is as it was found: $without" as_it_was_found
ktap_test_result "U4 in a domain, it is what the domain lets through" in_a_domain
ktap_test_result "U4 after shutdown it is in none, as it was found: $without" as_it_was_found
ktap_test_result "U4 with a driver it stays as it was found: $without" with_a_driver
ktap_test_result "U4 after shutdown too" as_it_was_found
ktap_finished
