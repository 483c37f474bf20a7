# SPDX-License-Identifier: GPL-2.0
#
# For the scripts that make ACPI tables: source this file.

# hex BYTE...: these bytes, in hexadecimal.
hex()
{
	for byte; do
		# shellcheck disable=SC2059 # The format is the byte.
		printf "\\$(printf %o "0x$byte")"
	done
}

# little BYTES NUMBER: that number in so many bytes, the lowest first.
little()
{
	rest=$(($2))
	for _ in $(seq "$1"); do
		hex "$(printf %x $((rest & 255)))"
		rest=$((rest >> 8))
	done
}

# header SIGNATURE: a table's header, as QEMU has it but with a newer OEM revision, so that the kernel takes
# the table in place of QEMU's. Length and checksum are to be filled in.
header()
{
	printf %s "$1"
	hex 0 0 0 0 1 0
	printf 'BOCHS BXPC    '
	hex 2 0 0 0
	printf BXPC
	hex 1 0 0 0
}

# seal [LENGTH]: the table on standard input, or so many bytes of it, with a length and a checksum that fit.
seal()
{
	# shellcheck disable=SC2046 # One word each.
	set -- $(head -c "${1:-65535}" | od -An -v -tu1)
	size=$#
	sum=$((size % 256 + size / 256))
	for value; do
		sum=$((sum + value))
	done
	for _ in 1 2 3 4; do
		hex "$(printf %x "$1")"
		shift
	done
	little 4 $size
	hex "$(printf %x "$5")" "$(printf %x $(((256 - sum % 256) % 256)))"
	shift 6
	for value; do
		hex "$(printf %x "$value")"
	done
}
