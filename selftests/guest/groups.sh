#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Which devices share an IOMMU group (row H11), compared with what the in-tree
# driver makes of the same machine: the table below was printed by the in-tree
# variants, and they are held to it too. After a change of a machine run
#	tools/vm --env VARIANT=in-tree-NAME OPTIONS-OF-IT --script selftests/guest/groups.sh
# and take the partition from its first line.
#
# The ports of b are ioh3420, which have no ACS: pcie-root-port of this QEMU always
# has. In each machine test devices do DMA from where they are: behind bridges their
# requests carry another source-id.
#
# variant a-root-ports: --policy strict --nvme 0 --device pcie-root-port,id=a0,chassis=1,slot=1 --device pcie-root-port,id=a1,chassis=2,slot=2 --device iommu-testdev,bus=a0 --device iommu-testdev,bus=a1
# variant b-ports-without-acs: --policy strict --nvme 0 --device ioh3420,id=b0,chassis=1,slot=1,addr=10.0,multifunction=on --device ioh3420,id=b1,chassis=2,slot=2,addr=10.1 --device iommu-testdev,bus=b0 --device iommu-testdev,bus=b1
# variant c-pci-bridge: --policy strict --nvme 0 --device pcie-root-port,id=c0,chassis=1,slot=1 --device pcie-pci-bridge,id=c1,bus=c0 --device iommu-testdev,bus=c1,addr=1 --device edu,bus=c1,addr=2,dma_mask=0xffffffffffffffff --device iommu-testdev,bus=c1,addr=3
# variant d-switch: --policy strict --nvme 0 --device pcie-root-port,id=d0,chassis=1,slot=1 --device x3130-upstream,id=d1,bus=d0 --device xio3130-downstream,id=d2,bus=d1,chassis=2,slot=2 --device xio3130-downstream,id=d3,bus=d1,chassis=3,slot=3 --device iommu-testdev,bus=d2 --device iommu-testdev,bus=d3
# variant e-multifunction: --policy strict --nvme 0 --device pcie-root-port,id=e0,chassis=1,slot=1 --device iommu-testdev,bus=e0,addr=0.0,multifunction=on --device iommu-testdev,bus=e0,addr=0.1
# variant amd-c-pci-bridge: --iommu amd --policy strict --nvme 0 --device pcie-root-port,id=c0,chassis=1,slot=1 --device pcie-pci-bridge,id=c1,bus=c0 --device iommu-testdev,bus=c1,addr=1 --device edu,bus=c1,addr=2,dma_mask=0xffffffffffffffff --device iommu-testdev,bus=c1,addr=3
# variant amd-d-switch: --iommu amd --policy strict --nvme 0 --device pcie-root-port,id=d0,chassis=1,slot=1 --device x3130-upstream,id=d1,bus=d0 --device xio3130-downstream,id=d2,bus=d1,chassis=2,slot=2 --device xio3130-downstream,id=d3,bus=d1,chassis=3,slot=3 --device iommu-testdev,bus=d2 --device iommu-testdev,bus=d3
# variant amd-e-multifunction: --iommu amd --policy strict --nvme 0 --device pcie-root-port,id=e0,chassis=1,slot=1 --device iommu-testdev,bus=e0,addr=0.0,multifunction=on --device iommu-testdev,bus=e0,addr=0.1
# variant in-tree-a-root-ports: --in-tree --policy strict --nvme 0 --device pcie-root-port,id=a0,chassis=1,slot=1 --device pcie-root-port,id=a1,chassis=2,slot=2 --device iommu-testdev,bus=a0 --device iommu-testdev,bus=a1
# variant in-tree-b-ports-without-acs: --in-tree --policy strict --nvme 0 --device ioh3420,id=b0,chassis=1,slot=1,addr=10.0,multifunction=on --device ioh3420,id=b1,chassis=2,slot=2,addr=10.1 --device iommu-testdev,bus=b0 --device iommu-testdev,bus=b1
# variant in-tree-c-pci-bridge: --in-tree --policy strict --nvme 0 --device pcie-root-port,id=c0,chassis=1,slot=1 --device pcie-pci-bridge,id=c1,bus=c0 --device iommu-testdev,bus=c1,addr=1 --device edu,bus=c1,addr=2,dma_mask=0xffffffffffffffff --device iommu-testdev,bus=c1,addr=3
# variant in-tree-d-switch: --in-tree --policy strict --nvme 0 --device pcie-root-port,id=d0,chassis=1,slot=1 --device x3130-upstream,id=d1,bus=d0 --device xio3130-downstream,id=d2,bus=d1,chassis=2,slot=2 --device xio3130-downstream,id=d3,bus=d1,chassis=3,slot=3 --device iommu-testdev,bus=d2 --device iommu-testdev,bus=d3
# variant in-tree-e-multifunction: --in-tree --policy strict --nvme 0 --device pcie-root-port,id=e0,chassis=1,slot=1 --device iommu-testdev,bus=e0,addr=0.0,multifunction=on --device iommu-testdev,bus=e0,addr=0.1
# kernels: stock
# variant virtio-c-pci-bridge on stock: --iommu virtio --policy strict --nvme 0 --device pcie-root-port,id=c0,chassis=1,slot=1 --device pcie-pci-bridge,id=c1,bus=c0 --device iommu-testdev,bus=c1,addr=1 --device edu,bus=c1,addr=2,dma_mask=0xffffffffffffffff --device iommu-testdev,bus=c1,addr=3
# variant virtio-e-multifunction on stock: --iommu virtio --policy strict --nvme 0 --device pcie-root-port,id=e0,chassis=1,slot=1 --device iommu-testdev,bus=e0,addr=0.0,multifunction=on --device iommu-testdev,bus=e0,addr=0.1
# extra: amd-d-switch amd-e-multifunction in-tree-a-root-ports in-tree-b-ports-without-acs in-tree-c-pci-bridge in-tree-d-switch in-tree-e-multifunction
# timeout: 60

