# GNU make 3.81 (which macOS has) and any POSIX sh will do. What is installed, and how: scripts/setup.sh.
.POSIX:
.SUFFIXES:
.NOTPARALLEL:
.PHONY: help setup setup-dev demo docs test test-long lint format dist clean distclean

# Where Debian and Homebrew keep the broker, whether or not a user's PATH has it.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin:/opt/homebrew/bin:/opt/homebrew/sbin
# The tests start hundreds of programs. Without compiled files each would compile all its modules again.
export PYTHONDONTWRITEBYTECODE :=

BIN = .venv/bin
# More for the command: make demo SIMULATE="--rounds 3", make test PYTEST="-k round".
SIMULATE =
PYTEST =

help: ## This list (the default)
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' Makefile
	@echo
	@echo '  PYTHON=python3.12 make setup   uses that interpreter (3.11 or later)'
	@echo '  TORCH_INDEX=URL make setup     takes torch and torchvision from another package index'

setup: ## Install Mosquitto, if it is missing, and fl-mqtt into .venv
	@sh scripts/setup.sh

setup-dev: ## The same, and what the tests need
	@sh scripts/setup.sh --dev

demo: setup ## Train 20 edges for 10 rounds through a real broker, then ask them for a prediction
	$(BIN)/fl-mqtt demo $(SIMULATE)

docs: setup ## Build the documentation site into site/, and check all its links
	@sh scripts/setup.sh --docs
	$(BIN)/python -m scripts.site.assemble build/docs
	$(BIN)/zensical build --strict --clean

lint: setup-dev ## Style, types, which package may import what, and what bandit finds
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit -q -c pyproject.toml -r aggregator edge_client shared fl_mqtt

# Four at a time, since tests mostly wait; those of the most patience come first. Each process collects them all, and
# would compile what is not compiled.
test: setup-dev ## All tests but the long ones
	@$(BIN)/python -m compileall -q aggregator edge_client shared fl_mqtt tests/support
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder -m 'not long' $(PYTEST)

test-long: setup-dev ## The tests that take minutes
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m long $(PYTEST)

format: setup-dev ## Let ruff format the sources and sort their imports
	$(BIN)/ruff check --select I --fix .
	$(BIN)/ruff format .

dist: ## Build the wheel and the source archive into dist/, and try the wheel in a clean environment
	@sh scripts/try_wheel.sh

clean: ## Remove caches and builds
	rm -rf build dist site .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name .venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## Remove .venv as well (what runs have left in runs/ stays)
	rm -rf .venv
