#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# VFIO as the owner of a group of devices, and the type of the group's default domain.
#
# variant strict: --policy strict --nvme 0 --device pcie-root-port,id=c0,chassis=1,slot=1 --device pcie-pci-bridge,id=c1,bus=c0 --device iommu-testdev,bus=c1,addr=1 --device iommu-testdev,bus=c1,addr=2 --device iommu-testdev,bus=c1,addr=3 --device pcie-root-port,id=d0,chassis=2,slot=2 --device iommu-testdev,bus=d0
# variant full: --policy strict --nvme 0 --device pcie-root-port,id=c0,chassis=1,slot=1 --device pcie-pci-bridge,id=c1,bus=c0 --device iommu-testdev,bus=c1,addr=1 --device iommu-testdev,bus=c1,addr=2 --device iommu-testdev,bus=c1,addr=3 --device pcie-root-port,id=d0,chassis=2,slot=2 --device iommu-testdev,bus=d0
# variant amd on stock: --iommu amd --policy strict --nvme 0 --device pcie-root-port,id=c0,chassis=1,slot=1 --device pcie-pci-bridge,id=c1,bus=c0 --device iommu-testdev,bus=c1,addr=1 --device iommu-testdev,bus=c1,addr=2 --device iommu-testdev,bus=c1,addr=3 --device pcie-root-port,id=d0,chassis=2,slot=2 --device iommu-testdev,bus=d0
# variant virtio on stock: --iommu virtio --policy strict --nvme 0 --device pcie-root-port,id=c0,chassis=1,slot=1 --device pcie-pci-bridge,id=c1,bus=c0 --device iommu-testdev,bus=c1,addr=1 --device iommu-testdev,bus=c1,addr=2 --device iommu-testdev,bus=c1,addr=3 --device pcie-root-port,id=d0,chassis=2,slot=2 --device iommu-testdev,bus=d0
# long: full
# timeout: 240

. /selftests/lib.sh

# On the debug kernel, which is far slower, the full numbers take the long variant.
case $VARIANT/$KERNEL in
strict/debug | amd/* | virtio/*) : "${ROUNDS:=200}" "${TYPES:=20}" "${REBINDS:=5}" ;;
esac
ROUNDS=${ROUNDS:-1000}
TYPES=${TYPES:-100}
REBINDS=${REBINDS:-20}

load()
{
	load_iommu && insmod /modules/rust_testowner.ko &&
		modprobe vfio_iommu_type1 allow_unsafe_interrupts=1 &&
		modprobe vfio-pci disable_idle_d3=1 || return 1
	# shellcheck disable=SC2046 # One word each.
	set -- $(pci_devices 1b36:0005)
	a=$1 b=$2 c=$3 d=$4
	group=/sys/bus/pci/devices/$a/iommu_group
	expect group "$(group_of "$a")" "$(group_of "$c")"
}

# take DRIVER DEVICE
take()
{
	echo "$1" >"/sys/bus/pci/devices/$2/driver_override" && bind "$1" "$2"
}

# set_type TYPE: the group's; prints the reason where it fails.
set_type()
{
	( echo "$1" >"$group/type" ) 2>&1
}

types()
{
	for _ in $(seq "$TYPES"); do
		for to in identity DMA DMA-FQ auto; do
			set_type $to || return 1
			[ $to = auto ] || expect type $to "$(cat "$group/type")" || return 1
		done
	done
}

refused()
{
	set_type "$1" | grep -q 'Operation not permitted' && return 0
	ktap_print_msg "type $1 is not refused"
	return 1
}

types_while_bound()
{
	for _ in $(seq "$TYPES"); do
		set_type DMA && take rust_kdma "$b" && refused identity && refused auto && refused DMA &&
			set_type DMA-FQ && expect type DMA-FQ "$(cat "$group/type")" &&
			refused identity && refused DMA && unbind "$b" || return 1
	done
	set_type auto
}

# in_report TEXT: the line of device $c.
in_report()
{
	expect "report on $c" "$1" "$(sed -n "s/^  $c //p" $DRIVER_FILES/groups)"
}

rebinds()
{
	for _ in $(seq "$REBINDS"); do
		in_report "no driver, domain default" && take rust_kdma "$c" &&
			in_report "driver rust_kdma, uses the DMA API, domain default" && unbind "$c" &&
			take rust_udma "$c" &&
			in_report "driver rust_udma, manages DMA itself, domain default" && unbind "$c" &&
			take vfio-pci "$c" &&
			in_report "driver vfio-pci, manages DMA itself, domain default" && unbind "$c" || return 1
	done
}

owned()
{
	take vfio-pci "$a" && races owned --rounds "$ROUNDS" "$a"
}

owned_against_bind()
{
	races owned --rounds "$TYPES" "$a" "$b"
}

both_at_work()
{
	take vfio-pci "$b" && races container-group "$a" "$b"
	worked=$?
	unbind "$b"
	return $worked
}

threads()
{
	take vfio-pci "$d" && races container "$a" "$d"
}

# VFIO's claim is over: another owner can have the group, and is told of no other.
claimable()
{
	take rust_udma "$b" && races oracle "rust_udma-$b" claim 1 &&
		races oracle "rust_udma-$b" release && unbind "$b" && set_type identity && set_type auto
}

# Only where the device was sent on purpose; the bridge asks for it.
only_wanted_faults()
{
	expect "faults of others" "" "$(faults | grep -v -x -F -e "$(reported 0000:02:00.0 write 0x100000)" -e "$(reported 0000:02:00.0 write 0x101000)" -e "$(reported "$d" write 0x100000)")"
}

ktap_print_header
ktap_set_plan 10
ktap_test_result "B22 load" load
mark_log
ktap_test_result "B22 $TYPES times: types of a group of several, unbound" types
ktap_test_result "B22 $TYPES times: one is bound: only DMA to DMA-FQ" types_while_bound
ktap_test_result "B18 the report follows the driver" rebinds
ktap_test_result "B27 $ROUNDS times: VFIO closed, vfio-pci bound, nothing is reached" owned
ktap_test_result "B7 $TYPES times: VFIO owns, a sibling cannot be bound, B23 who owns is told" owned_against_bind
ktap_test_result "B20 two devices of the group, both at work" both_at_work
ktap_test_result "C14 one container, three threads: map, unmap, another group comes and goes" threads
ktap_test_result "B27 the group can be claimed again" claimable
ktap_test_result "B27 no other faults" only_wanted_faults
ktap_finished
