# SPDX-License-Identifier: GPL-2.0
#
# Helpers for scripts that run in the guest: source this file. KTAP output comes
# from the kernel's own kselftest helpers (ktap_set_plan, ktap_test_result, ...).

. /selftests/ktap_helpers.sh

# vm_host COMMAND...: have the host do something, for example
#	vm_host device_add nvme,id=hot0,bus=rp0,drive=disk2,serial=hot0
#	vm_host device_del hot0 && vm_host wait_deleted hot0
#	vm_host trace mark before; ...; vm_host trace since before
# Prints what the host has to say; "trace since" gives the events that QEMU traced
# (--trace) since the mark, 200 at most, as "EVENT ARGUMENTS"; "trace count" gives
# how many there were of each, as "EVENT NUMBER", or "EVENT VALUE NUMBER" with the name of
# an argument after the mark. Fails, with the host's reason as a diagnostic, if the host
# could not do it.
# One at a time: the second serial port carries one answer after the other.
vm_host()
{
	while ! mkdir /run/vm_host 2>/dev/null; do
		sleep 0.1
	done
	printf '\002@vm %s\n' "$*" >/dev/ttyS1
	while read -r vm_host_answer; do
		case $vm_host_answer in
		'| '*) echo "${vm_host_answer#| }" ;;
		*) break ;;
		esac
	done </dev/ttyS1
	rmdir /run/vm_host
	[ "$vm_host_answer" = ok ] && return 0
	ktap_print_msg "vm_host $*: $vm_host_answer"
	return 1
}

# background COMMAND...: in the background; its status comes from finished.
background()
{
	"$@" >/tmp/background 2>&1 &
	background=$!
}

running()
{
	[ -d /proc/$background ] && ! grep -q "^State:.Z" /proc/$background/status
}

finished()
{
	wait $background
}

# wait_for SECONDS COMMAND...: run COMMAND until it succeeds.
wait_for()
{
	wait_for_end=$(($(cut -d. -f1 /proc/uptime) + $1))
	shift
	until "$@"; do
		[ "$(cut -d. -f1 /proc/uptime)" -le $wait_for_end ] || return 1
		sleep 0.1
	done
}

# deadline SECONDS, is_over: whether so many seconds have passed since the deadline was set.
deadline()
{
	deadline=$(($(cut -d. -f1 /proc/uptime) + $1))
}

is_over()
{
	[ "$(cut -d. -f1 /proc/uptime)" -gt $deadline ]
}

# no_more_waiting: until ten seconds after the last new driver of the start (deferred_probe_timeout) the kernel keeps
# drivers from devices that are behind a unit without a driver, where a VIOT table says so.
no_more_waiting()
{
	[ $UNIT_NAME != viommu ] || sleep 11
}

# group_of PCI-ADDRESS, type_of PCI-ADDRESS: the IOMMU group and the type of its
# default domain; nothing where the device has no group.
group_of()
{
	basename "$(readlink "/sys/bus/pci/devices/$1/iommu_group")" 2>/dev/null
}

type_of()
{
	cat "/sys/bus/pci/devices/$1/iommu_group/type" 2>/dev/null
}

# pci_of BLOCK-DEVICE: the PCI address of a disk's controller.
pci_of()
{
	readlink -f "/sys/block/$1" | tr / '\n' | grep -E '^[0-9a-f]{4}:[0-9a-f]{2}:' | tail -n 1
}

# fio_verify BLOCK-DEVICE MEGABYTES: random writes, then every block is read back
# and its checksum compared. On the debug kernel a quarter of that, as each takes ten times as long.
fio_verify()
{
	fio_size=$(($2 * 1024))
	[ "${KERNEL:-}" != debug ] || fio_size=$((fio_size / 4))
	fio_job verify --filename="/dev/$1" --rw=randwrite --bs=4k --iodepth=32 \
		--size=${fio_size}k --verify=crc32c --do_verify=1 --verify_fatal=1
}

# fio_read BLOCK-DEVICE [SECONDS]: random reads for a while.
fio_read()
{
	fio_job read --filename="/dev/$1" --rw=randread --bs=4k --iodepth=32 \
		--time_based --runtime="${2:-2}"
}

