#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Makes whole.aml, an IVRS for the machines of tools/vm in place of QEMU's; and N.aml for each N given: its
# first N bytes.
#	cd selftests/guest/ivrs && sh make.sh 36 60 whole
set -eu
. ../acpi/table.sh

# unit TYPE LENGTH: the first 24 bytes of an IVHD. The unit is 00:1e.0, its registers are at 0xfed80000.
unit()
{
	hex "$1" d1 "$2" 0 f0 0 40 0
	little 8 0xfed80000
	hex 0 0 0 0 0 0 0 0
}

# The I/O APIC has the id of 00:14.0.
interrupts()
{
	hex 48 0 0 0 0 a0 0 1
}

start()
{
	header IVRS
	hex 1 28 0 0 0 0 0 0 0 0 0 0
}

# One unit, with all devices.
whole()
{
	start
	unit 10 24
	hex 1 0 0 0
	interrupts
}

for name; do
	case $name in
	whole) whole | seal ;;
	*) whole | seal "$name" ;;
	esac >"$name.aml"
done
