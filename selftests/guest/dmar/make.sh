#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Makes N.aml for each N given: the first N bytes of the DMAR table that QEMU gives its q35 machine.
#	cd selftests/guest/dmar && sh make.sh 36 47 48 51 63 71 88
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

for length; do
	qemu | seal "$length" >"$length.aml"
done
