#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# The instruments that other tests rely on: injection points, the leak oracle and
# QEMU's trace.
#
# variant strict: --policy strict --nvme 0 --testdev --trace vtd_inv_desc_*
# variant amd on stock: --iommu amd --policy strict --nvme 0 --testdev --trace amdvi_pages_inval,amdvi_completion_wait
# variant virtio on stock: --iommu virtio --policy strict --nvme 0 --testdev --trace virtio_iommu_unmap
# extra: strict/debug amd
# modules: inject
# timeout: 90

. /selftests/lib.sh

ktap_print_header
ktap_set_plan 13

dev=$(pci_devices 1b36:0005)

# refused TEXT COMMAND...: the command fails, for the reason that its output names.
refused()
{
	refused_for=$1
	shift
	if "$@" >/tmp/refused 2>&1; then
		ktap_print_msg "$*: succeeded"
		return 1
	fi
	grep -q "$refused_for" /tmp/refused && return 0
	sed 's/^/# /' /tmp/refused
	return 1
}

# hits POINT KIND: of the rule
hits()
{
	races inject | sed -n "s/^$1 $2 hits \([0-9]*\) .*/\1/p"
}

load()
{
	load_iommu && expect type DMA "$(type_of "$dev")" && expect rules "" "$(races inject)"
}

bad_commands_are_refused()
{
	for command in gate "gate a b c" "fail a" "fail a 0" "delay a" "open" nonsense; do
		refused "Invalid argument" races inject $command || return 1
	done
	refused "No such file" races inject open nothing &&
		refused "No such file" races inject wait nothing &&
		expect rules "" "$(races inject)"
}

# The group's lock is held at the gate, so that nothing else can ask for the type.
gate_holds_an_attach()
{
	races inject gate attach.pre_hw "$dev" && refused "timed out" races inject wait attach.pre_hw 1 || return 1
	races device "$dev" type identity &
	races inject wait attach.pre_hw 20 &&
		expect rule "attach.pre_hw gate hits 1 waiting 1 skip 0 device $dev" "$(races inject)" &&
		refused "busy" races inject gate attach.pre_hw "$dev" && kill -0 $! &&
		races inject open attach.pre_hw && wait $! &&
		expect type identity "$(type_of "$dev")" && expect rules "" "$(races inject)"
}

other_devices_pass_the_gate()
{
	races inject gate attach.pre_hw 0000:ff:1f.7 && races device "$dev" type DMA &&
		expect rule "attach.pre_hw gate hits 0 waiting 0 skip 0 device 0000:ff:1f.7" "$(races inject)" &&
		races device "$dev" type identity && races inject clear && expect rules "" "$(races inject)"
}

# can_map: what the device writes arrives.
can_map()
{
	can_map=$(oracle "$dev" map from) && handle=$(answer_of handle "$can_map") &&
		expect write ok "$(oracle "$dev" dma write "$(answer_of iova "$can_map")")" &&
		expect page match "$(oracle "$dev" check "$handle" 0x12345678)" &&
		oracle "$dev" free "$handle" >/dev/null
}

attach_fails_and_the_device_works()
{
	races inject fail attach.prepare 12 "$dev" &&
		refused "Cannot allocate memory" races device "$dev" type DMA &&
		expect rule "attach.prepare fail hits 1 waiting 0 errno 12 at 1 fired 1 device $dev" "$(races inject)" &&
		expect type identity "$(type_of "$dev")" &&
		races device "$dev" type DMA && races inject clear &&
		insmod /modules/rust_testdev.ko && can_map
}

map_fails_and_the_next_works()
{
	races inject fail map 12 2 && can_map && refused "" oracle "$dev" map from &&
		expect "hits" 2 "$(hits map fail)" && can_map && races inject clear
}

# With AMD-Vi's NpCache a map is a flush, too.
arrivals_are_counted()
{
	case $VARIANT in
	amd) flushes=4 ;;
	*) flushes=2 ;;
	esac
	races inject count map && races inject count unmap && races inject count flush &&
		can_map && can_map && expect map 2 "$(hits map count)" &&
		expect unmap 2 "$(hits unmap count)" && expect flush $flushes "$(hits flush count)" &&
		races inject clear
}

