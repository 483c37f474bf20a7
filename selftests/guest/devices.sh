#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Verified I/O of devices that differ in how they do DMA: NVMe, AHCI, xHCI with a
# USB disk, igb and e1000e.
#
# variant ours: --nvme 1 --disks 3 --device ide-hd,bus=ide.0,drive=disk1 --device qemu-xhci,id=xhci --device usb-storage,bus=xhci.0,drive=disk2 --qemu-arg -netdev --qemu-arg hubport,id=net0,hubid=0 --qemu-arg -netdev --qemu-arg hubport,id=net1,hubid=0 --device pcie-root-port,id=rp0,chassis=1,slot=1 --device pcie-root-port,id=rp1,chassis=2,slot=2 --device igb,bus=rp0,netdev=net0 --device e1000e,bus=rp1,netdev=net1
# variant strict on stock: --policy strict --nvme 1 --disks 3 --device ide-hd,bus=ide.0,drive=disk1 --device qemu-xhci,id=xhci --device usb-storage,bus=xhci.0,drive=disk2 --qemu-arg -netdev --qemu-arg hubport,id=net0,hubid=0 --qemu-arg -netdev --qemu-arg hubport,id=net1,hubid=0 --device pcie-root-port,id=rp0,chassis=1,slot=1 --device pcie-root-port,id=rp1,chassis=2,slot=2 --device igb,bus=rp0,netdev=net0 --device e1000e,bus=rp1,netdev=net1
# variant window on stock: --policy strict --nvme 1 --disks 3 --device ide-hd,bus=ide.0,drive=disk1 --device qemu-xhci,id=xhci --device usb-storage,bus=xhci.0,drive=disk2 --qemu-arg -netdev --qemu-arg hubport,id=net0,hubid=0 --qemu-arg -netdev --qemu-arg hubport,id=net1,hubid=0 --device pcie-root-port,id=rp0,chassis=1,slot=1 --device pcie-root-port,id=rp1,chassis=2,slot=2 --device igb,bus=rp0,netdev=net0 --device e1000e,bus=rp1,netdev=net1
# variant amd on stock: --iommu amd --nvme 1 --disks 3 --device ide-hd,bus=ide.0,drive=disk1 --device qemu-xhci,id=xhci --device usb-storage,bus=xhci.0,drive=disk2 --qemu-arg -netdev --qemu-arg hubport,id=net0,hubid=0 --qemu-arg -netdev --qemu-arg hubport,id=net1,hubid=0 --device pcie-root-port,id=rp0,chassis=1,slot=1 --device pcie-root-port,id=rp1,chassis=2,slot=2 --device igb,bus=rp0,netdev=net0 --device e1000e,bus=rp1,netdev=net1
# variant in-tree: --in-tree --nvme 1 --disks 3 --device ide-hd,bus=ide.0,drive=disk1 --device qemu-xhci,id=xhci --device usb-storage,bus=xhci.0,drive=disk2 --qemu-arg -netdev --qemu-arg hubport,id=net0,hubid=0 --qemu-arg -netdev --qemu-arg hubport,id=net1,hubid=0 --device pcie-root-port,id=rp0,chassis=1,slot=1 --device pcie-root-port,id=rp1,chassis=2,slot=2 --device igb,bus=rp0,netdev=net0 --device e1000e,bus=rp1,netdev=net1
# variant virtio on stock: --iommu virtio --nvme 1 --disks 3 --device ide-hd,bus=ide.0,drive=disk1 --device qemu-xhci,id=xhci --device usb-storage,bus=xhci.0,drive=disk2 --qemu-arg -netdev --qemu-arg hubport,id=net0,hubid=0 --qemu-arg -netdev --qemu-arg hubport,id=net1,hubid=0 --device pcie-root-port,id=rp0,chassis=1,slot=1 --device pcie-root-port,id=rp1,chassis=2,slot=2 --device igb,bus=rp0,netdev=net0 --device e1000e,bus=rp1,netdev=net1
# extra: in-tree strict ours/debug window
# timeout: 90

. /selftests/lib.sh

ktap_print_header
ktap_set_plan 8

SIZE=8

# sum FILE [DD-ARGUMENT...]: checksum of its first $SIZE megabytes.
sum()
{
	sum_file=$1
	shift
	dd if="$sum_file" bs=64k count=$((SIZE * 16)) "$@" 2>/dev/null | sha256sum | cut -d' ' -f1
}

