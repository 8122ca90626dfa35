# Each target works alone, and first, in a fresh clone. `make` lists them.

VENV ?= .venv
# Options for what a target runs: make run ARGS="--broker rabbitmq", make test ARGS="-k redis".
ARGS ?=
# For each target of fuzz.
MINUTES ?= 60
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help run test test-all test-lowest lint bench bench-quick soak outages fuzz brokers programs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/.demo,metrics,web ## run the agent if it is configured, else the demo
	@file=$${LEEK_AGENT_SUBSCRIPTIONS_FILE:-/opt/app/conf/subscriptions.json}; \
	if [ -n "$$LEEK_AGENT_SUBSCRIPTIONS" ] || [ -e "$$file" ]; then \
		exec $(BIN)/leekfanout run $(ARGS); \
	else \
		echo "LEEK_AGENT_SUBSCRIPTIONS isn't set, and there is no $$file: this is the demo."; \
		exec $(BIN)/leekfanout demo $(ARGS); \
	fi

# Most tests wait for something most of the time, so more of them run at once than there are cores.
test: programs $(VENV)/.test ## run the tests, with real brokers and a real browser
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile $(ARGS)

test-all: test-3.11 test-3.12 test-3.13 test-lowest ## run the tests on each supported Python

test-3.%:
	python=$$(sh tools/find-python.sh 3.$*) && $(MAKE) test VENV=.venv-3.$* PYTHON=$$python

# The demo has a newer Celery of its own.
test-lowest: ## run the tests with the oldest supported versions of all dependencies
	python=$$(sh tools/find-python.sh 3.11) && \
		$(MAKE) test VENV=.venv-lowest PYTHON=$$python CONSTRAINTS="-c tools/lowest.txt" \
		ARGS="--ignore tests/test_demo.py $(ARGS)"

lint: $(VENV)/.test ## check style, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: brokers $(VENV)/.bench ## measure everything (under 15 minutes)
	$(BIN)/python -m bench $(ARGS)

bench-quick: brokers $(VENV)/.bench ## measure the essentials (2 minutes)
	$(BIN)/python -m bench --quick $(ARGS)

soak: brokers $(VENV)/.test ## 30 minutes of random faults that overlap, and a report
	$(BIN)/python -m tests.soak $(ARGS)

outages: brokers $(VENV)/.test ## outages of 1 s to 10 minutes, and how soon delivery was back (15 minutes)
	$(BIN)/python -m tests.outages $(ARGS)

fuzz: $(VENV)/.fuzz ## look for inputs that break a parser (MINUTES=60 for each)
	$(BIN)/python -m fuzz --minutes $(MINUTES) $(ARGS)

brokers:
	@sh tools/install-programs.sh rabbitmq-server redis-server

programs:
	@sh tools/install-programs.sh rabbitmq-server redis-server chromium chromium-driver

clean: ## remove the virtual environments and what the tools have left
	rm -rf .venv* build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis mutants

$(BIN)/python:
	@python="$(PYTHON)"; [ -n "$$python" ] || python=$$(sh tools/find-python.sh) || exit 1; \
	echo "Making $(VENV) with $$python"; "$$python" -m venv --clear $(VENV)

# One stamp for each set of extras: what is installed already isn't installed again.
$(VENV)/.%: $(BIN)/python setup.cfg pyproject.toml
	@echo "Installing leekfanout[$*] into $(VENV)"
	@$(PIP_INSTALL) $(CONSTRAINTS) --editable ".[$*]"
	@touch $@
