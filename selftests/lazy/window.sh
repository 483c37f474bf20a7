#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Devices whose streaming DMA goes to a window: what was unmapped is reached no longer than
# promised, and is flushed once for each time that the window was used up.
#
# variant window: --policy strict --nvme 1 --testdev --device edu --trace vtd_inv_desc_*
# variant window-caching-mode on stock: --policy strict --iommu-opt caching-mode=on --nvme 1 --testdev --device edu --trace vtd_inv_desc_*
# variant window-amd on stock: --iommu amd --policy strict --nvme 1 --testdev --device edu --trace amdvi_*_inval
# variant window-lazy on stock: --policy lazy --nvme 1 --testdev --device edu
# variant window-many on stock: --policy strict --nvme 1 --testdev --device edu --trace vtd_inv_desc_*
# skip virtio: there is no window where units keep no table; virtio and kept look at what is kept instead
# extra: window-lazy window/debug
# long: window-many
# timeout: 180

. /selftests/lib.sh

ktap_print_header
ktap_set_plan 11

# The timer's tenth of it is what the machine may be late for; more where all is slow.
case $KERNEL in
debug) MAX_AGE_MS=3000 ;;
*) MAX_AGE_MS=600 ;;
esac
# Pages of the window that load_iommu asks for.
WINDOW=4096

dev=$(pci_devices 1b36:0005)
edu=$(pci_devices 1234:11e8)

load()
{
	load_iommu max_age_ms=$MAX_AGE_MS && modprobe nvme && wait_for 30 test -b /dev/nvme0n1 &&
		insmod /modules/rust_testdev.ko && nvme=$(pci_of nvme0n1) &&
		for device in "$nvme" "$dev" "$edu"; do
			expect "window of $device" $WINDOW "$(window_of "$device" pages)" || return 1
		done
}

# Where new mappings are announced, those of the same memory are not new, and laps are rare.
are_kept()
{
	case $VARIANT in
	*caching-mode | *amd) return 0 ;;
	*) return 1 ;;
	esac
}

data_is_right()
{
	# 64 MB on each kernel, for the laps.
	size=64
	[ "$KERNEL" != debug ] || size=256
	fio_verify nvme0n1 $size && laps=$(window_of "$nvme" laps) && { are_kept || [ "$laps" -gt 3 ]; } &&
		expect mapped 0 "$(window_of "$nvme" mapped)"
}

# age: waits until nothing of before is left to be flushed
age()
{
	sleep $(((MAX_AGE_MS + 999) / 1000))
}

# told MARK: the commands since then, but for those that are waited for
told()
{
	vm_host trace since "$1" | sed '/^vtd_inv_desc_wait/d'
}

# Beside laps there is the timer, ten times in nine of its periods.
few_flushes()
{
	flushes=$(window_of "$nvme" flushes)
	laps=$(window_of "$nvme" laps)
	fio_read nvme0n1 6
	flushes=$(($(window_of "$nvme" flushes) - flushes))
	laps=$(($(window_of "$nvme" laps) - laps))
	reads=$(sed -n 's/.* \([0-9]*\) *KiB.*//; s/.*issued rwts: total=\([0-9]*\),.*/\1/p' /tmp/fio.read)
	ktap_print_msg "$reads reads, $laps laps, $flushes flushes"
	{ are_kept || [ "$laps" -ge $((reads / WINDOW / 2)) ]; } && [ "$flushes" -le $((laps + 6 * 1000 * 10 / 9 / MAX_AGE_MS + 2)) ]
}

# Three laps, or one. Where the hardware may remember that nothing was mapped it is told of new mappings too.
one_command_a_flush()
{
	case $VARIANT in
	window-lazy) return 0 ;;
	esac
	case $KERNEL in
	debug) wanted=1 ;;
	*) wanted=3 ;;
	esac
	reads=$((WINDOW * wanted))
	age
	flushes=$(window_of "$nvme" flushes)
	vm_host trace mark flushes
	fio_job laps --filename=/dev/nvme0n1 --rw=randread --bs=4k --iodepth=32 \
		--size=16m --io_size=$((reads * 4096)) && age && vm_host trace count flushes >/tmp/counts || return 1
	flushes=$(($(window_of "$nvme" flushes) - flushes))
	commands=$(awk "/^$INVALIDATION/"' { n += $2 } END { print n }' /tmp/counts)
	if are_kept; then
		ktap_print_msg "$reads reads, $flushes flushes, $commands commands"
		[ "$flushes" -ge 1 ] && [ "$commands" -ge $((flushes + 32)) ] &&
			[ "$commands" -le $((flushes + reads / 10)) ]
	else
		[ "$flushes" -ge $wanted ] && expect commands "$flushes" "$commands"
	fi && expect "other commands" 0 "$(grep -vc -e "^$INVALIDATION" -e '^vtd_inv_desc_wait' /tmp/counts)"
}

# commands MARK WANTED: how many there were; what they were is in /tmp/told
commands()
{
	told "$1" >/tmp/told
	expect commands "$2" "$(wc -l </tmp/told)" && return 0
	sed 's/^/# /' /tmp/told
	return 1
}

