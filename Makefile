# Two commands do everything on a fresh machine: `make demo` and `make test`.
SHELL := /bin/sh
.DEFAULT_GOAL := help
CARGO ?= cargo
.PHONY: help demo test check bench bench-compare audit browser prerequisites rivals rust

help: ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' Makefile

demo: prerequisites ## an emulated site, the gateway, and a dozen calls with what came of each
	@$(CARGO) build --locked
	@target/debug/countersign demo

test: prerequisites browser ## every test, with real clients and a real browser where they can be installed
	$(CARGO) test --locked --workspace

check: prerequisites ## format, lints, documentation, and that the benches build
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps --document-private-items
	$(CARGO) bench --locked --no-run

bench: prerequisites ## measure: the core by itself, then the gateway against a direct connection
	$(CARGO) bench --locked

bench-compare: prerequisites rivals ## measure side by side with HAProxy and nginx + Lua; ROUNDS=9 is steadier, QUICK=1 only tries it
	@$(CARGO) bench --locked --bench compare -- side-by-side

audit: ## advisories, licences and sources of the dependencies; needs the network
	@command -v cargo-deny >/dev/null || $(CARGO) install --locked cargo-deny
	$(CARGO) deny check

# cmake and a C compiler build zlib for the engine; a linker comes with the compiler.
prerequisites: rust
	@missing=""; \
	command -v cmake >/dev/null || missing="$$missing cmake"; \
	command -v cc >/dev/null || missing="$$missing gcc libc6-dev"; \
	command -v make >/dev/null || missing="$$missing make"; \
	.ci/install "$$missing" required

# Real clients for the tests. Without them those tests say loudly that they did not run.
browser:
	@missing=""; \
	command -v curl >/dev/null || missing="$$missing curl"; \
	command -v openssl >/dev/null || missing="$$missing openssl"; \
	command -v python3 >/dev/null || missing="$$missing python3"; \
	python3 -c 'import requests' 2>/dev/null || missing="$$missing python3-requests"; \
	command -v node >/dev/null || missing="$$missing nodejs"; \
	php -r 'exit(function_exists("curl_init") ? 0 : 1);' 2>/dev/null || missing="$$missing php-cli php-curl"; \
	command -v chromedriver >/dev/null || missing="$$missing chromium chromium-driver"; \
	.ci/install "$$missing" optional

# What the gateway is compared with, and what counts instructions and system calls.
rivals:
	@missing=""; \
	haproxy -v >/dev/null 2>&1 || missing="$$missing haproxy"; \
	nginx -v 2>/dev/null || missing="$$missing nginx"; \
	[ -e /usr/lib/nginx/modules/ngx_http_lua_module.so ] || missing="$$missing libnginx-mod-http-lua"; \
	valgrind --version >/dev/null 2>&1 || missing="$$missing valgrind"; \
	strace -V >/dev/null 2>&1 || missing="$$missing strace"; \
	taskset -V >/dev/null 2>&1 || missing="$$missing util-linux"; \
	.ci/install "$$missing" required

rust:
	@command -v $(CARGO) >/dev/null || { \
		echo "Rust is missing. Install it with https://rustup.rs (the toolchain in rust-toolchain.toml is then fetched by itself)." >&2; \
		exit 1; }
