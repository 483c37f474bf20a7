#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# What a driver leaves when it goes, or when its probe fails: mappings are reported (row Y16),
# and what it had unmapped is not reached any more, however lazily that is invalidated.
#
# The kernel's own DMA debugging would warn of the leaks that are made here: it is off.
# Regions that firmware needs mapped (RMRR, IVMD) are not reported: see firmware-memory.sh.
#
# variant strict on stock: --policy strict --nvme 1 --testdev --cpus 4 --append dma_debug=off
# variant lazy: --policy lazy --nvme 1 --testdev --cpus 4 --append dma_debug=off
# variant window: --policy lazy --nvme 1 --testdev --cpus 4 --append dma_debug=off
# variant amd on stock: --iommu amd --policy lazy --nvme 1 --testdev --cpus 4 --append dma_debug=off
# variant virtio on stock: --iommu virtio --policy lazy --nvme 1 --testdev --cpus 4 --append dma_debug=off
# extra: strict amd window
# modules: inject
# timeout: 240

. /selftests/lib.sh

ktap_print_header
ktap_set_plan 6

dev=$(pci_devices 1b36:0005)
# The debug kernel takes ten times as long.
case $KERNEL in
debug) TIMES=5 ERRORS="12 517" ;;
*) TIMES=20 ERRORS="12 16 517" ;;
esac

load()
{
	load_iommu && insmod /modules/rust_testowner.ko && modprobe nvme &&
		wait_for 30 test -b /dev/nvme0n1 && nvme=$(pci_of nvme0n1) && kind=$(type_of "$dev")
}

# reports: what was said since mark_log of mappings that were left
reports()
{
	log_since_mark | sed -n 's/^rust_iommu: \(.* left .*\)/\1/p'
}

no_reports()
{
	expect reports "" "$(reports)"
}

# on_one_cpu COMMAND...: there a window gives out one page after the other, as the core does everywhere.
on_one_cpu()
{
	taskset -p 1 $$ >/dev/null || return 1
	"$@"
	status=$?
	taskset -p f $$ >/dev/null && return $status
}

# A mapping between them that is not leaked keeps two ranges apart.
leaks_are_reported()
{
	take rust_kdma "$dev" && first=$(ask rust_kdma "$dev" leak from) &&
		ask rust_kdma "$dev" map both >/dev/null && second=$(ask rust_kdma "$dev" leak both 2) || return 1
	for iova in $(answer_of iova "$first") $(answer_of iova "$second"); do
		says ok rust_kdma "$dev" dma write "$iova" || return 1
	done
	mark_log
	leave "$dev" || return 1
	reports | sort >/tmp/reports
	printf '%s: driver rust_kdma left %s mapped, %s bytes\n' \
		"$dev" "$(answer_of iova "$first")" 4096 "$dev" "$(answer_of iova "$second")" 8192 |
		sort >/tmp/wanted
	diff /tmp/wanted /tmp/reports | sed 's/^/# /'
	cmp -s /tmp/wanted /tmp/reports
}

# More than is told one by one: every second page of sixteen.
many_leaks_are_summed_up()
{
	new_domain && take rust_kdma "$dev" || return 1
	for _ in $(seq 12); do
		ask rust_kdma "$dev" leak to >/dev/null && ask rust_kdma "$dev" map to >/dev/null || return 1
	done
	mark_log
	leave "$dev" && expect lines 8 "$(reports | grep -c 'left 0x.* mapped, 4096 bytes$')" &&
		expect sum "$dev: driver rust_kdma left 12 ranges mapped, 49152 bytes" "$(reports | tail -n 1)"
}

# What was leaked goes with its domain.
new_domain()
{
	set_type "$dev" identity && set_type "$dev" "$kind"
}

rebind()
{
	for _ in $(seq "$1"); do
		leave "$3" && take "$2" "$3" || return 1
	done
}

clean_drivers_are_not_reported()
{
	new_domain && mark_log && rebind $TIMES rust_kdma "$dev" && leave "$dev" &&
		rebind $TIMES nvme "$nvme" && wait_for 30 test -b /dev/nvme0n1 && leave "$nvme" && no_reports
}

