# SPDX-License-Identifier: GPL-2.0
#
# `make help` lists the targets. Everything runs in the toolbox (tools/toolbox).

TOOLBOX := tools/toolbox run
KERNEL  ?= stock

.PHONY: modules
modules:
	@$(TOOLBOX) tools/build $(KERNEL) $(KDIR)
