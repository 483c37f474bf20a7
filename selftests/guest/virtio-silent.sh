#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# A virtio-iommu that does not answer any more: who waits is told in time, who comes later at once, with one
# line in the log; and what the device may still use is not freed. It falls silent because its function loses the
# right to DMA, behind the driver's back. The first to notice is a map, or an attach: then the module stays.
#
# Freed, or not, is seen by counters: pages that the unit has (of requests and events, as it has no tables), and domains.
# What is not seen is addresses that were unmapped without an answer: nothing is mapped any more that could get them. They
# are kept by construction, as remote::flush has them deferred where the unit did not forget them (a host test of
# Mappings). The memory behind these is its driver's, which has nobody to take an error from.
#
# variant virtio on stock: --iommu virtio --policy strict --nvme 0 --testdev=2
# variant virtio-attach on stock: --iommu virtio --policy strict --nvme 0 --testdev=2
# skip vtd amd: QEMU's unit always answers; host tests of the queue (ring.rs) have one that does not
# timeout: 60

. /selftests/lib.sh

ktap_print_header
ktap_set_plan 8

unit=$(pci_devices 1af4:1057)
one=$(pci_devices 1b36:0005 | sed -n 1p)
two=$(pci_devices 1b36:0005 | sed -n 2p)

# Of requests and events, after the module was loaded.
pages()
{
	races vmstat | sed -n 's/^nr_iommu_pages //p'
}

setup()
{
	outside=$(pages) && load_iommu && insmod /modules/rust_testdev.ko && mapped=$(oracle "$one" map from) && echo "$mapped" &&
		numbers=$(numbers) && [ "$numbers" -ge 2 ] && pages=$(pages) && [ "$pages" -gt "$outside" ]
}

# The command register's bit 2.
silence()
{
	printf '\003' | dd of="/sys/bus/pci/devices/$unit/config" bs=1 seek=4 conv=notrunc 2>/dev/null
}

seconds()
{
	cut -d. -f1 /proc/uptime
}

# Domains that are there, for the device to know of.
numbers()
{
	sed -n 's/^domain_ids: //p' $DRIVER_FILES/${UNIT_NAME}0/stats
}

# within FROM TO COMMAND...: it returns after so many seconds, and has freed nothing
within()
{
	from=$1 to=$2
	shift 2
	begin=$(seconds)
	"$@" || return 1
	took=$(($(seconds) - begin))
	ktap_print_msg "$* after $took s: $(cat /tmp/answer)"
	[ $took -ge "$from" ] && [ $took -le "$to" ] && expect pages "$pages" "$(pages)" && expect domains "$numbers" "$(numbers)"
}

# refused PCI-ADDRESS COMMAND...: by an error, and the reason is the unit's
refused()
{
	if oracle "$@" >/tmp/answer; then
		ktap_print_msg "$*: $(cat /tmp/answer)"
		return 1
	fi
	grep -q -e EIO -e ETIMEDOUT -e ENOMEM /tmp/answer
}

a_map()
{
	refused "$one" map from
}

# The domain that was to be attached stays: nobody knows whether the device has it. The other one stays as well.
an_attach()
{
	refused "$two" domain-alloc && numbers=$((numbers + 1)) && expect domains $numbers "$(numbers)" &&
		[ "$(log_since_mark | grep -c "attach was not acknowledged .* leaking")" = 1 ]
}

# Nobody takes an error. The address is not another page's afterwards, as nothing can be mapped.
an_unmap()
{
	oracle "$one" unmap "$(answer_of handle "$mapped")" >/tmp/answer
}

# Given up, and counted.
said_once()
{
	expect lines 1 "$(log_since_mark | grep -c "does not answer in time")" &&
		expect timeouts 1 "$(cat /sys/class/iommu/${UNIT_NAME}0/rust_iommu/timeouts)"
}

# Drivers that go, and what they had attached.
nothing_is_freed()
{
	rmmod rust_testdev && expect domains $numbers "$(numbers)" && expect pages "$pages" "$(pages)"
}

# It has let DMA through before, and that takes requests. What was not detached with an answer has the unit stay, and with
# it its memory, though both modules have gone.
shutdown_says_that_too()
{
	mark_log && echo 1 >/sys/module/$DRIVER/parameters/shutdown &&
		expect lines 1 "$(log_since_mark | grep -c "DMA cannot be let through again")" &&
		expect "a unit that stays on" 1 "$(log_since_mark | grep -c "a unit stays on")" && rmmod $DRIVER &&
		rmmod rust_iommu && expect "pages that stay" "$pages" "$(pages)"
}

# Somebody may still use the domain.
the_module_stays()
{
	mark_log
	if ( echo 1 >/sys/module/$DRIVER/parameters/shutdown ) 2>/tmp/answer; then
		return 1
	fi
	grep -q "resource busy" /tmp/answer && expect lines 1 "$(log_since_mark | grep -c "a domain is still held .* or was leaked")" &&
		! rmmod $DRIVER 2>/dev/null && expect domains $numbers "$(numbers)" && expect pages "$pages" "$(pages)"
}

mark_log
ktap_test_result "load and map" setup
ktap_test_result "it falls silent" silence
if [ "$VARIANT" = virtio-attach ]; then
	ktap_test_result "an attach fails after the limit" within 4 12 an_attach
else
	ktap_test_result "a map fails after the limit" within 4 12 a_map
fi
ktap_test_result "the next map fails at once" within 0 1 a_map
ktap_test_result "an unmap returns at once" within 0 1 an_unmap
ktap_test_result "one line says why" said_once
ktap_test_result "what the device may use is not freed" nothing_is_freed
if [ "$VARIANT" = virtio-attach ]; then
	ktap_test_result "the module stays, and says why" the_module_stays
else
	ktap_test_result "the end of the module says so too" shutdown_says_that_too
fi
ktap_finished
