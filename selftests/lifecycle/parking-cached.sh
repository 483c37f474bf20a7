#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# park_unbound=1 against what the unit has cached. The unbind is held between the cleanup after
# the driver and parking; there the device writes once more to what its driver left mapped, so that
# the unit has the translation again. The table keeps it. After parking it must not help.
#
# With identity the same; for VT-d by the table of identity domains, as its translations are cached too, and for
# virtio-iommu by its mappings.
#
# The kernel's own DMA debugging would warn of the leaks that are made here: it is off.
#
# variant strict: --policy strict --nvme 0 --testdev --append dma_debug=off
# variant lazy on stock: --policy lazy --nvme 0 --testdev --append dma_debug=off
# variant caching-mode on stock: --iommu-opt caching-mode=on --policy strict --nvme 0 --testdev --append dma_debug=off
# variant amd on stock: --iommu amd --policy strict --nvme 0 --testdev --append dma_debug=off
# variant virtio on stock: --iommu virtio --policy strict --nvme 0 --testdev --append dma_debug=off
# extra: lazy caching-mode strict/debug
# modules: inject
# timeout: 60

. /selftests/lib.sh

ktap_print_header
ktap_set_plan 5

dev=$(pci_devices 1b36:0005)

load()
{
	case $DRIVER in
	rust_vtd) table=identity_table=1 ;;
	rust_virtio_iommu) table=identity_map=1 ;;
	*) table= ;;
	esac
	load_iommu park_unbound=1 $table && insmod /modules/rust_testowner.ko &&
		kind=$(type_of "$dev") && take rust_kdma "$dev" && leave "$dev"
}

bound_with_leak()
{
	take rust_kdma "$dev" && leak=$(answer_of iova "$(ask rust_kdma "$dev" leak both)") && [ -n "$leak" ] &&
		says ok rust_kdma "$dev" dma write "$leak"
}

# blocked WHERE: the table has it, but nothing is reached.
blocked()
{
	expect "write after parking" tx_fail "$(races ghost "$dev" "$leak")" &&
		expect domain "$1, parked" "$(sed -n "s/^  $dev .*, domain //p" $DRIVER_FILES/groups)"
}

# parked_after_a_write WHERE: in the window it is reached, which also fills the unit's caches.
parked_after_a_write()
{
	bound_with_leak && races inject gate park || return 1
	races device "$dev" unbind &
	holder=$!
	races inject wait park 20 && expect "write before parking" ok "$(races ghost "$dev" "$leak")" &&
		races inject open park && wait $holder && blocked "$1"
}

translated()
{
	for _ in 1 2 3; do
		parked_after_a_write default || return 1
	done
}

# The other way round: what was refused is not kept either.
reached_when_bound_again()
{
	take rust_kdma "$dev" && says ok rust_kdma "$dev" dma write "$leak" && leave "$dev" && blocked default
}

identity()
{
	set_type "$dev" identity && for _ in 1 2 3; do
		parked_after_a_write identity || return 1
	done
}

# What was leaked goes with its domain.
nothing_else()
{
	set_type "$dev" "$kind" && take rust_kdma "$dev" && leave "$dev" &&
		expect "failures of the hardware" 0 "$(dmesg | grep -c 'not acknowledged')"
}

ktap_test_result "Y9 load" load
ktap_test_result "Y9 translated: what is cached does not outlive parking" translated
ktap_test_result "Y9 it is reached when a driver is bound again, and parked again" reached_when_bound_again
ktap_test_result "Y9 identity: what is cached does not outlive parking" identity
ktap_test_result "Y9 nothing else happened" nothing_else
ktap_finished
