# Every habit is a target; `make help` explains itself. Nothing outside this directory is changed.

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
CORE := python/ocidiff/_core.abi3.so
RUST := Cargo.toml Cargo.lock $(shell find rust/ocidiff-core rust/ocidiff-deflate rust/ocidiff-py -name '*.rs' -o -name Cargo.toml)
PYTHON_CODE := python release tests benches examples docs

# Which Python: the first that is new enough and can make environments. Looked for only when an environment is made.
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3; do \
	$$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$python && break; done)
RUST_WANTED := $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
RUST_FOUND = $(shell cargo --version 2>/dev/null | cut -d ' ' -f 2)
RUST_IS_OLD = $(shell printf '%s\n' $(RUST_WANTED) $(RUST_FOUND) | sort -VC || echo old)
C_COMPILER = $(shell command -v cc 2>/dev/null)

export PYO3_PYTHON := $(abspath $(BIN)/python)

.DEFAULT_GOAL := help
.PHONY: help demo test dev check dist docs bench interop overlay fuzz soak-trees soak-index soak-kill soak-errors soak-power soak-processes soak-live soak-serve clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(CORE) ## Set up everything, then commit a changed file system of 200 MB and check the image
	@$(BIN)/python examples/demo.py

test: $(CORE) ## Set up everything, then run all tests
	cargo test --locked --workspace --exclude ocidiff-py
	$(BIN)/python -m pytest --numprocesses $$(($$(nproc) + 1)) --maxprocesses 8 --dist worksteal

dev: $(CORE) ## Set up everything: .venv with the tools, and the extension built into the source tree
	@echo "ready: $(BIN)/ocidiff"

check: $(CORE) ## Lint, types, formats and architecture: what a change must pass
	$(BIN)/ruff check $(PYTHON_CODE)
	$(BIN)/ruff format --check $(PYTHON_CODE)
	$(BIN)/mypy
	MYPYPATH=python:tests $(BIN)/mypy --explicit-package-bases --exclude ^tests/property/ --exclude ^tests/hostile/ tests
	MYPYPATH=python:tests:tests/property $(BIN)/mypy --explicit-package-bases tests/property
	MYPYPATH=python:tests:tests/hostile $(BIN)/mypy --explicit-package-bases tests/hostile
	MYPYPATH=python:benches:tests $(BIN)/mypy --explicit-package-bases benches examples docs release
	$(BIN)/python -m mypy.stubtest ocidiff._core
	cargo fmt --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	$(BIN)/python -m pytest -q tests/architecture

# maturin checks the libraries and symbols that the wheel needs, and names the manylinux tag that they allow.
dist: $(INSTALLED) ## Build dist/: the source distribution, and from it the wheel
	$(call need_tools,made)
	@rm -rf dist
	@# Files of a source distribution have old times, by which cargo would take what was built before for what they make.
	@cargo clean --quiet --release -p ocidiff-py -p ocidiff-core -p ocidiff-deflate
	MATURIN_NO_MISSING_BUILD_BACKEND_WARNING=1 CARGO_TARGET_DIR=$(abspath target) $(BIN)/maturin build --release --locked --sdist --out dist --quiet
	@ls dist

docs: $(VENV)/documented ## Build the site of docs/ into site/; a link or an anchor that leads nowhere is a failure
	$(BIN)/zensical build --strict --clean

bench: $(CORE) ## Measure the verbs on this machine, and the parts that they are made of
	$(BIN)/python -m pytest benches --benchmark-enable --benchmark-only
	cargo bench --manifest-path rust/kernels/Cargo.toml

interop: $(CORE) ## Run the tests against foreign tools; a missing tool is a failure
	OCIDIFF_REQUIRE=all OCIDIFF_KILLS=1 OCIDIFF_PEERS=all $(BIN)/python -m pytest -m interop
	for kind in 1.7 new-2 new-1.7; do OCIDIFF_REQUIRE=all OCIDIFF_KILLS=1 OCIDIFF_CONTAINERD=$$kind $(BIN)/python -m pytest tests/containerd || exit; done

overlay: $(CORE) ## Compare 500 random overlays with the walk of their mounts, 200 of fuse-overlayfs, and some in user namespaces; needs root
	PYTHONPATH=tests $(BIN)/python -m support.overlays 0 500
	PYTHONPATH=tests unshare --user --map-root-user --mount $(BIN)/python -m support.overlays 500 100 userxattr
	PYTHONPATH=tests $(BIN)/python -m support.fuse_overlays 0 200
	PYTHONPATH=tests unshare --user --map-root-user --mount $(BIN)/python -m support.fuse_overlays 200 100

soak-trees: $(CORE) ## Bring 10000 (EXAMPLES) made-up pairs of trees through diff and apply, in each compression
	OCIDIFF_EXAMPLES=$(or $(EXAMPLES),10000) $(BIN)/python -m pytest tests/property/test_apply_inverts_diff.py -k rust