# The last pages below 4 GB are what the DMA API gives out first.
nothing_is_reached()
{
	for page in f e d c b a 9 8; do
		expect "write to page $page" tx_fail "$(races ghost "$dev" "0xffff${page}000")" || return 1
	done
}

# The override goes at once, so that a deferred probe is not made again.
fails_at()
{
	races inject fail "kdma.probe.$1" "$2" 1 "$dev" || return 1
	mark_log
	take rust_kdma "$dev" >/tmp/probe
	races device "$dev" override &&
		expect driver "" "$(readlink "/sys/bus/pci/devices/$dev/driver")" && [ -s /tmp/probe ] &&
		nothing_is_reached && no_reports && new_domain || return 1
	races inject clear
}

all_steps_fail()
{
	for step in 1 2 3 4; do
		for errno in $ERRORS; do
			fails_at $step $errno || {
				ktap_print_msg "probe.$step fails with $errno"
				return 1
			}
		done
	done
}

# The counters are as after the same without a failure.
failed_probes_leave_nothing()
{
	rebind 1 rust_kdma "$dev" && leave "$dev" && new_domain && races vmstat >/tmp/before &&
		all_steps_fail && races vmstat --compare /tmp/before
}

unmap_and_unbind()
{
	new_domain && set_type "$dev" DMA-FQ && take rust_kdma "$dev" &&
		mapped=$(ask rust_kdma "$dev" map both) && iova=$(answer_of iova "$mapped") &&
		says ok rust_kdma "$dev" dma write "$iova" && races inject gate flush &&
		says ok rust_kdma "$dev" unmap "$(answer_of handle "$mapped")" then-write && leave "$dev"
}

# What the device could reach a moment before, it cannot once its driver is gone. The flush
# queue's own invalidation is held when it comes, and with it the CPU that it comes on. Where
# the rest waits for that one, the gate opens by itself, and nothing is shown: once more then.
lazily_unmapped_is_not_reached()
{
	# Where units keep no table the one of the unbind passes there too.
	case $VARIANT in
	virtio) hits=2 ;;
	*) hits=1 ;;
	esac
	for attempt in $(seq 30); do
		unmap_and_unbind || return 1
		after=$(races ghost "$dev" "$iova")
		held=$(races inject)
		races inject clear
		expect "write after the unbind" tx_fail "$after" || return 1
		case $held in "flush gate hits $hits waiting 1 "*)
			ktap_print_msg "held at attempt $attempt"
			return 0
			;;
		esac
	done
	return 1
}

# A window is given up with the driver, and waits for the flush of its timer that is under way. So
# nothing can be held, and that of the unbind is the one that is seen. The flush queue would make
# another one, for the driver's coherent memory.
window_is_not_reached()
{
	set_type "$dev" identity && set_type "$dev" DMA && take rust_kdma "$dev" && mapped=$(ask rust_kdma "$dev" map both) &&
		iova=$(answer_of iova "$mapped") && says ok rust_kdma "$dev" dma write "$iova" &&
		says ok rust_kdma "$dev" unmap "$(answer_of handle "$mapped")" then-write && leave "$dev" &&
		expect "write after the unbind" tx_fail "$(races ghost "$dev" "$iova")"
}

ktap_test_result "Y16 load" load
ktap_test_result "Y16 leaked mappings are reported, these and no others" on_one_cpu leaks_are_reported
ktap_test_result "Y16 many leaks: the first ones and the sum" on_one_cpu many_leaks_are_summed_up
ktap_test_result "Y16 $TIMES times kdma, $TIMES times nvme: nothing is reported" clean_drivers_are_not_reported
ktap_test_result "B2 a probe fails at each step with each error: nothing is left" failed_probes_leave_nothing
if [ "$VARIANT" = window ]; then
	ktap_test_result "B1 what was unmapped lazily is not reached after the unbind" window_is_not_reached
elif [ "$KERNEL" = debug ]; then
	ktap_test_skip "B1 what was unmapped lazily is not reached after the unbind: nothing goes on here while a CPU is held"
else
	ktap_test_result "B1 what was unmapped lazily is not reached after the unbind" lazily_unmapped_is_not_reached
fi
ktap_finished
