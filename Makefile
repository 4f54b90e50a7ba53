# Atoll: build, run and test from a bare clone of a Debian 12 machine. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := build
.PHONY: help deps build run test soak fuzz bench bench-mapper lint

CARGO ?= cargo
PROFILE ?= release
PROFILE_DIR = $(if $(filter dev,$(PROFILE)),debug,$(PROFILE))
# Cargo's own default, unless the environment says otherwise.
export CARGO_TARGET_DIR ?= $(CURDIR)/target
# A CI clone is thrown away: what is costly to make again is kept outside of it.
ifdef CI
CI_CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/atoll
ifeq ($(origin CARGO_TARGET_DIR),file)
CARGO_TARGET_DIR := $(CI_CACHE)/target
endif
export ATOLL_CACHE ?= $(CI_CACHE)/packages
endif

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

deps: ## install the Debian packages that are missing, check the toolchain
	@scripts/deps.sh

build: deps ## the binary, for use (PROFILE=release)
	$(CARGO) build --profile $(PROFILE) --locked

run: build ## a daemon with a demo volume on iSCSI at 127.0.0.1:3260, data in ./data or ATOLL_DATA
	@exec scripts/demo.sh "$(CARGO_TARGET_DIR)/$(PROFILE_DIR)/atoll"

test: deps ## all tests, the end-to-end ones included
	@scripts/test.sh

soak: deps ## the same in their long modes: hours
	@ATOLL_SOAK=1 scripts/test.sh

fuzz: deps ## every parser under libFuzzer, 30 s each (ATOLL_FUZZ_SECONDS)
	@scripts/fuzz.sh

bench: deps ## measurements
	$(CARGO) run --release --locked --package atoll-bench

bench-mapper: deps ## sizes of maps, times of verbs, clones, the collector, scale: each beside its limit (10 minutes, 3 GB in TMPDIR)
	$(CARGO) run --release --locked --package atoll-bench -- mapper

lint: deps ## formatting and clippy, warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
