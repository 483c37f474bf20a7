#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Makes whole.aml, the VIOT that QEMU gives a machine with a virtio-iommu at 00:1d.0; and N.aml for each N given:
# its first N bytes. The kernel takes no VIOT in place of QEMU's, so these are for machines without that device.
#	cd selftests/guest/viot && sh make.sh 36 47 whole
set -eu
. ../acpi/table.sh

# Two nodes: the unit, and all functions of segment 0, which are behind it.
whole()
{
	header VIOT
	hex 2 0 30 0 0 0 0 0 0 0 0 0
	hex 3 0 10 0 0 0 e8 0 0 0 0 0 0 0 0 0
	hex 1 0 18 0 0 0 0 0 0 0 0 0 0 0 ff ff 30 0 0 0 0 0 0 0
}

for name; do
	case $name in
	whole) whole | seal ;;
	*) whole | seal "$name" ;;
	esac >"$name.aml"
done
