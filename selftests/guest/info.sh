#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# tools/iommu-info against what the guest knows: every group and device, what merged each group, that a
# device which it calls assignable can be opened and others cannot, that its commands change that, that
# its limits are enough and a page less is not, and that its window is the one that VFIO allows, also with
# tables that are narrower than the unit could have (narrow) and with other units (amd, virtio). The groups of
# groups.sh are there: ports without ACS (b), a bridge to conventional PCI (c), a switch (d), functions of
# one device (e). The kernel's driver for virtio-iommu leaves the bus when it comes to what is behind the bridge;
# info-in-tree.sh is without.
#
# options: --policy strict --nvme 1 --device ioh3420,id=b0,chassis=1,slot=1,addr=10.0,multifunction=on --device ioh3420,id=b1,chassis=2,slot=2,addr=10.1 --device iommu-testdev,bus=b0 --device iommu-testdev,bus=b1 --device pcie-root-port,id=c0,chassis=3,slot=3 --device pcie-pci-bridge,id=c1,bus=c0 --device iommu-testdev,bus=c1,addr=1 --device iommu-testdev,bus=c1,addr=2 --device pcie-root-port,id=d0,chassis=4,slot=4 --device x3130-upstream,id=d1,bus=d0 --device xio3130-downstream,id=d2,bus=d1,chassis=5,slot=5 --device iommu-testdev,bus=d2 --device pcie-root-port,id=e0,chassis=6,slot=6 --device iommu-testdev,bus=e0,addr=0.0,multifunction=on --device iommu-testdev,bus=e0,addr=0.1
# variant ours:
# variant narrow:
# variant amd: --iommu amd
# variant virtio: --iommu virtio
# variant in-tree: --in-tree
# variant in-tree-amd: --in-tree --iommu amd
# extra: in-tree-amd
# kernels: stock
# timeout: 90

. /selftests/lib.sh

# parent_of PCI-ADDRESS: the bridge above it
parent_of()
{
	basename "$(dirname "$(readlink -f "/sys/bus/pci/devices/$1")")"
}

driver_of()
{
	basename "$(readlink "/sys/bus/pci/devices/$1/driver")" 2>/dev/null
}

# has LINE COMMAND...: what the command prints has this line
has()
{
	has_line=$1
	shift
	"$@" >/tmp/has && grep -qxF -- "$has_line" /tmp/has && return 0
	ktap_print_msg "'$*' has no line '$has_line':"
	sed 's/^/# /' /tmp/has
	return 1
}

# The disk's driver is there first, so that our driver leaves the disk alone.
load()
{
	modprobe nvme && wait_for 30 test -b /dev/nvme0n1 && disk=$(pci_of nvme0n1) &&
		case $VARIANT in
		narrow) bits=39 && load_iommu address_bits=39 ;;
		virtio) bits=39 && load_iommu ;;
		in-tree-amd) bits=64 && load_iommu ;;
		*) bits=48 && load_iommu ;;
		esac &&
		{ [ -d /sys/module/rust_iommu ] || insmod /modules/rust_iommu.ko; } &&
		insmod /modules/rust_testdev.ko || return 1
	# shellcheck disable=SC2046 # One word each.
	set -- $(pci_devices 1b36:0005)
	c0=$1 c1=$2 d=$3 e0=$4 e1=$5 b0=$6 b1=$7
	[ $# = 7 ] && case $VARIANT in
	ours | narrow) unit=vtd0 driver=rust_vtd ;;
	amd) unit=amdvi0 driver=rust_amdvi ;;
	virtio) unit=viommu0 driver=rust_virtio_iommu ;;
	in-tree) unit=dmar0 driver=intel-iommu ;;
	in-tree-amd) unit=ivhd0 driver=amd-iommu ;;
	esac
}

lists_what_is_there()
{
	iommu-info list >/tmp/list || return 1
	grep -q "^unit $unit: $driver, $bits bits, [0-9]* devices$" /tmp/list || { sed 's/^/# /' /tmp/list; return 1; }
	expect groups "$(ls /sys/kernel/iommu_groups | wc -l)" "$(grep -c '^group ' /tmp/list)" || return 1
	for group in /sys/kernel/iommu_groups/*; do
		grep -q "^group ${group##*/}: type $(cat "$group/type"), " /tmp/list || { echo "# $group"; return 1; }
		for device in "$group"/devices/*; do
			address=${device##*/}
			bound=$(driver_of "$address")
			sed -n "/^group ${group##*/}:/,/^group/p" /tmp/list |
				grep -q "^  $address: driver ${bound:-none}, policy strict.*, $unit, DMA mask " ||
				{ echo "# $address"; return 1; }
		done
	done
	iommu-info --json list | grep -q "\"name\": \"$unit\""
}

says_what_is_missing()
{
	case $VARIANT in
	ours | narrow | amd | virtio)
		! grep -q '^not known' /tmp/list && grep -qF "  $c0: driver rust_testdev, policy strict, $unit" /tmp/list
		;;
	in-tree*)
		sed -n '/^not known/,$p' /tmp/list | grep "$unit: not exported by $driver" |
			grep policy | grep claims | grep faults | grep -q mappings
		;;
	esac
}

