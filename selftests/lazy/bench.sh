#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# rust_bench, which measures what mapping costs: that it does what it is asked for, on any IOMMU
# driver, refuses what makes no sense, and can be stopped.
#
# variant none on stock: --iommu none --nvme 0 --device edu
# variant in-tree: --in-tree --policy lazy --nvme 0 --device edu
# variant flush-queue on stock: --policy lazy --nvme 0 --device edu
# variant window: --policy strict --nvme 0 --device edu
# variant amd on stock: --iommu amd --policy lazy --nvme 0 --device edu
# variant virtio on stock: --iommu virtio --policy lazy --nvme 0 --device edu
# extra: none in-tree amd window/debug

. /selftests/lib.sh

ktap_print_header
ktap_set_plan 5

edu=$(pci_devices 1234:11e8)

load()
{
	case $VARIANT in
	none | in-tree) insmod /modules/rust_iommu.ko ;;
	*) load_iommu ;;
	esac && insmod /modules/rust_bench.ko && take rust_bench "$edu"
}

# all PAIRS PARAMETER...: so many pairs, and none fails
all()
{
	pairs=$1
	shift
	answer=$(ask rust_bench "$edu" run "$@") || { ktap_print_msg "$*: $answer" && return 1; }
	expect "$* pairs" "$pairs" "$(answer_of pairs "$answer")" &&
		expect "$* failed" 0 "$(answer_of failed "$answer")"
}

runs()
{
	all 1000 pairs=1000 && all 2000 pairs=1000 threads=2 depth=32 size=64k && all 100 pairs=100 size=1M second=4k depth=8 &&
		all 500 pairs=500 kind=sg && all 600 pairs=300 kind=scattered entries=7 size=16k threads=2 depth=3
}

narrow()
{
	says "done" rust_bench "$edu" mask 28 && all 100 pairs=100 size=128k &&
		expect "bits above" 0 $(($(answer_of high "$answer") >> 28)) && says "done" rust_bench "$edu" mask 64 && all 10 pairs=10
}

# refused COMMAND: with EINVAL, and a line that says why
refused()
{
	mark_log
	says "error EINVAL" rust_bench "$edu" "$1" && expect "lines of '$1'" 1 "$(log_since_mark | grep -c rust_bench:)"
}

refusals()
{
	for command in "walk" "mask 27" "mask 65" "run size=5000" "run size=8M" "run size=2k" "run kind=many" "run entries=0" \
		"run threads=3" "run pairs=0" "run pairs=-1" "run depth=2000" "run fast" "run colour=red" "run size=4M depth=256" \
		"run kind=sg size=128k" "run kind=scattered size=64k entries=64" "run kind=sg second=8k"; do
		refused "$command" || return 1
	done
}

stops()
{
	timeout -s INT 2 sh -c "echo 'run pairs=100000000 threads=2' >/sys/kernel/debug/rust_bench-$edu/cmd"
	expect answer "error EINTR" "$(cat "/sys/kernel/debug/rust_bench-$edu/cmd")" && all 100 pairs=100 &&
		unbind "$edu" && rmmod rust_bench && leak_scan
}

ktap_test_result "load" load
ktap_test_result "runs" runs
if [ "$VARIANT" = none ]; then
	ktap_test_skip "a narrow mask: memory is where it is"
else
	ktap_test_result "a narrow mask" narrow
fi
ktap_test_result "refusals" refusals
ktap_test_result "a signal ends it" stops
ktap_finished