# covers MARK IOVA PAGES: the commands are for each of these pages once, and for nothing else, and one
# more command waits for all of them.
covers()
{
	vm_host trace since "$1" >/tmp/told
	# QEMU's trace does not have the pages that AMD-Vi is told of.
	case $VARIANT in
	*amd) [ -s /tmp/told ] && return ;;
	esac
	sed -n 's/^vtd_inv_desc_iotlb_pages .*addr \(0x[0-9a-f]*\) mask \(0x[0-9a-f]*\).*/\1 \2/p' /tmp/told |
		while read -r addr mask; do
			seq $((addr >> 12)) $(((addr >> 12) + (1 << mask) - 1))
		done | sort -n | xargs >/tmp/pages
	expect "pages told of" "$(seq $(($2 >> 12)) $((($2 >> 12) + $3 - 1)) | xargs)" "$(cat /tmp/pages)" &&
		expect "other commands" "1" "$(grep -vc '^vtd_inv_desc_iotlb_pages' /tmp/told)" && return 0
	sed 's/^/# /' /tmp/told
	return 1
}

# announced PAGES: a new mapping is told where the hardware may remember that there was none.
announced()
{
	vm_host trace mark mapped
	answer=$(oracle "$dev" map from "$1") && handle=$(answer_of handle "$answer") || return 1
	case $VARIANT in
	*caching-mode | *amd) covers mapped "$(answer_of iova "$answer")" "$1" ;;
	*) commands mapped 0 ;;
	esac
}

# Pages are given out from the window's start: the place of the first is that of the window.
told_once()
{
	[ "$VARIANT" != window-lazy ] || return 0
	# The disk's window has its last flush first.
	age
	announced 1 && handles=$handle && announced 1 && handles="$handles $handle" &&
		announced 4 && handles="$handles $handle" && age || return 1
	start=$(sed -n "/^group $(group_of "$dev"):/,/^group/s/.*window at \(0x[0-9a-f]*\),.*/\1/p" $GROUPS_FILE)
	vm_host trace mark unmapped
	for handle in $handles; do
		oracle "$dev" unmap "$handle" >/dev/null || return 1
	done
	commands unmapped 0 && age && commands unmapped 1 && covers unmapped "$start" $WINDOW || return 1
	for handle in $handles; do
		oracle "$dev" free "$handle" >/dev/null || return 1
	done
}

# reached IOVA: ok or tx_fail
reached()
{
	oracle "$dev" dma write "$1"
}

# In a debug kernel all takes longer.
nothing_is_reached_after_its_age()
{
	case $KERNEL-$VARIANT in
	debug*) races age "rust_testdev-$dev" $MAX_AGE_MS --pages 100 --interval 20000 ;;
	*-many) races age "rust_testdev-$dev" $MAX_AGE_MS --pages 10000 ;;
	*) races age "rust_testdev-$dev" $MAX_AGE_MS ;;
	esac
}

permissions_hold()
{
	answer=$(oracle "$dev" map to) && mark_log &&
		expect write tx_fail "$(reached "$(answer_of iova "$answer")")" &&
		oracle "$dev" free "$(answer_of handle "$answer")" >/dev/null
}

# moves_data BITS: the device moves data between mappings; sets $in_window, how many of the two are in it
moves_data()
{
	oracle "$edu" mask "$1" >/dev/null &&
		answer=$(oracle "$edu" map to) && from=$(answer_of iova "$answer") && a=$(answer_of handle "$answer") &&
		answer=$(oracle "$edu" map from) && to=$(answer_of iova "$answer") && b=$(answer_of handle "$answer") &&
		in_window=$(window_of "$edu" mapped) &&
		expect "above $1 bits" "0 0" "$((from >> $1)) $((to >> $1))" &&
		oracle "$edu" fill "$a" "0xa5b6c7$1" >/dev/null && oracle "$edu" fill "$b" 0 >/dev/null &&
		expect read over "$(oracle "$edu" dma read "$from")" &&
		expect write over "$(oracle "$edu" dma write "$to")" &&
		expect data match "$(oracle "$edu" check "$b" "0xa5b6c7$1")" &&
		oracle "$edu" free "$a" >/dev/null && oracle "$edu" free "$b" >/dev/null
}

# Its driver says so after the window was made. edu has 28 bits in truth.
narrow_device()
{
	moves_data 28 && expect "in the window" 2 "$in_window"
}

# The window is out of the device's reach: the core maps.
device_below_the_window()
{
	moves_data 20 && expect "in the window" 0 "$in_window"
}

# The driver goes, and with it the window; the next one has another.
comes_and_goes()
{
	races vmstat >/tmp/before &&
		for round in 1 2 3 4 5; do
			unbind "$nvme" && expect window "" "$(window_of "$nvme" pages)" && bind nvme "$nvme" &&
				wait_for 30 test -b /dev/nvme0n1 && fio_verify nvme0n1 2 || return 1
		done
}

nothing_is_left()
{
	rmmod rust_testdev && unbind "$nvme" && echo 1 >/sys/module/$DRIVER/parameters/shutdown &&
		rmmod $DRIVER && rmmod rust_iommu && leak_scan && bind nvme "$nvme" &&
		wait_for 30 test -b /dev/nvme0n1 && fio_verify nvme0n1 2
}

ktap_test_result "A8 load" load
ktap_test_result "A16 pages are not handed out before their flush: data is right" data_is_right
ktap_test_result "A8 one flush a lap, and those of the timer" few_flushes
ktap_test_result "A8 a flush is one command" one_command_a_flush
ktap_test_result "A8 the unit is told once: of a new mapping, if of that at all, and of many unmapped ones" told_once
ktap_test_result "A11 nothing is reached for longer than the maximum age" nothing_is_reached_after_its_age
ktap_test_result "A16 permissions" permissions_hold
ktap_test_result "Y3 a device with a narrow mask uses the window" narrow_device
ktap_test_result "Y3 one whose mask ends below it does not" device_below_the_window
ktap_test_result "Y1 a driver comes and goes" comes_and_goes
ktap_test_result "Y1 nothing is left" nothing_is_left
ktap_finished