# merged DEVICE ADDRESS WORDS...: the function at the address is named as what merged the device's group
merged()
{
	merged_by="  - $2, a"
	iommu-info explain "$1" >/tmp/merged || return 1
	shift 2
	grep -F -- "$merged_by" /tmp/merged | grep -q "$*" && return 0
	ktap_print_msg "no '$merged_by $*'"
	sed 's/^/# /' /tmp/merged
	return 1
}

names_what_merged_a_group()
{
	merged "$b0" "$(parent_of "$b0")" "root port.*no ACS capability" &&
		merged "$b0" "$(parent_of "$b1")" "function of a device" &&
		merged "$c0" "$(parent_of "$c0")" "bridge to conventional PCI.*$c0, $c1" &&
		merged "$d" "$(parent_of "$d")" "downstream port.*no ACS capability" &&
		merged "$e0" "$e0" "function of a device" && merged "$e0" "$e1" "function of a device" || return 1
	iommu-info explain "$disk" >/tmp/merged && ! grep -q "is one because" /tmp/merged
}

# obey [DEVICE]: carries out what explain says of it
obey()
{
	iommu-info explain "$1" | sed -n 's/^  \$ //p' >/tmp/commands && [ -s /tmp/commands ] &&
		sed 's/^/# /' /tmp/commands && sh -e /tmp/commands
}

opens()
{
	expect "group $(group_of "$1")" mapped "$(races memlock "$(group_of "$1")" 2>&1)"
}

# With vfio-pci bound already the sibling alone is in the way; the rest is the commands' work.
a_sibling_is_in_the_way()
{
	modprobe vfio_iommu_type1 && modprobe vfio-pci disable_idle_d3=1 && unbind "$c0" && take vfio-pci "$c0" &&
		has "$c0 in group $(group_of "$c0"): not assignable" iommu-info explain "$c0" &&
		has "  - $c1 of the same group is bound to rust_testdev" iommu-info explain "$c0" || return 1
	[ "${VARIANT#in-tree}" != "$VARIANT" ] ||
		has "  - interrupts are not remapped, and neither vfio_iommu_type1 nor iommufd is told to do without" \
			iommu-info explain "$c0" || return 1
	races memlock "$(group_of "$c0")" >/tmp/opened && { ktap_print_msg "it was opened"; return 1; }
	obey "$c0" && has "$c0 in group $(group_of "$c0"): assignable" iommu-info explain "$c0" && opens "$c0"
}

from_a_host_driver_to_vfio()
{
	has "  - it is bound to rust_testdev, not to vfio-pci" iommu-info explain "$e1" &&
		obey "$e1" && expect driver vfio-pci "$(driver_of "$e1")" &&
		has "$e1 in group $(group_of "$e1"): assignable" iommu-info explain "$e1" && opens "$e1"
}

# Host tables of AMD-Vi have a bit for it, which is always set.
coherency()
{
	case $VARIANT in
	amd | in-tree-amd) wanted=enforced ;;
	*) wanted="not enforced" ;;
	esac
	expect coherency "$wanted" "$(races memlock --coherency "$(group_of "$c0")" | head -n 1)"
}

window_is_what_vfio_allows()
{
	for device in "$c0" "$e1"; do
		ranges=$(races memlock --ranges "$(group_of "$device")" | head -n 1)
		ktap_print_msg "$ranges"
		sed -n "/^group $(group_of "$device"):/,/^group/p" /tmp/list >/tmp/window
		[ -n "$ranges" ] && has "  window $ranges" cat /tmp/window || return 1
	done
}

# While a process has the group no driver of the kernel's can have another device of it.
sibling_is_refused()
{
	expect "driver of $c1" "" "$(driver_of "$c1")" || return 1
	take rust_testdev "$c1" >/tmp/refused
	grep -q "Device or resource busy" /tmp/refused && expect "driver of $c1" "" "$(driver_of "$c1")" &&
		echo >"/sys/bus/pci/devices/$c1/driver_override"
}

holder_is_named()
{
	mkfifo /tmp/hold
	races memlock --hold "$(group_of "$c0")" </tmp/hold >/tmp/holding &
	holder=$!
	exec 4>/tmp/hold
	wait_for 10 grep -q mapped /tmp/holding && sibling_is_refused &&
		has "  - process $holder (races) has /dev/vfio/$(group_of "$c0") open" iommu-info explain "$c1" &&
		has "group $(group_of "$c0"): type DMA, owner process $holder (races)" iommu-info list &&
		obey "$c0"
	held=$?
	exec 4>&-
	wait $holder 2>/dev/null
	[ $held = 0 ] && has "$c0 in group $(group_of "$c0"): assignable" iommu-info explain "$c0"
}

# limited BYTES WORDS...: what becomes of mapping when so much may be locked
limited()
{
	races memlock --bytes $size --limit "$@" "$(group_of "$c0")" "$(group_of "$e1")" 2>&1
}

