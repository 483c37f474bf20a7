#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# A refused request is reported while the device is detached, its driver unbound, the device taken away, or the module
# shut down: held at each place where the two can meet, and then as it comes.
#
# variant strict: --policy strict --nvme 0 --testdev=2
# variant amd: --iommu amd --policy strict --nvme 0 --testdev=2
# variant virtio: --iommu virtio --policy strict --nvme 0 --testdev=2
# extra: virtio/debug amd
# modules: inject
# timeout: 200

. /selftests/lib.sh

IOVA=0x40003000
case $KERNEL in
debug) ROUNDS=2 ;;
*) ROUNDS=10 ;;
esac

# counter NAME
counter()
{
	sed -n "s/^udma.$1 //p" /sys/kernel/debug/rust_testowner/counters
}

recorded()
{
	cat "/sys/class/iommu/${UNIT_NAME}0/rust_iommu/faults"
}

dropped()
{
	sed -n 's/^dropped_reports: //p' "$DRIVER_FILES/${UNIT_NAME}0/stats"
}

load()
{
	no_more_waiting
	load_iommu && insmod /modules/rust_testowner.ko || return 1
	one=$(pci_devices 1b36:0005 | head -n 1)
	two=$(pci_devices 1b36:0005 | tail -n 1)
	[ "$one" != "$two" ] && take rust_udma "$one" && take rust_udma "$two"
}

# own [DEVICE]: claims, and attaches a new domain with a handler; sets $domain
own()
{
	says done rust_udma "${1:-$one}" claim 1 && domain=$(answer_of domain "$(ask rust_udma "${1:-$one}" domain-new "${2:-note}")") &&
		says done rust_udma "${1:-$one}" attach "$domain"
}

fault()
{
	says tx_fail rust_udma "${1:-$one}" dma write $IOVA 4
}

# held_in_handler: a handler has been called for a fault, and stays there.
held_in_handler()
{
	own && races inject gate udma.fault && fault && races inject wait udma.fault &&
		expect handled "$(($(counter faults) - 1))" "$(counter handled)"
}

# waits_for_handler COMMAND...: it comes to the end of the handler's domain, and does not end before the handler does.
waits_for_handler()
{
	waits_at fault.end "$@" && races inject open udma.fault && finished && expect handled "$(counter faults)" "$(counter handled)"
}

# waits_at POINT COMMAND...: it is still under way some time after the point.
waits_at()
{
	point=$1
	shift
	races inject gate "$point" && background "$@" && races inject wait "$point" && races inject open "$point" || return 1
	sleep 2
	running
	waits=$?
	expect waits 0 $waits
}

detach_does_not_wait()
{
	held_in_handler && says done rust_udma "$one" detach && expect handled "$(($(counter faults) - 1))" "$(counter handled)"
}

free_waits()
{
	waits_for_handler says done rust_udma "$one" domain-free "$domain" && says done rust_udma "$one" release
}

unbind_waits()
{
	held_in_handler && waits_for_handler unbind "$one" && take rust_udma "$one"
}

take_away()
{
	echo 1 >"/sys/bus/pci/devices/$1/remove"
}

bring_back()
{
	echo 1 >/sys/bus/pci/rescan && bind_again
}

bind_again()
{
	take rust_udma "$one" && [ -n "$(group_of "$one")" ]
}

unplug_waits()
{
	held_in_handler && waits_for_handler take_away "$one" && bring_back
}

# held_before [POINT]: the device of a fault is known, and nothing more; at "fault.domain" its domain, too.
held_before()
{
	held_at=${1:-fault}
	own && races inject gate "$held_at" "$one" && fault && races inject wait "$held_at" "$one" && calls=$(counter faults)
}

# next_is_of_two CALLS: the next call after so many is for a fault of the other device. Reports are made in their order.
next_is_of_two()
{
	next=$(($1 + 1))
	next_call()
	{
		[ "$(counter handled)" -ge $next ]
	}
	own "$two" && fault "$two" && wait_for 10 next_call && expect calls $next "$(counter faults)" &&
		expect "calls for the other" "count 1" "$(ask rust_udma "$two" domain-faults "$domain" | cut -d' ' -f1,2)" &&
		says done rust_udma "$two" release
}

not_called()
{
	races inject open "$held_at" "$one" && next_is_of_two "$calls"
}

late_for_free()
{
	held_before "$1" && says done rust_udma "$one" detach && says done rust_udma "$one" domain-free "$domain" && not_called &&
		says done rust_udma "$one" release
}

