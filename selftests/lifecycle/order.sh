#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# What the IOMMU is told when a device leaves a domain, and in which order: first that
# its entry is another one, and only then to forget the tag that the entry had. QEMU's
# trace is the witness. One device is alone, two share a group.
#
# variant lazy: --policy lazy --nvme 0 --trace vtd_inv_desc_* --device ioh3420,id=b0,chassis=1,slot=1,addr=10.0,multifunction=on --device ioh3420,id=b1,chassis=2,slot=2,addr=10.1 --device iommu-testdev,bus=b0 --device iommu-testdev,bus=b1 --device iommu-testdev
# variant amd on stock: --iommu amd --policy lazy --nvme 0 --trace amdvi_*_inval,amdvi_completion_wait --device ioh3420,id=b0,chassis=1,slot=1,addr=10.0,multifunction=on --device ioh3420,id=b1,chassis=2,slot=2,addr=10.1 --device iommu-testdev,bus=b0 --device iommu-testdev,bus=b1 --device iommu-testdev
# skip virtio: a unit is told of a move by one ATTACH, and forgets what it knew of the endpoint with it
# modules: inject
# timeout: 90

. /selftests/lib.sh

IOVA=0x40000000

load()
{
	load_iommu && insmod /modules/rust_testowner.ko || return 1
	for bdf in $(pci_devices 1b36:0005); do
		take udma "$bdf" || return 1
		case $bdf in
		0000:00:*) alone=$bdf ;;
		*) left=$other other=$bdf ;;
		esac
	done
	expect group "$(group_of "$other")" "$(group_of "$left")" && [ "$(group_of "$alone")" != "$(group_of "$left")" ]
}

take()
{
	races device "$2" override "rust_$1" && bind "rust_$1" "$2"
}

run()
{
	run_file=/sys/kernel/debug/rust_$1-$2/cmd
	shift 2
	echo "$*" >"$run_file" && cat "$run_file"
}

# udma DEVICE COMMAND...
udma()
{
	run udma "$@" >/tmp/answer
}

# told COMMAND...: runs it, and then $told is what the IOMMU was told: "context SID",
# "iotlb TAG" and "wait", with numbers in hexadecimal. QEMU has two events for each
# invalidation of a context.
told()
{
	vm_host trace mark told && "$@" && vm_host trace since told >/tmp/trace || return 1
	told=$(sed -E -e '/^vtd_inv_desc_cc_device /d' \
		-e 's/^vtd_inv_desc_cc_devices .* sid 0x([0-9a-f]*) fmask 0x0$/context \1/' \
		-e 's/^vtd_inv_desc_iotlb_[a-z]+ .* domain 0x([0-9a-f]*)( .*)?$/iotlb \1/' \
		-e 's/^vtd_inv_desc_wait_sw .*/wait/' \
		-e 's/^amdvi_devtab_inval .* devid: ([0-9a-f:.]*) .*/context \1/' \
		-e 's/^amdvi_pages_inval .* domain 0x([0-9a-f]*) .*/iotlb \1/' \
		-e 's/^amdvi_completion_wait .*/wait/' /tmp/trace | xargs)
}