fuzz: $(CORE) ## Feed the readers of layers and indexes with made-up input, SECONDS (60) for each of the targets; needs cargo-fuzz
	PYTHONPATH=tests:tests/hostile $(BIN)/python tests/hostile/seeds.py rust/fuzz/corpus
	for target in tar_read apply_into_root whiteout_name gzip_blob zstd_blob index_read; do \
		cargo fuzz run --fuzz-dir rust/fuzz --sanitizer none $$target -- -max_len=16384 -max_total_time=$(or $(SECONDS),60) || exit 1; \
	done

soak-index: $(CORE) ## Compare the indexes of 500 (EXAMPLES) made-up trees, and of their layers, with the trees themselves
	OCIDIFF_EXAMPLES=$(or $(EXAMPLES),500) $(BIN)/python -m pytest tests/property/test_index_equals_tree.py tests/property/test_index_of_layers.py

soak-kill: $(CORE) ## Kill calls on a store at 500 of their system calls, unpack also at 50 random moments: sound after each
	OCIDIFF_KILLS=50 $(BIN)/python -m pytest -s tests/faults/test_kill.py tests/unit/image/test_unpack.py -k kill

soak-errors: $(CORE) ## Fail 240 system calls of calls on a store, with a full disk and worse: sound after each
	OCIDIFF_ERRORS=12 $(BIN)/python -m pytest -s tests/faults/test_errors.py

soak-power: $(CORE) ## Take the power from a file system at 200 moments: sound after each, and what was told is there
	OCIDIFF_POWER_FAILURES=25 $(BIN)/python -m pytest -s tests/faults/test_power.py

soak-processes: $(CORE) ## Let 16 processes work on one store for ten minutes: no error, nothing left
	OCIDIFF_PROCESSES=16 OCIDIFF_PROCESSES_SECONDS=600 $(BIN)/python -m pytest -s tests/faults/test_processes.py

soak-live: $(CORE) ## Diff a tree 200 times, in six ways, while a program changes it: no file is torn, nothing fails
	OCIDIFF_LIVE_DIFFS=200 $(BIN)/python -m pytest -s tests/faults/test_live_trees.py

soak-serve: $(CORE) ## Let 16 callers use the plugin for 10 (MINUTES), while a server is killed again and again: nothing grows; needs root
	OCIDIFF_SERVE_MINUTES=$(or $(MINUTES),10) OCIDIFF_KILLS=1 OCIDIFF_HANDOVERS=100 $(BIN)/python -m pytest -s tests/containerd/serve/test_faults.py tests/containerd/serve/test_handover.py tests/containerd/serve/test_soak.py

clean: ## Remove all that the other targets made
	rm -rf $(VENV) target dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks $(CORE)
	find $(wildcard $(PYTHON_CODE)) -name __pycache__ -prune -exec rm -rf {} +

# All that is missing is told at once. `PYTHON` is needed only where an environment is made.
define need_tools
	$(if $(C_COMPILER),,$(info missing: a C compiler (Debian: gcc libc6-dev)))
	$(if $(RUST_FOUND),,$(info missing: Rust $(RUST_WANTED) or newer (rustup, or Debian 13: cargo-web rustc-web)))
	$(if $(RUST_FOUND),$(if $(RUST_IS_OLD),$(info too old: Rust $(RUST_FOUND), needs $(RUST_WANTED) or newer (rustup, or Debian 13: cargo-web rustc-web))))
	$(if $(1),,$(info missing: Python 3.11 or newer with venv (Debian: python3 python3-venv)))
	$(if $(and $(C_COMPILER),$(RUST_FOUND),$(if $(RUST_IS_OLD),,new),$(1)),,$(error install what is missing, then run make again))
endef

$(INSTALLED): pyproject.toml
	$(call need_tools,$(PYTHON))
	@echo "setting up $(VENV) with $(PYTHON)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@$(BIN)/python -m pip install --quiet --group dev
	@touch $@

$(VENV)/documented: $(INSTALLED)
	@$(BIN)/python -m pip install --quiet --group docs
	@touch $@

$(CORE): $(INSTALLED) $(RUST)
	$(call need_tools,made)
	@echo "building the extension, which takes a minute or two the first time"
	@# The time of the extension is when its build began, so that sources that change meanwhile are built next time.
	@touch $(VENV)/began
	@# What cargo and maturin say is of use only if they fail.
	@env -u CONDA_PREFIX PIP_QUIET=1 VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --release --locked --quiet \
		>$(VENV)/build.log 2>&1 || { cat $(VENV)/build.log; exit 1; }
	@$(BIN)/python -m compileall -q python/ocidiff
	@touch -r $(VENV)/began $@
