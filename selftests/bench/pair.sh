#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Some pairs of map and unmap, of which the host writes each instruction down. In the guest; started by
# selftests/figures/pair-insns. Prints the addresses of all functions, as "symbol ADDRESS NAME".
#
# Environment:
#	POLICY       our driver is loaded and every device has this policy; empty: it is not
#	PLAN         parameters of run; an underscore is a space

. /selftests/lib.sh

insmod /modules/rust_iommu.ko ${POLICY:+policy=$POLICY} || exit 1
[ -z "$POLICY" ] || insmod /modules/$DRIVER.ko || exit 1
insmod /modules/rust_bench.ko || exit 1
dev=$(pci_devices 1234:11e8)
[ -z "$(take rust_bench "$dev")" ] || exit 1
awk '$2 ~ /^[tTwW]$/ { print "symbol", $1, $3 }' /proc/kallsyms

plan=$(echo "$PLAN" | tr _ ' ')
# The first maps make tables. What the kernel does after booting is to be over.
# shellcheck disable=SC2086
ask rust_bench "$dev" run pairs=2000 $plan >/dev/null || exit 1
sleep 5
vm_host insns on || exit 1
# shellcheck disable=SC2086
ask rust_bench "$dev" run pairs=60 $plan >/dev/null || exit 1
vm_host insns off