arrivals_are_delayed()
{
	races inject delay unmap 500000 || return 1
	started=$(cut -d' ' -f1 /proc/uptime | tr -d .)
	can_map || return 1
	took=$(($(cut -d' ' -f1 /proc/uptime | tr -d .) - started))
	races inject clear
	[ $took -ge 50 ] && return 0
	ktap_print_msg "0.$took s"
	return 1
}

a_gate_opens_in_the_end()
{
	mark_log
	races inject gate flush && can_map && log_since_mark | grep -q 'gate flush timed out' &&
		expect rules "" "$(races inject)"
}

# plug_again: as hotplug would. Tables grow when something is mapped for the first time.
plug_again()
{
	races device "$dev" remove && races device "$dev" rescan && wait_for 10 test -e "/sys/kernel/debug/rust_testdev-$dev"
}

leaks_are_seen()
{
	plug_again && can_map && races vmstat >/tmp/before && can_map && races vmstat --compare /tmp/before &&
		races device "$dev" remove && refused "iommu_groups: was" races vmstat --compare /tmp/before --seconds 0 &&
		races device "$dev" rescan && wait_for 10 test -e "/sys/kernel/debug/rust_testdev-$dev" &&
		can_map && races vmstat --compare /tmp/before
}

# The page of the mapping, which QEMU's trace does not have for AMD-Vi, and then a command whose completion is waited for.
trace_has_the_invalidation()
{
	map=$(oracle "$dev" map from) && vm_host trace mark mapped &&
		expect before "" "$(vm_host trace since mapped)" &&
		oracle "$dev" unmap "$(answer_of handle "$map")" >/dev/null &&
		vm_host trace since mapped >/tmp/trace || return 1
	iova=$(answer_of iova "$map")
	case $VARIANT in
	virtio) events=virtio_iommu_unmap page="virt_start=$iova virt_end=$(printf '0x%x' $((iova + 4095)))" ;;
	amd) events="amdvi_pages_inval amdvi_completion_wait" page=^amdvi_pages_inval ;;
	*) events="vtd_inv_desc_iotlb_pages vtd_inv_desc_wait_sw" page="addr $iova mask 0x0" ;;
	esac
	expect events "$events" "$(cut -d' ' -f1 /tmp/trace | xargs)" &&
		expect page 1 "$(grep -c "$page" /tmp/trace)" && return 0
	sed 's/^/# /' /tmp/trace
	return 1
}

shut_down()
{
	echo 1 >/sys/module/$DRIVER/parameters/shutdown && rmmod $DRIVER
}

unload_frees_who_waits()
{
	races inject gate nowhere && rmmod rust_testdev && shut_down || return 1
	races inject wait nowhere 60 >/tmp/waiter &
	sleep 1
	rmmod rust_iommu || return 1
	! wait $! && grep -q "No such file" /tmp/waiter && [ ! -e /sys/kernel/debug/rust_iommu ]
}

rules_do_not_survive()
{
	load_iommu && expect rules "" "$(races inject)" && shut_down && rmmod rust_iommu && leak_scan
}

ktap_test_result "load" load
ktap_test_result "H1: bad commands are refused" bad_commands_are_refused
ktap_test_result "H1: a gate holds an attach until it is opened" gate_holds_an_attach
ktap_test_result "H1: a gate for one device lets others pass" other_devices_pass_the_gate
ktap_test_result "H1: an attach fails, and the device works" attach_fails_and_the_device_works
ktap_test_result "H1: a map fails, and the next one works" map_fails_and_the_next_works
ktap_test_result "H1: arrivals are counted" arrivals_are_counted
ktap_test_result "H1: arrivals are delayed" arrivals_are_delayed
ktap_test_result "H1: a gate opens in the end" a_gate_opens_in_the_end
ktap_test_result "H14: the leak oracle sees what differs" leaks_are_seen
ktap_test_result "H6: the trace has the invalidation of an unmap" trace_has_the_invalidation
ktap_test_result "H1: unloading frees who waits" unload_frees_who_waits
ktap_test_result "H1: rules do not survive" rules_do_not_survive
ktap_finished
