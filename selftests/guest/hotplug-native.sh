#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# hotplug.sh with native hotplug. Not on the debug kernel: there lockdep reports
# pciehp (reset_lock against pci_rescan_remove_lock) at every plug, also without
# an IOMMU and without our modules.
#
# variant ours: --copy selftests/guest/hotplug.sh:selftests/hotplug.sh --nvme 1 --disks 2 --device pcie-root-port,id=rp0,chassis=1,slot=1 --qemu-arg -global --qemu-arg ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off
# variant in-tree: --copy selftests/guest/hotplug.sh:selftests/hotplug.sh --in-tree --nvme 1 --disks 2 --device pcie-root-port,id=rp0,chassis=1,slot=1 --qemu-arg -global --qemu-arg ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off
# variant amd: --iommu amd --copy selftests/guest/hotplug.sh:selftests/hotplug.sh --nvme 1 --disks 2 --device pcie-root-port,id=rp0,chassis=1,slot=1 --qemu-arg -global --qemu-arg ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off
# variant virtio: --iommu virtio --copy selftests/guest/hotplug.sh:selftests/hotplug.sh --nvme 1 --disks 2 --device pcie-root-port,id=rp0,chassis=1,slot=1 --qemu-arg -global --qemu-arg ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off
# extra: in-tree amd virtio
# kernels: stock
# timeout: 90

. /selftests/hotplug.sh
