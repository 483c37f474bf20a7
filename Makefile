# SPDX-License-Identifier: GPL-2.0
#
# `make help` lists the targets. Everything runs in the toolbox, which the first
# target makes; nothing but make and (as an ordinary user) mmdebstrap is needed.

TOOLBOX := tools/toolbox run
KERNEL  ?= stock
POLICY  ?= lazy
IOMMU   ?= intel
RESULT  ?= Documentation/performance/result.json
VM      := tools/vm --iommu $(IOMMU) --nvme 2 --testdev=1 --disk-size 512M \
	   --kernel $(KERNEL) --policy $(POLICY)

.PHONY: modules iommu-info dkms run shell check check-package bench bench-docs clippy fmt clean help

modules:
ifdef KDIR
	@$(TOOLBOX) tools/build $(abspath $(KDIR))
else
	@$(TOOLBOX) tools/build $(KERNEL)
endif

iommu-info:
	@$(TOOLBOX) env RUSTFLAGS="-C target-feature=+crt-static" cargo build --quiet --locked --release \
		--target x86_64-unknown-linux-gnu --target-dir build/cargo \
		--manifest-path tools/iommu-info/Cargo.toml
	@install -D -m 755 build/cargo/x86_64-unknown-linux-gnu/release/iommu-info build/iommu-info

dkms:
	@tools/package

run: modules
	@$(VM) --quiet --timeout 240 --script tools/demo.sh

shell: modules
	@$(VM) --shell

check:
	@tools/check $(if $(EXTRA),--extra) $(if $(LONG),--long) $(TEST)

check-package:
	@deb=$$(tools/package) && tools/system "$$deb" >/dev/null
	@tools/check --package $(TEST)

# All IOMMUs, unless one is asked for.
bench: modules
	@tools/bench $(if $(QUICK),--quick) $(if $(filter file,$(origin IOMMU)),,--iommu $(IOMMU))

bench-docs:
	@tools/bench-docs $(RESULT)

clippy:
	@$(TOOLBOX) tools/lint clippy

fmt:
	@$(TOOLBOX) tools/lint fmt

clean:
	rm -rf build

help:
	@echo 'make               build the modules for the distribution kernel, into build/stock'
	@echo 'make KDIR=DIR      build the modules for a prepared kernel tree, into build/kdir'
	@echo 'make iommu-info    build the program that explains IOMMU groups, into build/'
	@echo 'make dkms          a Debian package with the source of the modules for DKMS, into build/package'
	@echo 'make run           boot a guest, load the driver, run fio on NVMe behind it'
	@echo 'make shell         the same guest with a shell on its console'
	@echo 'make check         the usual tests, on the stock and on the debug kernel'
	@echo 'make check TEST=X  one test: NAME, NAME/VARIANT or NAME/VARIANT/KERNEL (tools/check --list)'
	@echo 'make check EXTRA=1    also controls with the in-tree drivers, and what others test nearly as well'
	@echo 'make check LONG=1     also the variants that take many minutes'
	@echo 'make check-package    that the Debian package installs, survives kernel updates, boots'
	@echo 'make bench         what mapping and I/O cost, with our drivers and the in-tree ones; build/bench/result.json'
	@echo 'make bench QUICK=1    less of it, in five minutes; build/bench/quick.json'
	@echo 'make bench-docs    Documentation/performance.rst from RESULT=FILE'
	@echo 'make clippy        lint the modules with the settings of the kernel'
	@echo 'make fmt           format the Rust code with the settings of the kernel'
	@echo 'make clean         remove build/'
	@echo
	@echo 'KERNEL=debug       for make, run and shell: the kernel with KASAN and lockdep'
	@echo 'IOMMU=amd|virtio              for run and shell: another IOMMU than VT-d; for bench: only this one'
	@echo 'POLICY=strict|lazy|identity   for run and shell: the default domain type'
	@echo 'RUST_IOMMU_CACHE=DIR          where downloads and builds are kept'
	@echo 'tools/vm --help    the guest in all its forms'
