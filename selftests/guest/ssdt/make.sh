#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Makes external-port.aml, an ACPI table that the kernel loads beside QEMU's: what is behind the root port at
# 00:10.0, S80 to QEMU, is outside of the machine.
#	cd selftests/guest/ssdt && sh make.sh
#
#	Scope (\_SB.PCI0.S80) {
#		Name (_DSD, Package () {
#			ToUUID ("efcc06cc-73ac-4bc3-bff0-76143807c389"),
#			Package () { Package () { "ExternalFacingPort", 1 } }
#		})
#	}
set -eu

# table CHECKSUM: 36 bytes of header, 73 of what is above
table()
{
	printf 'SSDT\155\0\0\0\2'
	printf "\\$(printf %o "$1")"
	printf 'RUSTIOEXTPORT \1\0\0\0RUST\1\0\0\0'
	printf '\020\110\004\134\057\003_SB_PCI0S80_'
	printf '\010_DSD\022\061\002'
	printf '\021\023\012\020\314\006\314\357\254\163\303\113\277\360\166\024\070\007\303\211'
	printf '\022\032\001\022\027\002\015ExternalFacingPort\0\001'
}

sum=0
for value in $(table 0 | od -An -v -tu1); do
	sum=$((sum + value))
done
table $(((256 - sum % 256) % 256)) >external-port.aml
