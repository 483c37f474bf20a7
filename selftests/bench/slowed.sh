#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Whether the benchmarks notice what they are for: our modules as they are, and with one invalidation more for
# each unmap under strict, are measured, and bench-compare has to say that the latter is worse, in counts and in time.
# On the host; what is measured depends on times, so that no test runs it.
#
#	selftests/bench/slowed.sh [OPTION...]
#
# Options are those of tools/bench; without any it is VT-d's pair of 4 KB under strict, ten minutes in all.
#
# The modules are built from a copy of the tree in build/slowed.
set -eu
cd "$(dirname "$0")/../.."

[ $# -gt 0 ] || set -- --iommu vtd --what "pair 4k" --policies strict --minutes 3
copy=build/slowed
results=build/bench
fail()
{
	echo "slowed: $*" >&2
	exit 1
}

rm -rf $copy
mkdir -p $copy
git ls-files -z | tar --create --null --files-from=- | tar --extract --directory=$copy
# The invalidation of an unmap is made twice.
file=$copy/rust/domain_ops.rs
sed -i 's/^    match domain\.flush(&what) {$/    let _ = domain.flush(\&what);\n&/' $file
[ "$(grep -c 'domain\.flush(&what)' $file)" = 2 ] || fail "iotlb_sync() is not as this script knows it ($file)"

tools/toolbox run tools/build stock
tools/toolbox run $copy/tools/build stock
mkdir -p $results
rm -f $results/as-is.json $results/slowed.json
tools/bench --out $results/as-is.json "$@"
tools/bench --out $results/slowed.json --modules $copy/build/stock "$@"

status=0
tools/bench-compare $results/as-is.json $results/slowed.json >$results/slowed.txt || status=$?
cat $results/slowed.txt
[ $status = 1 ] || fail "bench-compare ended with status $status, not with 1"
grep -q '^worse .* pair 4k insns strict ' $results/slowed.txt || fail "it did not see the instructions"
grep -q '^worse .* pair 4k inv/1000 strict ' $results/slowed.txt || fail "it did not see the invalidations"
case " $* " in
*" --only counts "*) ;;
*) grep -q '^worse .* pair 4k ns strict ' $results/slowed.txt || fail "it did not see the time" ;;
esac
echo "slowed: noticed"