# sid PCI-ADDRESS: as in the trace
sid()
{
	sid=${1#*:}
	[ "$VARIANT" != amd ] || { echo "$sid" && return; }
	printf '%x\n' $((0x${sid%%:*} << 8 | 0x$(echo "${sid#*:}" | cut -d. -f1) << 3 | ${sid#*.}))
}

# joined DEVICE TAG: what is told when a device comes to a domain, which had none. AMD-Vi remembers entries
# that block too; and QEMU's, with NpCache, wants to be told of tables.
joined()
{
	[ "$VARIANT" != amd ] || echo "context $(sid "$1") iotlb $2 wait"
}

# moved DEVICE TAG COMMAND...: it leaves the domain with the tag, or with any if TAG is
# "any", which is then in $tag. Each step is waited for. Then it comes to the domain with the tag $to, if
# that is not empty.
moved()
{
	moved=$1
	tag=$2
	shift 2
	told "$@" || return 1
	[ "$tag" != any ] || tag=$(echo "$told" | sed -n 's/.* iotlb \([0-9a-f]*\) .*/\1/p')
	expect "$*" "$(echo "context $(sid "$moved") wait iotlb $tag wait" ${to:+$(joined "$moved" "$to")})" "$told"
}

own_domain()
{
	udma "$1" page && page=$(answer_of handle "$(cat /tmp/answer)") &&
		udma "$1" domain-new && domain=$(answer_of domain "$(cat /tmp/answer)") &&
		udma "$1" domain-map "$domain" $IOVA "$page" rw
}

reaches()
{
	expect write "$2" "$(run udma "$1" dma write $IOVA 4)"
}

# The tag of the domain is what its own unmap names.
to_blocked_and_back()
{
	moved "$alone" any udma "$alone" claim 0 && default=$tag && own_domain "$alone" || return 1
	for _ in 1 2 3; do
		told udma "$alone" attach "$domain" && attach=$told && reaches "$alone" ok &&
			told udma "$alone" domain-unmap "$domain" $IOVA && mine=$(echo "$told" | cut -d' ' -f2) &&
			expect unmap "iotlb $mine wait" "$told" && expect attach "$(joined "$alone" "$mine")" "$attach" &&
			udma "$alone" domain-map "$domain" $IOVA "$page" rw && reaches "$alone" ok &&
			moved "$alone" "$mine" udma "$alone" detach && reaches "$alone" tx_fail || return 1
	done
	udma "$alone" attach "$domain" && to=$default && moved "$alone" "$mine" udma "$alone" release
	released=$?
	to=
	[ $released = 0 ] && reaches "$alone" tx_fail
}

release()
{
	unbind "$left" && moved "$left" any races device "$left" remove && [ ! -e "/sys/bus/pci/devices/$left" ]
}

cycles()
{
	for _ in 1 2 3 4; do
		udma "$other" claim 0 && udma "$other" attach "$domain" && udma "$other" release || return 1
	done
}

contexts()
{
	echo "$told" | grep -o "context $(sid "$1")\>" | wc -l
}

# Its DMA is tried past the kernel.
nothing_for_the_released()
{
	# Four times out of a domain and out of the other; where entries that block are remembered, in too.
	case $VARIANT in
	amd) contexts=16 ;;
	*) contexts=8 ;;
	esac
	own_domain "$other" && told cycles &&
		expect "contexts of $other" $contexts "$(contexts "$other")" && expect "contexts of $left" 0 "$(contexts "$left")" &&
		udma "$other" claim 0 && udma "$other" attach "$domain" && reaches "$other" ok &&
		expect released tx_fail "$(races ghost "$left" $IOVA)" &&
		udma "$other" release && expect released tx_fail "$(races ghost "$left" $IOVA)"
}

# A release while the group is attached to another domain than its default one.
release_from_an_owner()
{
	races device "$left" rescan && wait_for 5 take udma "$left" && unbind "$left" &&
		udma "$other" claim 0 && udma "$other" attach "$domain" &&
		expect joined ok "$(races ghost "$left" $IOVA)" &&
		moved "$left" any races device "$left" remove &&
		reaches "$other" ok && expect released tx_fail "$(races ghost "$left" $IOVA)" &&
		udma "$other" release
}

again()
{
	races device "$left" rescan && wait_for 5 take udma "$left" && told udma "$left" claim 0 &&
		expect "contexts of $left" 1 "$(contexts "$left")" && udma "$left" release
}

# cleaned COMMAND...: what it ends with is one invalidation of the whole default domain,
# beside those of the flush queue, whose timer comes when it likes.
cleaned()
{
	races inject count flush && told "$@" &&
		expect "at once" "iotlb $default" "$(echo "$told" | grep -o "iotlb $default\>" | tail -n 1)" || return 1
	sleep 0.5
	vm_host trace since told >/tmp/trace || return 1
	flushes=$(races inject | sed -n "s/^flush count hits \([0-9]*\) .*/\1/p")
	races inject clear
	# QEMU's trace does not tell a whole domain from pages on AMD-Vi.
	[ "$VARIANT" != amd ] || return 0
	expect "beside $flushes of the flush queue" 1 $(($(grep -c iotlb_domain.*"domain 0x$default\$" /tmp/trace) - flushes))
}

# Unmapped by itself, by remove and by devres.
after_unbind()
{
	unbind "$alone" && take kdma "$alone" && run kdma "$alone" map both >/tmp/answer &&
		expect write ok "$(run kdma "$alone" dma write "$(answer_of iova "$(cat /tmp/answer)")")" &&
		run kdma "$alone" unmap "$(answer_of handle "$(cat /tmp/answer)")" >/dev/null && sleep 0.5 &&
		cleaned unbind "$alone"
}

probe_fails()
{
	races inject fail "$1" 5 "$alone" && ! take kdma "$alone" 2>/dev/null &&
		[ ! -e "/sys/bus/pci/devices/$alone/driver" ]
}

after_failed_probes()
{
	for step in 1 2 3 4; do
		cleaned probe_fails kdma.probe.$step || {
			ktap_print_msg "probe failed at $step"
			return 1
		}
	done
}

ktap_print_header
ktap_set_plan 8
ktap_test_result "A4 load" load
ktap_test_result "A4 to blocked: context, then IOTLB of the old tag" to_blocked_and_back
ktap_test_result "A4 release: one context and one IOTLB invalidation, in this order" release
ktap_test_result "A2 nothing is programmed for a released device" nothing_for_the_released
ktap_test_result "A4 release from an owner's domain" release_from_an_owner
ktap_test_result "A2 probed again it is programmed again" again
ktap_test_result "B1 an unbind ends with an invalidation" after_unbind
ktap_test_result "B1 a failed probe does too" after_failed_probes
ktap_finished
