# Everything is made from here. `make help` lists the targets.
#
# What is expensive (guest kernel, runtimes, disk images, the Python client) is cached under CRN_CACHE by the hash of
# its inputs and survives `make clean`; `target/out/` holds links to the products of this checkout.

SHELL := /bin/bash -o pipefail
.DEFAULT_GOAL := help
export CRN_CACHE ?= $(HOME)/.cache/crn
export CARGO_TERM_PROGRESS_WHEN ?= auto

OUT     := target/out
BUILT   := $(or $(CARGO_TARGET_DIR),target)
SUDO    := $(shell [ "$$(id -u)" = 0 ] || echo sudo -E)
PACKAGE_LISTS := images/packages.txt kernel-config/packages.txt tests/packages.txt
SAY     := @tests/say

.PHONY: help setup toolchain kernel programs host-programs initramfs images image run test bench lint fuzz soak clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

# npm is asked for by its command: some packages of nodejs bring it, and then Debian's own cannot be installed.
setup: ## install the system packages that are missing (asks for sudo when not root)
	@missing=$$(for p in $$(sort -u $(PACKAGE_LISTS) | grep -v '^#'); do \
	  dpkg-query -W -f '$${Status}' "$$p" 2>/dev/null | grep -q 'ok installed' || echo "$$p"; done); \
	command -v npm >/dev/null || missing="$$missing npm"; \
	if [ -n "$$missing" ]; then \
	  tests/say "installing system packages:" $$missing; \
	  $(SUDO) apt-get update -q && $(SUDO) env DEBIAN_FRONTEND=noninteractive \
	    apt-get install -qy --no-install-recommends $$missing; \
	fi
	@$(MAKE) --no-print-directory toolchain

toolchain:
	@if ! command -v cargo >/dev/null; then \
	  tests/say "no Rust toolchain: installing the one Debian's rustup provides"; \
	  $(SUDO) apt-get install -qy rustup && rustup default stable || \
	  { echo "Rust 1.88 or newer is needed and this Debian has no rustup package: install Rust first" >&2; exit 1; }; \
	fi

kernel: setup ## build the guest kernel (cached)
	$(SAY) "guest kernel"
	@mkdir -p $(OUT)
	@ln -sfn "$$(kernel-config/build.sh | tail -n1)" $(OUT)/vmlinux

programs: host-programs initramfs ## build the programs of the appliance

# Beside one another: each ends in the linker, which has work for one processor.
initramfs: setup
	$(SAY) "the guests' init"
	@mkdir -p $(OUT)
	guest-init/build-initramfs.sh $(OUT)

host-programs: setup
	$(SAY) "programs"
	@mkdir -p $(OUT)/staging/usr/bin $(OUT)/staging/usr/lib/crn
	cargo build --release --locked -p crn-agent -p crn-convert -p ccn-lite
	cargo rustc --release --locked -p crn-vmm --bin crn-vmm -- -C target-feature=+crt-static
	@install -m755 $(addprefix $(BUILT)/release/,crn-agent crn-convert crn-vmm ccn-lite) $(OUT)/staging/usr/bin/

images: setup ## build the runtimes and instance images that the demo and the tests publish (cached)
	$(SAY) "runtime: python"
	@mkdir -p $(OUT)
	@ln -sfn "$$(images/runtimes/python/build.sh | tail -n1)" $(OUT)/python.squashfs
	$(SAY) "instance: debian"
	@ln -sfn "$$(images/instances/debian/build.sh | tail -n1)" $(OUT)/debian.raw
	@ln -sfn "$$(readlink $(OUT)/debian.raw | sed 's/raw$$/qcow2/')" $(OUT)/debian.qcow2
	$(SAY) "instances: stock"
	@ln -sfn "$$(images/instances/stock/build.sh | tail -n1)" $(OUT)/stock

image: kernel programs ## build the appliance's disk image: target/out/appliance.raw
	$(SAY) "appliance"
	@install -m644 $(OUT)/vmlinux $(OUT)/initramfs $(OUT)/staging/usr/lib/crn/
	@ln -sfn "$$(images/appliance/build.sh $(OUT)/staging | tail -n1)" $(OUT)/appliance.raw

run: image images ## boot the appliance, deploy a program and an instance, leave it running (ONCE=1: stop after the demo)
	$(SAY) "demo"
	cargo run --release --locked -q -p crn-tests --bin crn-demo -- $(if $(ONCE),--once)

test: setup ## every check and every test, the released image booted and used among them
	@$(MAKE) --no-print-directory -j2 image images
	@tests/run

bench: image images ## the benchmarks; results in target/bench/*.json
	cargo run --release --locked -q -p crn-tests --bin crn-bench

lint: setup ## formatting, clippy, licences and duplicate versions
	@tests/lint

fuzz: setup ## every fuzz target for T=60 seconds
	@tests/fuzz/run $(or $(T),60)

soak: image images ## what takes hours: stock images kept for years, core channel node and agent killed, the end-to-end suite (ROUNDS=20)
	@ROUNDS=$${ROUNDS:-20} tests/soak

clean: ## remove what was built here (the cache stays)
	rm -rf target
