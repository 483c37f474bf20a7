#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Makes N.aml for each N given: the first N bytes of the DMAR table that QEMU
# gives its q35 machine, with a length and a checksum that fit, and a newer OEM
# revision, so that the kernel takes it in place of QEMU's.
#	cd selftests/guest/dmar && sh make.sh 36 47 48 51 63 71 88
set -eu

# byte VALUE: that byte.
byte()
{
	printf "\\$(printf %o "$1")"
}

# table LENGTH CHECKSUM
table()
{
	{
		printf DMAR
		for value in "$1" 0 0 0 1 "$2"; do
			byte "$value"
		done
		printf 'BOCHS BXPC    '
		printf '\2\0\0\0'
		printf 'BXPC\1\0\0\0'
		# Address width 48; the unit at 0xfed90000 with the host bridge and two more.
		printf '\057\001\0\0\0\0\0\0\0\0\0\0'
		printf '\0\0\050\0\0\0\0\0\0\0\331\376\0\0\0\0'
		printf '\003\010\0\0\0\377\0\0'
		printf '\001\010\0\0\0\0\0\0'
		printf '\002\010\0\0\0\0\001\0'
	} | head -c "$1"
}

for length; do
	sum=0
	for value in $(table "$length" 0 | od -An -v -tu1); do
		sum=$((sum + value))
	done
	table "$length" $(((256 - sum % 256) % 256)) >"$length.aml"
done