. /selftests/lib.sh

# The groups of a machine: devices of one joined by +, groups in the order of
# their first device.
expected()
{
	machine=${VARIANT#in-tree-}
	machine=${machine#amd-}
	case ${machine#virtio-} in
	a-root-ports) echo 00:00.0 00:01.0 00:02.0 00:1f.0+00:1f.2+00:1f.3 01:00.0 02:00.0 ;;
	b-ports-without-acs) echo 00:00.0 00:10.0+00:10.1+01:00.0+02:00.0 00:1f.0+00:1f.2+00:1f.3 ;;
	c-pci-bridge) echo 00:00.0 00:01.0 00:1f.0+00:1f.2+00:1f.3 01:00.0+02:01.0+02:02.0+02:03.0 ;;
	d-switch) echo 00:00.0 00:01.0 00:1f.0+00:1f.2+00:1f.3 01:00.0 02:00.0+03:00.0 02:01.0+04:00.0 ;;
	e-multifunction) echo 00:00.0 00:01.0 00:1f.0+00:1f.2+00:1f.3 01:00.0+01:00.1 ;;
	esac
}

partition()
{
	for group in /sys/kernel/iommu_groups/*; do
		ls "$group/devices" | sed 's/^0000://' | sort | paste -sd+
	done | sort | paste -sd' '
}

# What our driver says has merged a group, a line a group, beside the chipset's own.
reasons()
{
	machine=${VARIANT#amd-}
	case ${machine#virtio-} in
	b-ports-without-acs) echo 00:10.0 function,00:10.0 port,00:10.1 function,00:10.1 port ;;
	c-pci-bridge) echo 01:00.0 bridge ;;
	d-switch) echo 02:00.0 port && echo 02:01.0 port ;;
	e-multifunction) echo 01:00.0 function,01:00.1 function ;;
	esac
}

# said DEVICE: in one line
said()
{
	sed 's/^0000://' "/sys/bus/pci/devices/$1/rust_iommu/merged_by" | sort | paste -sd,
}

# Every device of a group says the same, and nothing where it is alone.
reasons_are_said()
{
	: >/tmp/reasons
	for group in /sys/kernel/iommu_groups/*; do
		# shellcheck disable=SC2046 # One word each.
		set -- $(ls "$group/devices")
		wanted=$(said "$1")
		for device; do
			expect "of $device" "$wanted" "$(said "$device")" || return 1
		done
		if [ $# = 1 ]; then
			expect "of $1, which is alone" "" "$wanted" || return 1
		else
			echo "$wanted" >>/tmp/reasons
		fi
	done
	expect reasons "$({ echo 00:1f.0 function,00:1f.2 function,00:1f.3 function; reasons; } | sort)" \
		"$(sort /tmp/reasons)"
}

groups_as_in_tree()
{
	expect groups "$(expected)" "$(partition)"
}

load()
{
	load_iommu && { [ -d /sys/module/rust_iommu ] || insmod /modules/rust_iommu.ko; } &&
		insmod /modules/rust_testdev.ko
}

# mapped_write DEVICE: reaches memory; edu is told to write what it read first.
mapped_write()
{
	answer=$(oracle "$1" map both) || return 1
	handle=$(answer_of handle "$answer")
	iova=$(answer_of iova "$answer")
	if [ "$1" = "$edu" ]; then
		oracle "$1" fill "$handle" 0x13572468 && oracle "$1" dma read "$iova" &&
			oracle "$1" fill "$handle" 0 && oracle "$1" dma write "$iova" &&
			expect "$1 data" match "$(oracle "$1" check "$handle" 0x13572468)"
	else
		expect "$1 write" ok "$(oracle "$1" dma write "$iova")" &&
			expect "$1 data" match "$(oracle "$1" check "$handle" 0x12345678)" &&
			expect "$1 unmapped" tx_fail "$(oracle "$1" unmap "$handle" then-write)"
	fi
}

every_device_does_dma()
{
	edu=$(pci_devices 1234:11e8)
	for device in $(pci_devices 1b36:0005) $edu; do
		mapped_write "$device" >/tmp/write || { cat /tmp/write; return 1; }
	done
}

ktap_print_header
case $VARIANT in
in-tree*) ktap_set_plan 3 ;;
*) ktap_set_plan 4 ;;
esac
ktap_test_result "load" load
ktap_print_msg "partition: $(partition)"
ktap_test_result "groups are those of the in-tree driver" groups_as_in_tree
case $VARIANT in
in-tree*) ;;
*) ktap_test_result "C5 what merged a group is said by each of its devices" reasons_are_said ;;
esac
ktap_test_result "every device does DMA" every_device_does_dma
ktap_finished
