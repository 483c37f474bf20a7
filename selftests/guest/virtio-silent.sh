#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# A virtio-iommu that does not answer any more: who waits is told in time, who comes later at once, with one
# line in the log. It falls silent because its function loses the right to DMA, behind the driver's back.
#
# variant virtio on stock: --iommu virtio --policy strict --nvme 0 --testdev=1
# timeout: 60

. /selftests/lib.sh

ktap_print_header
ktap_set_plan 6

unit=$(pci_devices 1af4:1057)
one=$(pci_devices 1b36:0005)

setup()
{
	load_iommu && insmod /modules/rust_testdev.ko && oracle "$one" map from >/tmp/map && cat /tmp/map
}

# The command register's bit 2.
silence()
{
	printf '\003' | dd of="/sys/bus/pci/devices/$unit/config" bs=1 seek=4 conv=notrunc 2>/dev/null
}

seconds()
{
	cut -d. -f1 /proc/uptime
}

# fails_within FROM TO: mapping does, after so many seconds
fails_within()
{
	begin=$(seconds)
	if oracle "$one" map from >/tmp/map; then
		ktap_print_msg "mapped: $(cat /tmp/map)"
		return 1
	fi
	took=$(($(seconds) - begin))
	ktap_print_msg "failed after $took s: $(cat /tmp/map)"
	[ $took -ge "$1" ] && [ $took -le "$2" ]
}

# Given up, and counted.
said_once()
{
	expect lines 1 "$(log_since_mark | grep -c "does not answer in time")" &&
		expect timeouts 1 "$(cat /sys/class/iommu/${UNIT_NAME}0/rust_iommu/timeouts)"
}

# It has let DMA through before, and that takes requests.
shutdown_says_that_too()
{
	rmmod rust_testdev && mark_log && echo 1 >/sys/module/$DRIVER/parameters/shutdown &&
		expect lines 1 "$(log_since_mark | grep -c "DMA cannot be let through again")" &&
		expect "a unit that stays on" 1 "$(log_since_mark | grep -c "a unit stays on")" && rmmod $DRIVER
}

mark_log
ktap_test_result "load and map" setup
ktap_test_result "it falls silent" silence
ktap_test_result "a map fails after the limit" fails_within 4 12
ktap_test_result "the next one fails at once" fails_within 0 1
ktap_test_result "one line says why" said_once
ktap_test_result "the end of the module says so too" shutdown_says_that_too
ktap_finished
