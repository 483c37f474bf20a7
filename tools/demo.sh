# SPDX-License-Identifier: GPL-2.0
#
# What `make run` does in the guest: load the driver, then NVMe, run fio, and say
# what happened. Exit status 0 only if all of it worked.

. /selftests/lib.sh

failed=0

# step TEXT COMMAND...: run COMMAND, and end with its output if it fails.
step()
{
	step_text=$1
	shift
	echo "== $step_text"
	if ! "$@" >/tmp/step 2>&1; then
		sed 's/^/   /' /tmp/step
		echo "FAILED: $step_text"
		exit 1
	fi
}

load()
{
	insmod /modules/rust_iommu.ko && insmod /modules/$DRIVER.ko "$@"
}

disks()
{
	modprobe nvme && wait_for 30 test -b /dev/nvme0n1 && wait_for 30 test -b /dev/nvme1n1
}

# fio's terse output: field 8 is the read IOPS.
random_read()
{
	fio --minimal --name=read --filename=/dev/nvme0n1 --direct=1 --ioengine=libaio \
		--thread --group_reporting --rw=randread --bs=4k --iodepth=32 --numjobs=2 \
		--time_based --runtime=5 --ramp_time=1 >/tmp/read.terse || return 1
	cut -d';' -f8 /tmp/read.terse >/tmp/read.iops
}

verify()
{
	fio --name=verify --filename=/dev/nvme1n1 --direct=1 --ioengine=libaio --thread \
		--rw=randwrite --bs=64k --iodepth=16 --size=256m --verify=crc32c \
		--do_verify=1 --verify_fatal=1
}

# stat NAME: sum of a counter over all units.
stat()
{
	cat /sys/class/iommu/$UNIT_NAME*/rust_iommu/"$1" | awk '{ s += $1 } END { print s + 0 }'
}

step "loading rust_iommu and $DRIVER" load "$@"
step "loading nvme" disks
before=$(stat invalidations)
step "fio: 4k random read, depth 32, 2 jobs, 5 s" random_read
after=$(stat invalidations)
step "fio: 256 MB random write, read back with crc32c" verify
verified="256 MB crc32c, no mismatch"
faults=$(stat faults)

echo
echo "kernel          $(uname -r), unmodified"
for unit in /sys/class/iommu/$UNIT_NAME*; do
	name=${unit##*/}
	echo "IOMMU           $name: $(dmesg | sed -n "s/.*$DRIVER: $name: //p" | head -n 1)"
done
for disk in nvme0n1 nvme1n1; do
	pci=$(pci_of $disk)
	group=$(group_of "$pci")
	type=$(type_of "$pci")
	echo "$disk         $pci, group ${group:-none}, domain type ${type:-none}"
	[ -n "$group" ] || failed=1
done
echo "random read     $(cat /tmp/read.iops) IOPS"
echo "verification    $verified"
echo "invalidations   $(stat invalidations), of these $((after - before)) while reading"
echo "faults          $faults"
[ "$faults" = 0 ] || failed=1
[ $failed = 0 ] && echo "result          all of it worked" || echo "result          FAILED"
exit $failed