fio_job()
{
	fio_name=$1
	shift
	if fio --name="$fio_name" --direct=1 --ioengine=libaio --thread --group_reporting \
		"$@" >"/tmp/fio.$fio_name" 2>&1; then
		grep -E 'IOPS=' "/tmp/fio.$fio_name" | sed 's/^ */# /'
	else
		sed 's/^/# /' "/tmp/fio.$fio_name"
		return 1
	fi
}

# leak_scan: on a kernel with kmemleak, look for leaked memory now; a finding is
# a report in the kernel's log, which fails the run. Memory younger than five
# seconds does not count, and one scan may miss what the next one sees.
leak_scan()
{
	[ -e /sys/kernel/debug/kmemleak ] || return 0
	sleep 6
	echo scan >/sys/kernel/debug/kmemleak
	echo scan >/sys/kernel/debug/kmemleak
	sed 's/^/# /' /sys/kernel/debug/kmemleak
}

# --- The driver under test and what tests look at ---

# Our driver for the machine's IOMMU, what it calls a unit, and its folder in debugfs; and what QEMU's
# trace has where the unit is told to invalidate translations.
DRIVER=rust_vtd
UNIT_NAME=vtd
INVALIDATION=vtd_inv_desc_iotlb
if [ -e /sys/firmware/acpi/tables/IVRS ]; then
	DRIVER=rust_amdvi
	UNIT_NAME=amdvi
	INVALIDATION=amdvi_pages_inval
elif [ -e /sys/firmware/acpi/tables/VIOT ]; then
	DRIVER=rust_virtio_iommu
	UNIT_NAME=viommu
	INVALIDATION=virtio_iommu_unmap
fi
DRIVER_FILES=/sys/kernel/debug/$DRIVER

# load_iommu [PARAMETER=VALUE...]: load our driver. In variants called in-tree...
# the kernel's own is active already: they prove that a test tests the right thing.
# In variants called window... all devices have the policy lazy, with windows of 16 MB.
load_iommu()
{
	case $VARIANT in
	in-tree*) return 0 ;;
	window*) set -- policy=lazy lazy_window_mb=16 "$@" ;;
	esac
	load_framework=
	load_driver=
	for load_parameter; do
		case $load_parameter in
		policy=* | lazy_window_mb=* | max_age_ms=*) load_framework="$load_framework $load_parameter" ;;
		*) load_driver="$load_driver $load_parameter" ;;
		esac
	done
	insmod /modules/rust_iommu.ko $load_framework && insmod /modules/$DRIVER.ko $load_driver
}

# policy_of PCI-ADDRESS
policy_of()
{
	cat "/sys/bus/pci/devices/$1/rust_iommu/policy"
}

# set_policy PCI-ADDRESS POLICY: and see that it is shown
set_policy()
{
	echo "$2" >"/sys/bus/pci/devices/$1/rust_iommu/policy" && expect "policy of $1" "$2" "$(policy_of "$1")"
}

# window_of PCI-ADDRESS WORD: the number before WORD in what is said of the lazy window of its group;
# nothing where there is none.
GROUPS_FILE=$DRIVER_FILES/groups
window_of()
{
	sed -n "/^group $(group_of "$1"):/,/^group/s/.* \([0-9]*\) $2.*/\1/p" $GROUPS_FILE 2>/dev/null
}

# kept_of PCI-ADDRESS: how many mappings are kept for the devices of its group; nothing where none can be.
kept_of()
{
	sed -n "/^group $(group_of "$1"):/,/^group/s/^ *\([0-9]*\) mappings kept.*/\1/p" $GROUPS_FILE
}

# busy_ns: time in ns that tasks ran, of all CPUs since the start: with --icount the number of
# instructions, but for interrupts of an idle CPU. (Idle time is wrong by seconds then.)
busy_ns()
{
	awk '/^cpu/ { sum += $8 } END { printf "%.0f\n", sum }' /proc/schedstat
}

# mark_log: what log_since_mark prints starts here.
mark_log()
{
	echo "mark $((log_mark += 1))" >/dev/kmsg
}

