# Two commands do everything on a fresh machine: `make demo` and `make test`.
SHELL := /bin/sh
.DEFAULT_GOAL := help
CARGO ?= cargo
# `make check` looks at dependencies with this release.
DENY := 0.20.2
# What .ci/tools puts in the place of programs that are on the path and do not run.
export PATH := $(CURDIR)/target/tools:$(PATH)
.PHONY: help demo test check bench bench-compare audit prerequisites clients proxies rivals deny rust

help: ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' Makefile

# Cargo knows best where it builds.
demo: prerequisites ## an emulated site, the gateway, and calls and attacks with what came of each
	@$(CARGO) run --locked -- demo

test: prerequisites clients proxies ## every test, with real clients, proxies and a real browser where they can be installed
	$(CARGO) test --locked --workspace

check: prerequisites deny ## format, lints, documentation, licences and sources, and that the benches build
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps --document-private-items
	$(CARGO) fetch --locked
	$(CARGO) deny --offline check bans licenses sources
	$(CARGO) bench --locked --no-run

bench: prerequisites ## measure: the core by itself, then the gateway against a direct connection
	$(CARGO) bench --locked

bench-compare: prerequisites rivals ## measure side by side with HAProxy and nginx + Lua; ROUNDS=9 is steadier, QUICK=1 only tries it
	@$(CARGO) bench --locked --bench compare -- side-by-side

audit: prerequisites deny ## the same as in `make check`, and advisories: needs the network
	$(CARGO) deny check

# cmake and a C compiler build zlib for the engine; a linker comes with the compiler.
prerequisites: rust
	@.ci/tools build required

# Real clients for the tests. Without them those tests say loudly that they did not run.
clients:
	@.ci/tools clients optional

# Real proxies before the gateway, for tests as well.
proxies:
	@.ci/tools proxies optional

# What the gateway is compared with, and what counts instructions and system calls.
rivals:
	@.ci/tools rivals required

# Without optimization: a minute to build instead of several, and fast enough.
deny: prerequisites
	@$(CARGO) deny --version >/dev/null 2>&1 || $(CARGO) install --locked --debug cargo-deny@$(DENY)

rust:
	@$(CARGO) --version >/dev/null || { \
		echo "Rust is missing, or does not run. Install it with https://rustup.rs (the toolchain in rust-toolchain.toml is then fetched by itself)." >&2; \
		exit 1; }
