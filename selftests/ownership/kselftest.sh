#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# The kernel's own VFIO selftests (tools/kselftest), unmodified: each of their cases is a result here.
# Their devices are two igb's, one of them with a virtual function.
#
# options: --policy strict --nvme 0 --kselftest --mem 4096 --append hugepagesz=1G --append hugepages=1 --append hugepagesz=2M --append hugepages=16 --device pcie-root-port,id=a,chassis=1,slot=1 --device igb,bus=a --device pcie-root-port,id=b,chassis=2,slot=2 --device igb,bus=b
# variant vtd:
# variant amd on stock: --iommu amd
# variant virtio on stock: --iommu virtio
# variant full on debug:
# variant full-amd on debug: --iommu amd
# variant full-virtio on debug: --iommu virtio
# extra: amd
# long: full full-amd full-virtio
# timeout: 600

. /selftests/lib.sh

# reason_to_skip VARIANT: why cases with this way to the IOMMU are not run; nothing if they are.
reason_to_skip()
{
	case $KERNEL/$VARIANT/$1 in
	stock/*/iommufd*) echo "this kernel is without iommufd" ;;
	# 262144 pages, each of which the unit is told of by itself: longer than the case may take.
	*/full-virtio/iommufd_compat_type1_anonymous_hugetlb_1gb) echo "takes too long" ;;
	*/full*) ;;
	debug/*/vfio_type1* | debug/*/iommufd_compat* | stock/amd/vfio_type1_iommu* | stock/virtio/vfio_type1_iommu*)
		# The other kernel has type1. Between its two versions all that differs is VFIO's.
		echo "left to the long variant"
		;;
	esac
}

load()
{
	load_iommu || return 1
	# vfio would load iommufd, without the parameter.
	case $KERNEL in
	stock) export VFIO_DEFAULT_MODE=vfio_type1v2_iommu ;;
	*) modprobe iommufd allow_unsafe_interrupts=1 || return 1 ;;
	esac
	modprobe vfio_iommu_type1 allow_unsafe_interrupts=1 || return 1
	# Files of the kernel's own driver, which is off: the tests would look for what they mapped there.
	[ ! -d /sys/kernel/debug/iommu/intel ] || mount -t tmpfs none /sys/kernel/debug/iommu || return 1
	# A gigabyte is mapped for many cases: not page by page.
	[ "$KERNEL" = debug ] || echo always >/sys/kernel/mm/transparent_hugepage/shmem_enabled &&
		modprobe vfio-pci disable_idle_d3=1 enable_sriov=1 || return 1
	# shellcheck disable=SC2046 # One word each.
	set -- $(pci_devices 8086:10c9)
	a=$1 b=$2
	take vfio-pci "$a" && take vfio-pci "$b" && races vmstat >/tmp/before
}

# variants PROGRAM: those of its cases
variants()
{
	"/kselftest/$1" -l "$a" 2>&1 | tr -s ' ' '\n' | grep -E '^(iommufd|vfio_type1)' | sort -u
}

# Of the program that was run.
all_planned()
{
	expect "planned, status" "$planned 0" "$results $status"
}

# run PROGRAM [DEVICE...]: its cases, and that all that it planned were there.
run()
{
	program=$1
	shift
	[ $# -gt 0 ] || set -- "$a"
	skipped=
	for variant in $(variants $program); do
		[ -n "$(reason_to_skip "$variant")" ] || continue
		skipped="$skipped $variant"
		set -- -V "$variant" "$@"
	done
	ktap_print_msg "$program $*"
	"/kselftest/$program" "$@" >/tmp/out 2>&1
	status=$?
	grep -v -E '^(ok|not ok|1\.\.|TAP)' /tmp/out | sed 's/^[# ]*/# /'
	results=0
	while read -r line; do
		name=${line#*ok * }
		case $line in
		"ok "*"# SKIP"*) ktap_test_skip "${name%%# SKIP*}(${name#*# SKIP })" ;;
		"ok "*) ktap_test_pass "$name" ;;
		"not ok "*) ktap_test_fail "$name" ;;
		*) continue ;;
		esac
		results=$((results + 1))
	done </tmp/out
	for variant in $skipped; do
		ktap_test_skip "$program: $variant ($(reason_to_skip "$variant"))"
	done
	planned=$(sed -n 's/^1\.\.//p' /tmp/out)
	ktap_test_result "$program: all $planned cases" all_planned
}

# tables_for WORDS...: pages that it takes to map huge pages
tables_for()
{
	races huge "$@" "$(group_of "$a")"
}

# A table for each level, and not one for each page. One of them that is not aligned is cut up.
huge_pages_stay_whole()
{
	for page in "--page 2097152 --count 16" "--page 1073741824"; do
		# shellcheck disable=SC2086 # One word each.
		whole=$(tables_for $page) && cut=$(tables_for $page --shift 4096) || return 1
		ktap_print_msg "$page: $whole pages of tables, not aligned $cut"
		[ "$whole" -le 4 ] && [ "$cut" -ge 16 ] || return 1
	done
}

# vfio_pci_driver_test sends one device to unmapped addresses on purpose.
only_wanted_faults()
{
	wanted=
	[ "$KERNEL" = debug ] || wanted=$(reported "$a" | cut -d' ' -f1)
	faults | sort | uniq -c | tee /tmp/faults | sed 's/^ */# /'
	expect "devices with faults" "$wanted" "$(awk '{ print $2 }' /tmp/faults | sort -u)"
}

nothing_left()
{
	races vmstat --compare /tmp/before
}

ktap_print_header
ktap_test_result "load" load
mark_log
run vfio_dma_mapping_test
run vfio_dma_mapping_mmio_test
run vfio_pci_device_test
case $KERNEL in
debug) ktap_test_skip "vfio_pci_driver_test (no transparent huge pages: to map a gigabyte takes longer than a case may)" ;;
*) run vfio_pci_driver_test ;;
esac
run vfio_pci_device_init_perf_test "$a" "$b"
run vfio_pci_sriov_uapi_test
case $KERNEL in
stock) ktap_test_skip "vfio_iommufd_setup_test ($(reason_to_skip iommufd))" ;;
*) run vfio_iommufd_setup_test ;;
esac
case $VARIANT in
*virtio) ktap_test_skip "huge pages are single entries (the unit has no table)" ;;
*) ktap_test_result "huge pages are single entries" huge_pages_stay_whole ;;
esac
ktap_test_result "faults of that device only" only_wanted_faults
ktap_test_result "nothing is left" nothing_left
ktap_set_plan $((KTAP_TESTNO - 1))
ktap_finished
