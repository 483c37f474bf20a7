#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Makes whole.aml, an IVRS for the machines of tools/vm in place of QEMU's; N.aml for each N given: its first N
# bytes; and ivmd.aml: a newer description of the same unit, and the memory of firmware-memory.sh.
#	cd selftests/guest/ivrs && sh make.sh 36 60 whole ivmd
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

# memory TYPE FLAGS FIRST LAST START LENGTH: an IVMD, for the functions 00:FIRST.0 to 00:LAST.7 by their ids.
memory()
{
	hex "$1" "$2" 20 0 "$3" 0 "$4" 0 0 0 0 0 0 0 0 0
	little 8 "$5"
	little 8 "$6"
}

# The older description has the host bridge only. The newer one begins with four bytes that say nothing, and has
# a range, 00:01.0 to 00:1d.7.
ivmd()
{
	start
	unit 10 24
	hex 2 0 0 0
	interrupts
	unit 40 3c
	little 8 0x29d3
	little 8 0
	hex 0 0 0 0
	hex 3 8 0 0 4 ef 0 0
	interrupts
	# Unity for 00:10.0; exclusion for 00:12.0 to 00:13.7; for 00:11.0 neither, which says nothing.
	memory 21 7 80 0 0x10000000 0x1000
	memory 22 8 90 9f 0x10002000 0x2000
	memory 21 6 88 0 0x10004000 0x1000
}

for name; do
	case $name in
	whole) whole | seal ;;
	ivmd) ivmd | seal ;;
	*) whole | seal "$name" ;;
	esac >"$name.aml"
done
