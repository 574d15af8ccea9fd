# Meshwork: everything a person types. `make demo` and `make test` do their own set-up.
SHELL := /bin/sh
export PATH := $(CURDIR)/.venv/bin:$(PATH):/usr/sbin:/sbin
PYTEST_ARGS ?=

.PHONY: help setup setup-test setup-soak setup-bench demo up test check bench soak clean
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Create .venv with the mesh command (as root also installs missing Debian packages)
	@tools/setup.sh run
setup-test:
	@tools/setup.sh test
setup-soak:
	@tools/setup.sh soak
setup-bench: setup-test
	@tools/setup.sh bench

demo: setup ## The main job from manifest to traced request, in under a minute
	@mesh demo $(DEMO_ARGS)
up: setup ## Start a cluster in the foreground (Ctrl-C stops it and leaves nothing behind)
	@mesh up $(UP_ARGS)

test: setup-test ## All tests
	@pytest $(PYTEST_ARGS)
check: setup-test ## Lint, types, layers
	ruff check .
	ruff format --check .
	mypy
	lint-imports
bench: setup-bench ## Comparisons with Envoy, HAProxy, nginx and etcd; writes docs/benchmarks
	@python -m benchmarks $(BENCH_ARGS)
soak: setup-soak ## Long runs: SOAK_SECONDS (3600) of mixed load with flat memory, 10,000 idle clients; FUZZ_SECONDS (20) of fuzzing per target
	@ulimit -n $$(ulimit -Hn) && pytest -m soak -s tests/soak $(PYTEST_ARGS)

clean: ## Remove what set-up and tools made
	rm -rf .venv .envoy .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info build dist