# translated PCI-ADDRESS: its DMA goes through a group's translating domain.
translated()
{
	case $(type_of "$1") in
	DMA | DMA-FQ) return 0 ;;
	esac
	ktap_print_msg "$1 is not translated: '$(type_of "$1")'"
	return 1
}

# disk BLOCK-DEVICE: random data written past the page cache is read back as it
# was, and checksummed random writes too.
disk()
{
	translated "$(pci_of "$1")" || return 1
	dd if=/tmp/data of="/dev/$1" bs=64k oflag=direct 2>/dev/null || return 1
	echo 3 >/proc/sys/vm/drop_caches
	expect checksum "$data" "$(sum "/dev/$1" iflag=direct)" && fio_verify "$1" 2
}

# scsi_disk PATTERN: the sd disk whose path in sysfs has PATTERN.
scsi_disk()
{
	for scsi_disk in /sys/block/sd*; do
		readlink -f "$scsi_disk" | grep -q "$1" && basename "$scsi_disk" && return 0
	done
	return 1
}

load()
{
	load_iommu && modprobe sd_mod &&
		dd if=/dev/urandom of=/tmp/data bs=1M count=$SIZE 2>/dev/null && data=$(sum /tmp/data)
}

nvme_disk()
{
	modprobe nvme && wait_for 30 test -b /dev/nvme0n1 && disk nvme0n1
}

ahci_disk()
{
	modprobe ahci && wait_for 30 scsi_disk /ata >/dev/null && disk "$(scsi_disk /ata)"
}

usb_disk()
{
	modprobe xhci_pci && modprobe usb_storage && wait_for 60 scsi_disk /usb >/dev/null &&
		disk "$(scsi_disk /usb)"
}

# nic DRIVER: the network interface that it drives.
nic()
{
	for nic in /sys/class/net/*; do
		[ "$(basename "$(readlink "$nic/device/driver")")" = "$1" ] &&
			basename "$nic" && return 0
	done
	return 1
}

# The second interface lives in a network namespace, so that what the two say to
# each other really leaves the machine.
network()
{
	modprobe igb && modprobe e1000e && wait_for 30 nic igb && wait_for 30 nic e1000e &&
		translated "$(basename "$(readlink "/sys/class/net/$(nic igb)/device")")" &&
		translated "$(basename "$(readlink "/sys/class/net/$(nic e1000e)/device")")" || return 1
	here=$(nic igb)
	there=$(nic e1000e)
	unshare -n sleep 600 &
	peer=$!
	sleep 0.5
	ip link set "$there" netns $peer &&
		nsenter -t $peer -n ip addr add 10.0.0.2/24 dev "$there" &&
		nsenter -t $peer -n ip link set "$there" up &&
		ip addr add 10.0.0.1/24 dev "$here" && ip link set "$here" up &&
		wait_for 30 ping -c 1 -W 1 10.0.0.2
}

# A web server on either side; the data flows to who asks.
to_e1000e()
{
	httpd -p 10.0.0.1:1000 -h /tmp &&
		nsenter -t $peer -n wget -q -T 20 -O /tmp/there http://10.0.0.1:1000/data &&
		expect checksum "$data" "$(sum /tmp/there)"
}

to_igb()
{
	nsenter -t $peer -n httpd -p 10.0.0.2:1001 -h /tmp &&
		wget -q -T 20 -O /tmp/here http://10.0.0.2:1001/data &&
		expect checksum "$data" "$(sum /tmp/here)"
}

no_faults()
{
	expect faults "" "$(faults)"
}

quiet()
{
	"$@" >/tmp/quiet || { sed 's/^/# /' /tmp/quiet; return 1; }
}

mark_log
ktap_test_result "load" load
ktap_test_result "NVMe" nvme_disk
ktap_test_result "AHCI disk" ahci_disk
ktap_test_result "USB disk behind xHCI" usb_disk
if [ -e /proc/self/ns/net ]; then
	ktap_test_result "igb and e1000e reach each other" quiet network
	ktap_test_result "data from igb to e1000e" to_e1000e
	ktap_test_result "data from e1000e to igb" to_igb
else
	# In one namespace the two would talk over the loopback interface.
	ktap_test_skip "igb and e1000e reach each other (no network namespaces)"
	ktap_test_skip "data from igb to e1000e"
	ktap_test_skip "data from e1000e to igb"
fi
ktap_test_result "no faults" no_faults
[ -n "$peer" ] && kill $peer
ktap_finished
