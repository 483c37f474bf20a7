#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# The kernel decides on ownership as the model does: in the ten cells of the table
# (selftests/races/src/cells.rs) and in orders of steps by chance.
#
# variant strict: --policy strict --nvme 0 --device pcie-root-port,id=c0,chassis=1,slot=1 --device pcie-pci-bridge,id=c1,bus=c0 --device iommu-testdev,bus=c1,addr=1 --device iommu-testdev,bus=c1,addr=2 --device iommu-testdev,bus=c1,addr=3
# variant full: --policy strict --nvme 0 --device pcie-root-port,id=c0,chassis=1,slot=1 --device pcie-pci-bridge,id=c1,bus=c0 --device iommu-testdev,bus=c1,addr=1 --device iommu-testdev,bus=c1,addr=2 --device iommu-testdev,bus=c1,addr=3
# variant amd on stock: --iommu amd --policy strict --nvme 0 --device pcie-root-port,id=c0,chassis=1,slot=1 --device pcie-pci-bridge,id=c1,bus=c0 --device iommu-testdev,bus=c1,addr=1 --device iommu-testdev,bus=c1,addr=2 --device iommu-testdev,bus=c1,addr=3
# variant virtio on stock: --iommu virtio --policy strict --nvme 0 --device pcie-root-port,id=c0,chassis=1,slot=1 --device pcie-pci-bridge,id=c1,bus=c0 --device iommu-testdev,bus=c1,addr=1 --device iommu-testdev,bus=c1,addr=2 --device iommu-testdev,bus=c1,addr=3
# extra: amd
# long: full
# modules: inject
# timeout: 240

. /selftests/lib.sh

# The full numbers take the long variant, and on the debug kernel all is far slower.
case $VARIANT/$KERNEL in
full/*) ;;
strict/debug) : "${ROUNDS:=1}" "${SCHEDULES:=10}" "${ORDERS:=3}" ;;
*) : "${ROUNDS:=4}" "${SCHEDULES:=100}" "${ORDERS:=15}" ;;
esac
# For each operation, of which there are three; and for each order.
ROUNDS=${ROUNDS:-34}
SCHEDULES=${SCHEDULES:-1000}
ORDERS=${ORDERS:-100}
SEED=${SEED:-$(date +%s)}

load()
{
	load_iommu && insmod /modules/rust_testowner.ko || return 1
	devices=$(pci_devices 1b36:0005)
	for bdf in $devices; do
		expect "group of $bdf" "$(group_of "${devices%%
*}")" "$(group_of "$bdf")" || return 1
	done
}

table()
{
	# shellcheck disable=SC2086 # One word each.
	races table --rounds "$ROUNDS" $devices
}

schedule()
{
	# shellcheck disable=SC2086 # One word each.
	races schedule --order "$@" $devices
}

unload()
{
	rmmod rust_testowner && leak_scan
}

ktap_print_header
ktap_set_plan 6
ktap_test_result "B14 load" load
ktap_test_result "B14 ten cells, three operations, two orders, $ROUNDS times each" table
ktap_test_result "B11 two removes, $ORDERS times in either order" schedule removes --rounds $((2 * ORDERS))
ktap_test_result "B12 a remove ends while a sibling's probe is held, $ORDERS times" schedule probe --rounds "$ORDERS"
ktap_test_result "B13 $SCHEDULES schedules from seed $SEED agree with the model" \
	schedule random --rounds "$SCHEDULES" --seed "$SEED"
ktap_test_result "B14 unload" unload
ktap_finished
