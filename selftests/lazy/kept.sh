#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# The policy lazy where units keep no table: how much is kept, and for how long; and what happens when the
# unit has no memory for a mapping (row A18), also during I/O, or the policy is refused.
#
# variant virtio: --iommu virtio --policy strict --nvme 1 --device edu --device qemu-xhci --testdev --trace virtio_iommu_unmap
# skip vtd amd: there is a window where units have tables; window and narrow look at that
# modules: inject
# timeout: 240

. /selftests/lib.sh

ktap_print_header
ktap_set_plan 13

edu=$(pci_devices 1234:11e8)
usb=$(pci_devices 1b36:000d)
disk=$(pci_devices 1b36:0010)
dev=$(pci_devices 1b36:0005)
TRACING=/sys/kernel/tracing
# A tenth of the age is what the machine may be late for; more where all is slow.
case $KERNEL in
debug) PAGES=50 INTERVAL=20000 AGE_MS=3000 TIMES=2 ROUNDS=2 ;;
*) PAGES=1000 INTERVAL=1000 AGE_MS=600 TIMES=20 ROUNDS=3 ;;
esac

max_age()
{
	echo "$1" >"/sys/bus/pci/devices/$edu/rust_iommu/max_age_ms"
}

# run FAILED PARAMETER...: maps and unmaps; so many maps fail
run()
{
	run_failed=$1
	shift
	answer=$(ask rust_bench "$edu" run "$@") || { ktap_print_msg "$*: $answer" && return 1; }
	expect "failures of $*" "$run_failed" "$(answer_of failed "$answer")"
}

load()
{
	load_iommu && insmod /modules/rust_bench.ko && take rust_bench "$edu" && take rust_bench "$usb" &&
		expect policy strict "$(policy_of "$edu")" && run 0 pairs=10
}

# A driver of such a device may have what could not be given back under lazy. Its group stays as it was.
refused_and_nothing_changed()
{
	if set_policy "$usb" lazy 2>/tmp/refused; then
		return 1
	fi
	expect type DMA "$(type_of "$usb")" && expect policy strict "$(policy_of "$usb")" &&
		unbind "$usb" && set_policy "$usb" lazy && expect type DMA-FQ "$(type_of "$usb")" && bind rust_bench "$usb"
}

# The device reaches 256 MB: 32 MB of that, less than a page.
at_most_an_eighth()
{
	expect mask "done" "$(ask rust_bench "$edu" mask 28)" && unbind "$edu" && set_policy "$edu" lazy &&
		bind rust_bench "$edu" && max_age 0 && run 0 size=4k depth=64 pairs=1000 && expect kept 64 "$(kept_of "$edu")" &&
		max_age 0 && expect kept 0 "$(kept_of "$edu")" &&
		run 0 size=1M depth=64 pairs=1000 && expect kept 31 "$(kept_of "$edu")"
}

# waits: how often the unit was waited for
waits()
{
	sed -n 's/^waits: //p' $DRIVER_FILES/${UNIT_NAME}0/stats
}

# However many: 1016 that are kept, and of those that have lost their place what has not gone with others.
all_end_with_one_wait()
{
	max_age 0 && run 0 size=4k depth=1024 pairs=1024 && ended=$(kept_of "$edu") && [ "$ended" -gt 500 ] &&
		before=$(waits) && max_age 0 && expect kept 0 "$(kept_of "$edu")" &&
		ktap_print_msg "$ended mappings, $(($(waits) - before)) waits" && [ $(($(waits) - before)) -le 2 ]
}

# Of its 255 MB a run uses nearly all, and leaves them unmapped to the next one, which has use for none of these
# mappings, as its buffers have another size. What is in its way goes together: a map waits for little but itself.
none_fails_for_want_of_addresses()
{
	for policy in fq fq-single; do
		unbind "$edu" && set_policy "$edu" $policy && set_policy "$edu" lazy && bind rust_bench "$edu" && max_age 0 || return 1
		before=$(waits)
		maps=0
		for round in $(seq $ROUNDS); do
			for plan in "size=1M depth=240 pairs=240" "size=2M depth=120 pairs=120" \
				"size=1M depth=110 pairs=110 threads=2" "size=2M depth=55 pairs=55 threads=2"; do
				run 0 $plan && maps=$((maps + $(answer_of pairs "$answer"))) || return 1
			done
		done
		more=$(($(waits) - before - maps))
		ktap_print_msg "$policy: $maps maps, and $more waits more"
		[ $more -gt 0 ] && [ $more -le $((maps / 20)) ] || return 1
	done
}

# forgotten_since MARK: how many UNMAPs
forgotten_since()
{
	vm_host trace count "$1" | awk '{ n += $2 } END { print n + 0 }'
}

# Nothing is kept of a list; and the core's queue would not flush for a second after the first unmap.
the_age_is_for_lists_too()
{
	unbind "$edu" && set_policy "$edu" fq-single && set_policy "$edu" lazy && bind rust_bench "$edu" && max_age 50 &&
		sleep 1.2 && vm_host trace mark lists && run 0 kind=sg entries=8 pairs=20 && sleep 0.4 &&
		forgotten=$(forgotten_since lists) && ktap_print_msg "$forgotten UNMAPs" && expect kept 0 "$(kept_of "$edu")" &&
		[ "$forgotten" -gt 0 ]
}

# Addresses are free as soon as they are forgotten, and are some of the next ones to be used.
nothing_is_reached_after_its_age()
{
	insmod /modules/rust_testdev.ko && unbind "$dev" && set_policy "$dev" fq-single && set_policy "$dev" lazy &&
		echo $AGE_MS >"/sys/bus/pci/devices/$dev/rust_iommu/max_age_ms" && bind rust_testdev "$dev" &&
		races age "rust_testdev-$dev" $AGE_MS --pages $PAGES --interval $INTERVAL --reused 80 && rmmod rust_testdev
}

