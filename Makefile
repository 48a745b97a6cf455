# Needs python3 (3.11 or newer), make and git; everything else comes into .venv.
SHELL := /bin/sh
.DEFAULT_GOAL := help
CHAOS = $(BIN)/python -m tests.chaos
BENCH = $(BIN)/python -m bench
CHAOS_ARGS = $(if $(SEED),--seed $(SEED))
.PHONY: help run demo test test-fast check check-types check-rules fuzz graph size prove bench bench-all bench-docs bench-pairs bench-short chaos chaos-smoke chaos-all chaos-mutants chaos-report install platforms lock format clean

PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11,\
	$(shell $(name) -c 'import sys; print("$(name)" if sys.version_info >= (3, 11) else "")' 2>/dev/null)))
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --no-compile --require-hashes
# On all cores, where pip would use one; exit code aside, since some packages carry code for other Pythons.
COMPILE := $(BIN)/python -m compileall -q -j 0 .venv/lib >/dev/null 2>&1 || true
PORT ?= 8000
PYTEST_ARGS ?=
# Checks need settings that load, and no server.
CHECK_ENV := LOCAL=1 SECRET_KEY=only-for-checks-0c9f2be1d47a4f6b8e35a1c07d92f4be DATABASE_URL=postgresql://nobody@127.0.0.1:1/none \
	REDIS_URL=redis://127.0.0.1:1/0 CREDENTIALS_KEYS=MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

run: .venv/local.stamp  ## everything on this machine, on http://127.0.0.1:8000 (PORT=...)
	@PORT=$(PORT) exec $(BIN)/python -m botproject.local --with-parent

demo: .venv/local.stamp  ## make run, and Telegram and WhatsApp without an account: a double of the platforms on port 8010
	@PORT=$(PORT) exec $(BIN)/python -m botproject.local --with-parent --demo

test: .venv/dev.stamp  ## all tests, on real Postgres and Valkey (PYTEST_ARGS="-k name -n 0")
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

# Test files with web processes, workers, a browser or servers of their own.
PROCESSES = \bStack\(|private_servers|tests\.kit\.(running|pgbouncer|rabbitmq|stopped_processes|people)
test-fast: .venv/dev.stamp  ## under 2 minutes on two free cores: all but the files that start web processes, workers, a browser or own servers
	@$(BIN)/python -m pytest -m "not slow and not browser" $(PYTEST_ARGS) \
		$$(grep -rlE '$(PROCESSES)' tests --include='test_*.py' | sed 's/^/--ignore=/')

platforms: .venv/dev.stamp  ## README's table of platforms, from the adapters' facts
	@$(CHECK_ENV) DJANGO_SETTINGS_MODULE=botproject.settings $(BIN)/python .ci/platforms.py

size:  ## lines of code by folder: product, SQL, tests, bench (COMMIT=... for those of a commit)
	@$(PYTHON) .ci/size.py $(COMMIT)

FUZZED = tests/formats tests/adapters tests/webhooks tests/outbound
fuzz: .venv/dev.stamp  ## the property tests of all that reads strangers' bytes, about 5 minutes (EXAMPLES=2000 of each)
	@FUZZ_EXAMPLES=$(or $(EXAMPLES),2000) $(BIN)/python -m pytest -m hypothesis --hypothesis-profile=fuzz $(PYTEST_ARGS) $(FUZZED)

check: check-types check-rules  ## lint, format, types, import arrows, Django's checks, missing migrations (`make -j2 check`: on two cores)

check-types: .venv/dev.stamp
	$(CHECK_ENV) $(BIN)/mypy

check-rules: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(CHECK_ENV) $(BIN)/python manage.py check
	$(CHECK_ENV) $(BIN)/python -W ignore::RuntimeWarning manage.py makemigrations --check --dry-run

graph: .venv/dev.stamp  ## which folder of the core imports which, layer by layer; fails if an arrow points upwards
	@$(BIN)/python .ci/import_graph.py

prove: .venv/bench.stamp  ## 2,000 messages through this product and a plain pipeline while workers die; about two minutes
	@$(BENCH).prove $(PROVE_ARGS)

bench: .venv/bench.stamp  ## side by side with a do-nothing view and two other pipelines, about 10 minutes (CASE=e2e for one)
	@$(BENCH) $(CASE)

bench-all: .venv/bench.stamp  ## every case, about 45 minutes, and a large database once (GROWTH_SCALE=0.1 for a tenth)
	@$(BENCH) --all

bench-docs: .venv/bench.stamp  ## the same, then docs/benchmarks.md and its picture
	@$(BENCH) --all --docs

bench-pairs: .venv/bench.stamp  ## end to end, an older commit and this one by turns (OLD=commit PAIRS=6)
	@OLD=$(OLD) PAIRS=$(PAIRS) $(BENCH) --add pairs

bench-short: .venv/bench.stamp  ## only to see that measuring works (CASE=...)
	@$(BENCH) --short $(CASE)

chaos: .venv/dev.stamp  ## every fault under load, none over 20 s; half an hour on two slow cores (FAULT=F6 for one, SEED=...)
	@$(CHAOS) $(or $(FAULT),standard) $(CHAOS_ARGS)

chaos-smoke: .venv/dev.stamp  ## a handful of faults under load, under 3 minutes (SEED=...)
	@$(CHAOS) smoke $(CHAOS_ARGS)

chaos-all: .venv/dev.stamp  ## every failpoint, then every fault for as long as it may last; about 90 minutes
	@$(CHAOS) all $(CHAOS_ARGS)

chaos-mutants: .venv/dev.stamp  ## plant bugs one by one: the checker must find each
	@$(CHAOS) mutants

chaos-report: .venv/dev.stamp  ## docs/reliability.md from the figures of runs (RUNS=.data/chaos/....json to keep some)
	@$(CHAOS) report $(RUNS)

install: .venv/dev.stamp  ## all that development needs, in .venv

format: .venv/dev.stamp  ## format the code and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: .venv/dev.stamp  ## pin the requirements again (LOCK_ARGS=--upgrade for newer ones)
	$(call compile,requirements)
	$(call compile,requirements-local)
	$(call compile,requirements-dev)
	$(call compile,requirements-bench)
	$(call compile,requirements-s3)

clean:  ## remove .venv and caches; data in .data stays
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

define compile
$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	$(LOCK_ARGS) $(1).in --output-file $(1).txt
endef

.venv/pip.stamp:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "This Python cannot make virtual environments. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "· virtual environment in .venv, with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear .venv
	@touch $@

.venv/local.stamp: .venv/pip.stamp requirements-local.txt
	@echo "· pinned packages for make run (a minute the first time)"
	@$(PIP) -r requirements-local.txt
	@$(COMPILE)
	@touch $@

.venv/dev.stamp: .venv/pip.stamp requirements-dev.txt
	@echo "· pinned packages for development (a minute or two the first time)"
	@$(PIP) -r requirements-dev.txt
	@$(COMPILE)
	@touch .venv/local.stamp $@

.venv/bench.stamp: .venv/dev.stamp requirements-bench.txt
	@echo "· pinned packages for the benchmark"
	@$(PIP) -r requirements-bench.txt
	@$(COMPILE)
	@touch $@
