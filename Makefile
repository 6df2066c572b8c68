# attimo's front door. Every target does its own set-up in .venv and is quick when nothing changed.
# Needs Python 3.11 or 3.12, pip and make; Node, Java and Chromium only for the tests that say so when they skip.

.DEFAULT_GOAL := help
SHELL := /bin/sh
VENV := .venv
PY := $(VENV)/bin/python
ARGS ?=
ROUNDS ?= 20
TIMES ?= 10
PYTHON ?=

# Tests start some two hundred processes: each would compile all of attimo anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help run test acceptance bench lint docs kafka lock clean node

help: ## what can be made
	@echo "attimo: marketing automation in the moment"; echo
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-14s %s\n", $$1, $$2 }'
	@echo; echo "  Options go through ARGS: make run ARGS='--port 9000', make test ARGS='-k merge'"

run: $(VENV)/ready ## start everything with the demo shop; Ctrl-C stops it
	@exec $(PY) attimo.py up --demo $(ARGS)

test: $(VENV)/ready-dev node ## lint, types and every test (ARGS goes to pytest)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check -q .
	$(VENV)/bin/mypy
	$(PY) -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

acceptance: $(VENV)/ready-dev node ## what is too long for `make test`: kill rounds, benchmarks in miniature, more examples
	ATTIMO_CRASH_ROUNDS=$(ROUNDS) $(PY) -m pytest -m acceptance $(ARGS)
	ATTIMO_EXAMPLES=$(TIMES) $(PY) -m pytest -n 3 --dist loadfile --no-loadscope-reorder tests/laws $(ARGS)

bench: $(VENV)/ready-dev ## measure against the floor, write benchmarks/results.json
	$(PY) -m benchmarks $(ARGS)

lint: $(VENV)/ready-dev ## ruff and mypy alone
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check -q .
	$(VENV)/bin/mypy

docs: $(VENV)/ready-dev ## generate the reference tables from the code and build the site in .cache/site
	@mkdir -p .cache
	$(PY) -m domain.playbook.schema > .cache/playbook.md && mv .cache/playbook.md docs/playbook.md
	ATTIMO_BLESS=1 $(PY) -m pytest -q tests/test_docs.py -k "generated or up_to_date"
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build -q

kafka: .cache/kafka/ready ## fetch the Kafka broker for the tests that need one (Java and Maven)

lock: $(VENV)/ready-dev ## choose versions anew: requirements.txt and requirements-dev.txt
	$(PY) -m pip install -q pip-tools
	$(VENV)/bin/pip-compile $(LOCK) --extra dev -o requirements-dev.txt pyproject.toml
	$(VENV)/bin/pip-compile $(LOCK) -c requirements-dev.txt -o requirements.txt pyproject.toml

clean: ## remove .venv, caches and what was built; never data/
	rm -rf $(VENV) .cache build attimo.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis web/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- set-up -----------------------------------------------------------------------------------------------------

LOCK := -q --upgrade --strip-extras --no-header --no-annotate --no-emit-index-url --no-emit-trusted-host \
	--no-emit-find-links --no-emit-options

# A name on the path may be a shim that cannot start, or a Python without venv: so each candidate is asked.
$(PY):
	@for name in $(PYTHON) python3.11 python3.12 python3; do \
	  if $$name -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' \
	      >/dev/null 2>&1; then \
	    echo "Setting up $(VENV) with $$name (once; a minute or two)"; exec $$name -m venv $(VENV); \
	  fi; \
	done; \
	echo "attimo needs Python 3.11 or 3.12 with venv and pip, and found none of python3.11, python3.12, python3" \
	     "that fits (Debian: apt-get install python3-venv)." >&2; exit 1

$(VENV)/ready: requirements.txt pyproject.toml | $(PY)
	@$(PY) -m pip install -q --disable-pip-version-check -r requirements.txt
	@$(PY) -m pip install -q --disable-pip-version-check --no-deps -e .
	@touch $@

$(VENV)/ready-dev: requirements-dev.txt $(VENV)/ready
	@$(PY) -m pip install -q --disable-pip-version-check -r requirements-dev.txt
	@touch $@

# Node is for one browser test (a client library that we did not write); without it that test says so and skips.
node:
	@if [ ! -f web/package-lock.json ]; then :; \
	elif ! command -v npm >/dev/null 2>&1; then \
	  echo "npm is not there: the browser test of the Segment client will skip"; \
	elif [ web/node_modules/.package-lock.json -nt web/package-lock.json ]; then :; \
	else \
	  (cd web && npm ci --silent --no-audit --no-fund && touch node_modules/.package-lock.json) \
	    || echo "npm ci failed: the browser test of the Segment client will skip"; \
	fi

.cache/kafka/ready: tests/harness/pom.xml
	@command -v java >/dev/null 2>&1 && command -v mvn >/dev/null 2>&1 \
	  || { echo "make kafka needs java (17 or later) and mvn" >&2; exit 1; }
	@echo "Fetching the Kafka broker (once; about 50 MB)"
	@rm -rf .cache/kafka && mkdir -p .cache/kafka
	@mvn -q -B -f tests/harness/pom.xml dependency:copy-dependencies -DoutputDirectory=$(CURDIR)/.cache/kafka
	@touch $@