# What is kept after the change goes by the new age, though the timer ran for the old one.
a_lower_age_is_for_all()
{
	max_age 60000 && run 0 depth=32 pairs=100 && expect kept 32 "$(kept_of "$edu")" || return 1
	# For as long as it may: 20 seconds.
	run 0 depth=32 pairs=100000000 &
	running=$!
	sleep 2
	max_age 300 && kill -0 $running && wait $running && sleep 1 && expect "kept after a second" 0 "$(kept_of "$edu")"
}

no_memory_for_a_while()
{
	races inject count map.nomem && races inject fail map.tell 12 1 && run 0 pairs=1 &&
		expect "asked to forget" 1 "$(sed -n 's/^map.nomem count hits \([0-9]*\) .*/\1/p' /sys/kernel/debug/rust_iommu/inject)" &&
		races inject clear
}

# Under fq the caller is told. Under lazy what is kept goes first.
what_is_kept_goes_for_want_of_memory()
{
	max_age 0 || return 1
	for kind in single sg; do
		run 0 depth=8 pairs=100 && [ "$(kept_of "$edu")" -ge 8 ] && races inject fail map.announce 12 1 &&
			run 0 kind=$kind size=8k entries=4 pairs=1 && [ "$(kept_of "$edu")" -le 1 ] || return 1
	done
	unbind "$edu" && set_policy "$edu" fq && bind rust_bench "$edu" || return 1
	for kind in single sg; do
		races inject fail map.announce 12 1 && run 1 kind=$kind size=8k entries=4 pairs=1 || return 1
	done
	races inject clear
}

# hits POINT KIND: how often a rule was met
hits()
{
	races inject | sed -n "s/^$1 $2 hits \([0-9]*\) .*/\1/p"
}

met()
{
	[ "$(hits "$1" fail)" -gt 0 ]
}

# A map that fails is no error of the disk's: the block layer tries again. So the DMA API's trace is asked.
watch_failed_maps()
{
	{ [ -d $TRACING/events ] || mount -t tracefs tracefs $TRACING; } &&
		echo 'dma_addr == 0xffffffffffffffff' >$TRACING/events/dma/dma_map_phys/filter && echo >$TRACING/trace &&
		echo 1 >$TRACING/events/dma/dma_map_phys/enable
}

failed_maps()
{
	grep -c "dma_map_phys: $disk " $TRACING/trace
}

verify_until_enough()
{
	until [ -e /tmp/enough ]; do
		fio_verify nvme0n1 8 || return 1
	done
}

# What is kept does not get old here, so that there is much to map anew. MAPs are to be told once more; and where none
# could be, all that is kept goes first.
no_memory_during_io()
{
	set_policy "$disk" lazy && echo 40 >"/sys/bus/pci/devices/$disk/rust_iommu/max_age_ms" && modprobe nvme &&
		wait_for 30 test -b /dev/nvme0n1 && watch_failed_maps && races inject count map.nomem || return 1
	missed=0
	background verify_until_enough
	for round in $(seq $TIMES); do
		for point in map.tell map.announce; do
			races inject fail $point 12 1 && wait_for 30 met $point || missed=$((missed + 1))
		done
	done
	touch /tmp/enough
	finished || { sed 's/^/# /' /tmp/background && return 1; }
	ktap_print_msg "$(grep -c IOPS /tmp/background) jobs of writes and reads, $(hits map.nomem count) MAPs told once more"
	expect "injections that nothing met" 0 $missed && expect "told once more" $TIMES "$(hits map.nomem count)" &&
		expect "failed maps" 0 "$(failed_maps)" &&
		expect "errors of I/O" 0 "$(log_since_mark | grep -c "I/O error")" && races inject clear
}

# That the trace would have had it: under fq the disk is told.
a_failed_map_is_seen()
{
	unbind "$disk" && set_policy "$disk" fq && bind nvme "$disk" && wait_for 30 test -b /dev/nvme0n1 &&
		races inject fail map.announce 12 1 && fio_verify nvme0n1 1 && expect "failed maps" 1 "$(failed_maps)" &&
		races inject clear
}

nothing_is_left()
{
	unbind "$edu" && unbind "$usb" && unbind "$disk" && expect "left mapped" "" "$(log_since_mark | grep "driver .* left ")" &&
		rmmod rust_bench && echo 1 >/sys/module/$DRIVER/parameters/shutdown && rmmod $DRIVER && rmmod rust_iommu &&
		leak_scan
}

mark_log
ktap_test_result "Y5 load" load
ktap_test_result "Y5 refused, and nothing changed" refused_and_nothing_changed
ktap_test_result "F4 an eighth of the addresses at most" at_most_an_eighth
ktap_test_result "F4 all end with one wait" all_end_with_one_wait
ktap_test_result "A17 none fails for want of addresses" none_fails_for_want_of_addresses
ktap_test_result "A11 the maximum age is for lists too" the_age_is_for_lists_too
ktap_test_result "A11 nothing is reached after its age" nothing_is_reached_after_its_age
ktap_test_result "F4 a lower age is for all" a_lower_age_is_for_all
ktap_test_result "A18 no memory for a while" no_memory_for_a_while
ktap_test_result "A18 what is kept goes for want of memory" what_is_kept_goes_for_want_of_memory
ktap_test_result "A18 no memory $TIMES times during I/O: no error" no_memory_during_io
ktap_test_result "A18 a map that fails would be seen" a_failed_map_is_seen
ktap_test_result "Y1 nothing is left" nothing_is_left
ktap_finished
