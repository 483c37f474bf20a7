#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Row A5: every allocation of an operation fails once. What was begun is undone: the device works
# on, or as soon as the operation is done again, and the counters are where they were.
#
# The debug kernel counts allocations; elsewhere a few are failed at injection points. Two
# functions of the kernel are left out. iommu_setup_dma_ops makes hundreds of caches for the
# DMA API, and where it fails says so in the log only; register_irq_proc does not check what
# it makes, and the kernel warns when that is removed.
#
# variant strict: --policy strict --nvme 0 --testdev
# variant amd on debug: --iommu amd --policy strict --nvme 0 --testdev
# variant load on debug: --policy identity --nvme 0 --testdev
# variant load-strict on debug: --policy strict --nvme 0 --testdev
# variant virtio on debug: --iommu virtio --policy strict --nvme 0 --testdev
# extra: amd virtio
# modules: inject
# timeout: 400
# long: load load-strict

. /selftests/lib.sh

ktap_print_header

dev=$(pci_devices 1b36:0005)

load()
{
	load_iommu && insmod /modules/rust_testdev.ko && [ -n "$dev" ]
}

# each LEAST ARGUMENTS...: of races fail-nth; so many allocations there are at least
each()
{
	each_least=$1
	shift
	races fail-nth --least "$each_least" "$@"
}

each_of()
{
	if [ "$KERNEL" = debug ]; then
		ktap_test_result "A5 every allocation fails in turn: $1" "$2"
	else
		ktap_test_skip "A5 every allocation fails in turn: $1: this kernel cannot"
	fi
}

DMA_API=iommu_setup_dma_ops

probe() { each 20 --below iommu_bus_notifier --except $DMA_API probe "$dev"; }
driver_bind() { each 20 bind "$dev"; }
map() { each 5 map "$dev" 3; }
to_lazy() { each 8 --except $DMA_API type "$dev" identity DMA-FQ; }
to_identity() { each 1 type "$dev" DMA identity; }
attach() { each 10 attach "$dev"; }
user_map() { each 3 user-map "$dev"; }
user_unmap() { each 1 user-unmap "$dev"; }
detach() { each 1 detach "$dev"; }
load_module() { each 50 --below do_one_initcall --except register_irq_proc load "$dev" /modules/$DRIVER.ko; }

to_vfio()
{
	rmmod rust_testdev && set_type "$dev" DMA && modprobe vfio-pci ids=1b36:0005 disable_idle_d3=1 &&
		modprobe vfio_iommu_type1 allow_unsafe_interrupts=1
}

from_vfio()
{
	rmmod vfio_iommu_type1 && rmmod vfio-pci && insmod /modules/rust_testdev.ko
}

writes()
{
	writes=$(oracle "$dev" map from) && expect write ok "$(oracle "$dev" dma write "$(answer_of iova "$writes")")" &&
		oracle "$dev" free "$(answer_of handle "$writes")" >/dev/null
}

plug_again()
{
	races device "$dev" remove && races device "$dev" rescan &&
		wait_for 10 test -e "/sys/kernel/debug/rust_testdev-$dev"
}

# The device comes without a group then, and nothing translates for it: it reaches nothing.
fails_at()
{
	plug_again && writes && races vmstat >/tmp/before && races inject fail "$1" 12 1 "$dev" && plug_again &&
		expect group "" "$(group_of "$dev")" && ! writes >/dev/null && races inject clear &&
		plug_again && writes && races vmstat --compare /tmp/before
}

types_fail()
{
	unbind "$dev" && set_type "$dev" identity && races vmstat >/tmp/before &&
		races inject fail attach.prepare 12 1 "$dev" &&
		set_type "$dev" DMA | grep -q 'Cannot allocate memory' && expect type identity "$(type_of "$dev")" &&
		races vmstat --compare /tmp/before && set_type "$dev" DMA && bind rust_testdev "$dev" && writes
}

map_fails()
{
	writes && races vmstat >/tmp/before && races inject fail map 12 1 && ! oracle "$dev" map from >/dev/null &&
		races vmstat --compare /tmp/before && writes && races inject clear
}

nothing_is_left()
{
	rmmod rust_testdev && echo 1 >/sys/module/$DRIVER/parameters/shutdown && rmmod $DRIVER &&
		rmmod rust_iommu && leak_scan
}

# The module is loaded while a driver has the device.
case $VARIANT in load*)
	ktap_set_plan 2
	insmod /modules/rust_iommu.ko
	insmod /modules/rust_testdev.ko
	each_of "load of the module" load_module
	ktap_test_result "A5 nothing is left" leak_scan
	ktap_finished
	exit
	;;
esac

ktap_set_plan 15
ktap_test_result "A5 load" load
ktap_test_result "A5 probe fails at its begin" fails_at probe
ktap_test_result "A5 probe fails at its end" fails_at probe.done
ktap_test_result "A5 attach fails" types_fail
ktap_test_result "A5 map fails" map_fails
each_of "probe of a device" probe
each_of "bind of a driver" driver_bind
each_of "map" map
each_of "from identity to a lazy domain" to_lazy
each_of "from a domain to identity" to_identity
to_vfio
each_of "VFIO's attach" attach
each_of "VFIO's map" user_map
each_of "VFIO's unmap" user_unmap
each_of "VFIO's detach" detach
from_vfio
ktap_test_result "A5 nothing is left" nothing_is_left
ktap_finished
