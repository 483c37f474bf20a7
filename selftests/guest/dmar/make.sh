#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Makes N.aml for each N given: the first N bytes of the DMAR table that QEMU gives its q35 machine; and
# rmrr.aml, in which the same unit has all devices, with the memory of firmware-memory.sh.
#	cd selftests/guest/dmar && sh make.sh 36 47 48 51 63 71 88 rmrr
set -eu
. ../acpi/table.sh

# Address width 48; the unit at 0xfed90000 with the host bridge and two more.
qemu()
{
	header DMAR
	hex 2f 1 0 0 0 0 0 0 0 0 0 0
	hex 0 0 28 0 0 0 0 0 0 0 d9 fe 0 0 0 0
	hex 3 8 0 0 0 ff 0 0
	hex 1 8 0 0 0 0 0 0
	hex 2 8 0 0 0 0 1 0
}

rmrr()
{
	header DMAR
	hex 2f 1 0 0 0 0 0 0 0 0 0 0
	hex 0 0 18 0 1 0 0 0 0 0 d9 fe 0 0 0 0
	hex 3 8 0 0 0 ff 0 0
	region 20 0x10000000 0x10000fff 10
	region 28 0x10002000 0x10003fff 12 13
}

# region LENGTH FIRST LAST DEVICE...: an RMRR of this length, for the functions 00:DEVICE.0.
region()
{
	hex 1 0 "$1" 0 0 0 0 0
	little 8 "$2"
	little 8 "$3"
	shift 3
	for device; do
		hex 1 8 0 0 0 0 "$device" 0
	done
}

for name; do
	case $name in
	rmrr) rmrr | seal ;;
	*) qemu | seal "$name" ;;
	esac >"$name.aml"
done