# limit_of WORDS: what memlock says, in bytes
limit_of()
{
	sed -n "s/^  VFIO type1, $1: \([0-9]*\) bytes .*/\1/p" /tmp/memlock
}

limit_is_enough_and_a_page_less_is_not()
{
	size=16781313
	iommu-info memlock "$(group_of "$c0")" "$(group_of "$e1")" --memory $size >/tmp/memlock &&
		one=$(limit_of "one container") && each=$(limit_of "a container each") &&
		ktap_print_msg "one container: $one bytes, a container each: $each bytes" &&
		expect "one container" mapped "$(limited "$one")" &&
		expect "one page less" ENOMEM "$(limited $((one - 4096)))" &&
		expect "a container each" mapped "$(limited "$each" --each)" &&
		expect "one page less" ENOMEM "$(limited $((each - 4096)) --each)"
}

# What is printed of the unit while DMA is mapped and refused, and while nothing happens.
watches()
{
	if [ "${VARIANT#in-tree}" != "$VARIANT" ]; then
		iommu-info watch 2>/tmp/watch
		expect status 1 $? && grep -q "nothing to watch: $unit: not exported by $driver" /tmp/watch
		return
	fi
	iommu-info watch --interval 2 --count 2 >/tmp/watch &
	sleep 0.5
	for _ in 1 2 3; do
		handle=$(answer_of handle "$(oracle "$b0" map both)") && oracle "$b0" unmap "$handle" >/dev/null
	done
	oracle "$b0" dma write 0x12345000 >/dev/null
	wait $!
	sed 's/^/# /' /tmp/watch
	expect lines 2 "$(grep -c "^$unit: " /tmp/watch)" &&
		grep "^$unit: " /tmp/watch | head -n 1 | grep -q '[1-9].* invalidations/s, .*[1-9].* faults/s$' &&
		grep "^$unit: " /tmp/watch | tail -n 1 | grep -q ' 0\.0 invalidations/s, 0\.0 faults/s$' &&
		expect "invalidations of the device" 1 \
			"$(grep -c "^$b0: .*, [0-9.]*[1-9][0-9.]* invalidations/s, .* faults/s$" /tmp/watch)" &&
		# QEMU's AMD-Vi does not say on which bus a device is.
		{ [ "$VARIANT" = amd ] ||
			expect "faults of the device" 1 "$(grep -c "^$b0: .*, [0-9.]*[1-9][0-9.]* faults/s$" /tmp/watch)"; }
}

left_alone()
{
	if [ "${VARIANT#in-tree}" != "$VARIANT" ]; then
		has "  - it is bound to nvme, not to vfio-pci" iommu-info explain "$disk"
		return
	fi
	mkswap /dev/nvme0n1 >/dev/null && swapon /dev/nvme0n1 || return 1
	has "$disk in no group: not assignable" iommu-info explain "$disk" &&
		has "  - $disk goes: nvme0n1 is swap" iommu-info explain "$disk"
	warned=$?
	swapoff /dev/nvme0n1
	[ $warned = 0 ] && iommu-info explain "$disk" >/tmp/alone && ! grep -q '^careful' /tmp/alone &&
		grep -q 'it has no group: if it had a driver when the IOMMU driver was loaded' /tmp/alone &&
		obey "$disk" && wait_for 30 test -b /dev/nvme0n1 &&
		has "$disk in group $(group_of "$disk"): not assignable" iommu-info explain "$disk"
}

# fails STATUS WORDS...: says one line
fails()
{
	fails_status=$1
	shift
	iommu-info "$@" >/tmp/out 2>/tmp/err
	expect "status of $*" "$fails_status" $? && expect "lines of $*" 1 "$(wc -l </tmp/err)" && [ ! -s /tmp/out ]
}

bad_input()
{
	fails 2 explain nonsense && fails 2 memlock && fails 2 watch --count 0 && fails 2 &&
		fails 1 explain 0000:ff:1f.7 && fails 1 memlock 4711 && fails 1 --root /nonexistent list
}

ktap_print_header
ktap_set_plan 13
ktap_test_result "load" load
ktap_test_result "C11 list has every group and device" lists_what_is_there
ktap_test_result "C11 what is missing is said" says_what_is_missing
ktap_test_result "C5 what merged a group is named" names_what_merged_a_group
ktap_test_result "B23 a sibling is in the way, and the commands free the device" a_sibling_is_in_the_way
ktap_test_result "B23 from a host driver to VFIO" from_a_host_driver_to_vfio
ktap_test_result "C2 the window is what VFIO allows" window_is_what_vfio_allows
ktap_test_result "VFIO is told whether DMA snoops the caches in any case" coherency
ktap_test_result "B23 a sibling is refused, and the holder is named" holder_is_named
ktap_test_result "C7 the limit is enough, and one page less is not" limit_is_enough_and_a_page_less_is_not
ktap_test_result "C11 watch" watches
ktap_test_result "B23 a device that was left alone" left_alone
ktap_test_result "C11 bad input" bad_input
ktap_finished