log_since_mark()
{
	dmesg | sed -E 's/^\[[^]]*\] (\[[^]]*\] )?//' |
		awk -v mark="mark ${log_mark:-0}" 'found; $0 == mark { found = 1 }
			END { if (!found && mark != "mark 0") print "the log has lost its " mark }'
}

# faults: the DMA faults reported since mark_log, one "DEVICE read|write ADDRESS"
# a line, whichever driver reported them.
faults()
{
	log_since_mark | sed -nE -e '/^the log has lost/p' \
		-e 's/.*DMA fault: ([0-9a-f:.]+): (read|write|access) at (0x[0-9a-f]+) .*/\1 \2 \3/p' \
		-e 's/.*\[DMA Read.*device \[([0-9a-f:.]+)\] fault addr (0x[0-9a-f]+).*/\1 read \2/p' \
		-e 's/.*\[DMA Write.*device \[([0-9a-f:.]+)\] fault addr (0x[0-9a-f]+).*/\1 write \2/p'
}

# reported PCI-ADDRESS read|write IOVA: the same as "faults" has it. QEMU's AMD-Vi records neither the
# address nor what was wanted, and of the device only its number on its bus; its virtio-iommu says what
# was wanted only where something else is allowed.
reported()
{
	case $UNIT_NAME in
	amdvi) echo "0000:00:${1##*:} access 0x0" ;;
	viommu) echo "$1 ${4:-access} $3" ;;
	*) echo "$1 $2 $3" ;;
	esac
}

# expect WHAT WANTED GOT: succeeds where they are equal, else says what differs.
expect()
{
	[ "$2" = "$3" ] && return 0
	ktap_print_msg "$1: wanted '$2', got '$3'"
	return 1
}

# pci_devices VENDOR:DEVICE: PCI addresses of such devices, in order.
pci_devices()
{
	lspci -Dnd "$1" | cut -d' ' -f1
}

# bind DRIVER PCI-ADDRESS, unbind PCI-ADDRESS
bind()
{
	echo "$2" >"/sys/bus/pci/drivers/$1/bind"
}

unbind()
{
	echo "$1" >"/sys/bus/pci/devices/$1/driver/unbind"
}

# oracle PCI-ADDRESS COMMAND...: run a command of rust_testdev (see command.rs in
# selftests/modules/testdev) on the device and print the answer.
oracle()
{
	oracle_file=/sys/kernel/debug/rust_testdev-$1/cmd
	shift
	echo "$*" 2>/dev/null >"$oracle_file"
	oracle_status=$?
	cat "$oracle_file"
	return $oracle_status
}

# answer_of WORD TEXT: what follows WORD in an answer such as "handle 1 iova 0x1000".
answer_of()
{
	echo " $2 " | sed -n "s/.* $1 \([^ ]*\) .*/\1/p"
}

# --- The drivers of rust_testowner, rust_kdma and rust_udma ---

# take DRIVER PCI-ADDRESS: binds by override; prints what the kernel says of it.
take()
{
	echo "$1" >"/sys/bus/pci/devices/$2/driver_override" && ( bind "$1" "$2" ) 2>&1
}

# leave PCI-ADDRESS...: unbinds those that are bound.
leave()
{
	for leave_device; do
		[ ! -e "/sys/bus/pci/devices/$leave_device/driver" ] || unbind "$leave_device" || return 1
	done
}

# ask DRIVER PCI-ADDRESS COMMAND...: prints the answer.
ask()
{
	ask_file=/sys/kernel/debug/$1-$2/cmd
	shift 2
	echo "$*" 2>/dev/null >"$ask_file"
	ask_status=$?
	cat "$ask_file"
	return $ask_status
}

# says WANTED DRIVER PCI-ADDRESS COMMAND...: what the answer has to be.
says()
{
	says_wanted=$1
	shift
	expect "$*" "$says_wanted" "$(ask "$@")"
}

# set_type PCI-ADDRESS TYPE: of its group; prints the reason where it fails.
set_type()
{
	( echo "$2" >"/sys/bus/pci/devices/$1/iommu_group/type" ) 2>&1
}