late_for_unplug()
{
	held_before "$1" && take_away "$one" && not_called && bring_back
}

# While a handler takes its time more come than may wait: each is handled, or counted as dropped.
none_is_lost_uncounted()
{
	held_in_handler || return 1
	calls=$(counter handled)
	before=$(recorded)
	dropped=$(dropped)
	# A unit that is late merges some. One device has half of the 64 places.
	for _ in $(seq 100); do
		for _ in 1 2 3 4 5 6 7 8 9 10; do
			echo "dma write $IOVA 4" >"/sys/kernel/debug/rust_udma-$one/cmd"
		done
		[ "$(dropped)" = "$dropped" ] || break
	done
	sleep 1
	came=$(($(recorded) - before))
	more=$(($(dropped) - dropped))
	# The one that is held, too.
	wanted=$((calls + came - more + 1))
	all_handled()
	{
		[ "$(counter handled)" -ge $wanted ]
	}
	ktap_print_msg "$came faults, $more dropped"
	expect waiting 32 $((came - more)) && races inject open udma.fault && wait_for 20 all_handled &&
		next_is_of_two $wanted && says done rust_udma "$one" release
}

# tell DEVICE COMMAND...: as "ask", where another process asks the same device, so that the answer may be to that.
tell()
{
	tell_file=/sys/kernel/debug/rust_udma-$1/cmd
	shift
	echo "$*" >"$tell_file"
}

faults_without_a_pause()
{
	while [ ! -e /tmp/stop ]; do
		echo "dma write $IOVA 4" >"/sys/kernel/debug/rust_udma-$one/cmd"
	done 2>/dev/null
}

# own_shared [note|map]: the domain is made through the other device, whose answers nobody else gets. When the handler is
# called the next step comes at once.
own_shared()
{
	calls=$(counter faults)
	called()
	{
		[ "$(counter faults)" -gt "$calls" ]
	}
	domain=$(answer_of domain "$(ask rust_udma "$two" domain-new "${1:-note}")") && tell "$one" claim 1 &&
		tell "$one" attach "$domain" && wait_for 20 called
}

free_shared()
{
	says done rust_udma "$two" domain-free "$domain"
}

round()
{
	own_shared map && tell "$one" detach && free_shared && tell "$one" release &&
		own_shared && tell "$one" release && free_shared &&
		own_shared && unbind "$one" && free_shared && bind_again &&
		own_shared && take_away "$one" && free_shared && bring_back
}

# What points are passed takes its time, so that all meet.
as_it_comes()
{
	rm -f /tmp/stop
	before=$(counter faults)
	races inject delay udma.fault 3000 && races inject delay fault 1000 || return 1
	faults_without_a_pause &
	faulting=$!
	rounds=0
	while [ $rounds -lt "$ROUNDS" ] && round; do
		rounds=$((rounds + 1))
	done
	touch /tmp/stop
	wait $faulting
	races inject clear
	ktap_print_msg "$(($(counter faults) - before)) calls, $(dropped) reports dropped"
	expect rounds "$ROUNDS" $rounds
}

shut_down()
{
	echo 1 >/sys/module/$DRIVER/parameters/shutdown
}

shutdown_waits()
{
	held_before && leave "$one" "$two" && waits_at fault.stop shut_down && races inject open fault "$one" && finished &&
		expect calls "$calls" "$(counter faults)" && expect handled "$(counter faults)" "$(counter handled)"
}

unload()
{
	rmmod rust_testowner && rmmod $DRIVER && rmmod rust_iommu && leak_scan
}

ktap_print_header
ktap_set_plan 13
ktap_test_result "load" load
ktap_test_result "a detach does not wait for a handler" detach_does_not_wait
ktap_test_result "the end of a domain waits for a handler" free_waits
ktap_test_result "an unbind waits for a handler" unbind_waits
ktap_test_result "a removal waits for a handler" unplug_waits
ktap_test_result "no handler is called for a domain that was freed meanwhile" late_for_free
ktap_test_result "no handler is called for a device that was taken away meanwhile" late_for_unplug
ktap_test_result "nor if the domain was found before it was freed" late_for_free fault.domain
ktap_test_result "nor if it was found before the device was taken away" late_for_unplug fault.domain
ktap_test_result "of more than may wait each is handled, or counted" none_is_lost_uncounted
ktap_test_result "$ROUNDS times: faults without a pause, while owner, driver and device come and go" as_it_comes
ktap_test_result "a shutdown waits for a report" shutdown_waits
ktap_test_result "unload" unload
ktap_finished
