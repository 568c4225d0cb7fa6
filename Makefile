# Everything starts here: `make run` and `make test` need Python 3.11 or newer (with its headers and the venv
# module), a C compiler and make. They set up .venv by themselves and are quick the second time.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

VENV := .venv
PY := $(VENV)/bin/python
JOBS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1); echo $$(( n < 4 ? n : 4 )))
WORKERS ?= 2
PYTEST := $(PY) -m pytest
PYTEST_FLAGS ?=
SOURCES = $(wildcard _core/*.pyx _core/*.pxd _core/*.h)
MODULES = $(patsubst _core/%.pyx,paxos._core.%,$(sort $(wildcard _core/*.pyx)))
# make verify leaves no trace that git could see.
NO_TRACES := PYTHONDONTWRITEBYTECODE=1

# --- the two commands of the README ---------------------------------------------------------------------

.PHONY: run
run: build  ## replicate FILE=... over three processes, kill the leader half-way, prove that nothing was lost
	$(PY) -m paxos.cli demo $(if $(FILE),-- "$(FILE)")

.PHONY: test
test: build  ## every test: unit, simulator, real processes, packaging
	$(PYTEST) -n $(WORKERS) --dist loadgroup $(PYTEST_FLAGS)

# --- checks ---------------------------------------------------------------------------------------------

.PHONY: verify
verify: build  ## lint, format, types, stubs, zero Cython warnings, unit tests and simulator; changes no file
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(NO_TRACES) $(PY) -m mypy
	$(NO_TRACES) $(PY) -m mypy.stubtest --mypy-config-file pyproject.toml --allowlist tools/stubtest-allowlist.txt --ignore-unused-allowlist --ignore-disjoint-bases $(MODULES)
	$(PY) tools/check_warnings.py
	$(NO_TRACES) $(PYTEST) -n $(WORKERS) --dist loadgroup -p no:cacheprovider -q $(wildcard tests/unit tests/sim) $(PYTEST_FLAGS)

.PHONY: sim
sim: build  ## run the simulator: SEED=17 for one history, SEEDS=0:1000 for many
	$(PY) -m paxos.sim $(if $(SEED),--seed $(SEED)) $(if $(SEEDS),--seeds $(SEEDS)) $(SIM_FLAGS)

.PHONY: mutants
mutants: build  ## break one rule after the other in a copy, and show that the tests notice; MUTANTS="--only ID"
	$(PY) -m tests.mutants $(MUTANTS)

.PHONY: fuzz
fuzz: build  ## hostile bytes under atheris (pip install atheris): TARGET=frame SECONDS=600
	$(PY) -m tests.fuzz $(or $(TARGET),frame) -max_total_time=$(or $(SECONDS),600) -rss_limit_mb=2048

.PHONY: soak
soak: build  ## hours of it: SEEDS=0:20000 of the simulator, KILLS=500 of real processes, every damage, every mutant
	$(PY) -m paxos.sim --seeds $(or $(SEEDS),0:20000) --jobs $(JOBS) --keep-going $(SIM_FLAGS)
	$(PY) -m tests.process.soak --kills $(or $(KILLS),500) --pauses 300 --partitions 200
	$(PY) -m tests.damage
	$(PY) -m paxos.sim.explore
	$(PY) -m tests.mutants

.PHONY: explore
explore: build  ## every interleaving of tiny clusters of the real roles: PLAN=ballots for one of them
	$(PY) -m paxos.sim.explore $(if $(PLAN),--plan $(PLAN))

.PHONY: bench
bench: build  ## micro-benchmarks, then commit latency and throughput of three processes
	$(PYTEST) benchmarks
	$(PY) -m benchmarks commit $(if $(JSON),--json "$(JSON)")

.PHONY: annotate
annotate: $(VENV)/.dependencies  ## write build/annotate/**/*.html: yellow lines touch the interpreter
	CYTHON_FORCE_REGEN=1 PAXOS_ANNOTATE=1 PAXOS_CYTHON_DIR=build/annotate $(PY) setup.py --quiet --version >/dev/null
	@find build/annotate -name '*.html' | sort

# A tree of its own, so that the release build stays as it is.
.PHONY: debug
debug: $(VENV)/.dependencies  ## build with PAXOS_DEBUG=1 (bounds checks, extra invariants) and run the same tests
	mkdir -p build/debug
	tar -c --exclude='*.so' --exclude='_core/*.c' --exclude=__pycache__ _core benchmarks docs examples paxos tests tools \
	    setup.py pyproject.toml MANIFEST.in Makefile README.md CHANGELOG.md LICENSE | tar -x -C build/debug
	cd build/debug && PAXOS_DEBUG=1 PAXOS_BUILD_JOBS=$(JOBS) $(CURDIR)/$(PY) setup.py --quiet build_ext --inplace
	cd build/debug && PAXOS_DEBUG=1 $(CURDIR)/$(PYTEST) -n $(WORKERS) --dist loadgroup $(PYTEST_FLAGS)

.PHONY: tsan
tsan: $(VENV)/.dependencies  ## build with ThreadSanitizer and run tools/race_load.py under it: no report may come
	mkdir -p build/tsan && rm -f build/tsan/report.*
	tar -c --exclude='*.so' --exclude='_core/*.c' --exclude=__pycache__ _core paxos tools setup.py pyproject.toml README.md \
	    LICENSE | tar -x -C build/tsan
	cd build/tsan && PAXOS_TSAN=1 PAXOS_BUILD_JOBS=$(JOBS) $(CURDIR)/$(PY) setup.py --quiet build_ext --inplace
	cd build/tsan && LD_PRELOAD=$$($(CC) -print-file-name=libtsan.so) PYTHONPATH=. \
	    TSAN_OPTIONS="exitcode=66:report_signal_unsafe=0:history_size=6:suppressions=tools/tsan.supp:log_path=report" \
	    $(CURDIR)/$(PY) tools/race_load.py || { cat report.* 2>/dev/null; exit 1; }

# --- setting up -----------------------------------------------------------------------------------------

.PHONY: build
build: $(VENV)/.built  ## set up .venv and build the compiled core, if anything changed

# What pip installs is read from pyproject.toml, so that it is written down once.
$(VENV)/.dependencies: pyproject.toml tools/bootstrap tools/requirements.py
	tools/bootstrap $(VENV)
	@touch $@

$(VENV)/.built: $(VENV)/.dependencies setup.py $(SOURCES)
	$(if $(filter setup.py $(VENV)/.dependencies,$?),CYTHON_FORCE_REGEN=1) PAXOS_BUILD_JOBS=$(JOBS) \
	    $(PY) setup.py --quiet build_ext --inplace $(if $(filter setup.py $(VENV)/.dependencies,$?),--force)
	@touch $@

.PHONY: clean
clean:  ## remove everything that was built or installed here
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	rm -f _core/*.c _core/*.html _core/*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help
help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18
