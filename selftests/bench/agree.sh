#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Whether two runs of the benchmarks on the same modules agree within their stated intervals. On the host; what is
# measured depends on times, so that no test runs it.
#
#	selftests/bench/agree.sh [OPTION...]     options of tools/bench, such as --iommu vtd
set -eu
cd "$(dirname "$0")/../.."

results=build/bench
tools/toolbox run tools/build stock
mkdir -p $results
for run in first second; do
	rm -f $results/$run.json
	tools/bench --quick --out $results/$run.json "$@"
done
tools/bench-compare --same $results/first.json $results/second.json
