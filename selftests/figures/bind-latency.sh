#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Row B8: how long it takes to bind a driver and to unbind it, with the module and without it, in turns.
# A figure, not a test: tools/check does not run it, and the machine should have nothing else to do.
#
#	tools/vm --quiet --policy strict --nvme 0 --testdev --script selftests/figures/bind-latency.sh
#
# Drivers that do little, of one device: pci-stub, which does nothing and so uses no DMA, and rust_kdma,
# whose probe allocates a coherent buffer, maps a page and makes a file in debugfs. With a disk
# (--nvme 1) nvme too, which is slow: a tenth as often.
#
# arguments: [TURNS [BINDS]]

. /selftests/lib.sh

TURNS=${1:-5}
BINDS=${2:-100}

dev=$(pci_devices 1b36:0005)
disk=$(pci_devices 1b36:0010)
drivers="pci-stub rust_kdma${disk:+ nvme}"

# measure CASE: one line for each driver and step
measure()
{
	for driver in $drivers; do
		device=$dev
		rounds=$BINDS
		[ $driver != nvme ] || { device=$disk && rounds=$(((BINDS + 9) / 10)); }
		echo $driver >"/sys/bus/pci/devices/$device/driver_override" &&
			races bind-latency --rounds "$rounds" "$device" $driver >/tmp/figures || return 1
		sed "s/^/$1 $driver /" /tmp/figures | tee -a /tmp/all
	done
}

# types TYPE: of all devices
types()
{
	for device in $dev $disk; do
		set_type "$device" "$1" || return 1
	done
}

turn()
{
	insmod /modules/$DRIVER.ko || return 1
	for type in identity DMA DMA-FQ; do
		types $type && measure $type || return 1
	done
	echo 1 >/sys/module/$DRIVER/parameters/shutdown && rmmod $DRIVER && measure none
}

# middle CASE DRIVER STEP: of the turns' medians
middle()
{
	grep "^$1 $2 $3 " /tmp/all | cut -d' ' -f5 | sort -n | sed -n "$(((TURNS + 1) / 2))p"
}

insmod /modules/rust_iommu.ko && insmod /modules/rust_testowner.ko && modprobe pci-stub || exit 1
if [ -n "$disk" ]; then
	modprobe nvme && wait_for 30 test -b /dev/nvme0n1 && leave "$disk" || exit 1
fi
for i in $(seq "$TURNS"); do
	echo "turn $i"
	turn || exit 1
done

echo "middle of the medians in us, and the ratio to that without the module"
for driver in $drivers; do
	for step in bind unbind; do
		none=$(middle none $driver $step)
		for case in none identity DMA DMA-FQ; do
			time=$(middle $case $driver $step)
			echo "$driver $step $case $time $(awk "BEGIN { printf \"%.3f\", $time / $none }")"
		done
	done
done
