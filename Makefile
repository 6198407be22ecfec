# Everything that contributors and CI run.  git, make and Python are enough: if uv
# is missing, or too old to read uv.lock, it is installed into .uv/.
#
#   make test                        run the tests with the default interpreter, in .venv/
#   make test PYTHON=3.13            use another interpreter, in .venv-3.13/
#   make test ARGS="-k retry" COVERAGE=    run some of the tests, without coverage

PYTHON =
ARGS =
COVERAGE = --cov --cov-report=term-missing:skip-covered
UV_VERSION = 0.13.9
OCB_VERSION = v0.159.0
FASTAPI = integrations/fapilog-fastapi
COLLECTOR = collector-config/build/otelcol-fapilog
COMPOSE_GO_VERSION = v2.16.2
COMPOSE_SPEC = collector-config/build/compose-spec

VENV = .venv
export UV_PROJECT_ENVIRONMENT = $(VENV)
ifneq ($(PYTHON),)
VENV = .venv-$(notdir $(PYTHON))
# uv finds pyenv's shims on PATH, which fail for versions that are not active, so
# pyenv is asked for the path of the interpreter itself.
PYENV_PREFIX := $(shell pyenv prefix $(PYTHON) 2>/dev/null)
export UV_PYTHON = $(if $(PYENV_PREFIX),$(PYENV_PREFIX)/bin/python,$(PYTHON))
endif

UV_OWN = .uv/$(UV_VERSION)/bin/uv
UV := $(shell uv export --frozen --quiet --only-group lint >/dev/null 2>&1 && echo uv || echo $(UV_OWN))
UV_READY = $(filter $(UV_OWN),$(UV))
RUN = $(UV) run --no-sync
PYTEST = pytest --numprocesses=auto --maxprocesses=4 --dist=worksteal $(ARGS)
# The tests of the repository itself need the linters and the source tree.
PYTEST_INSTALLED = bin/$(PYTEST) --ignore=tests/test_repository.py

.DEFAULT_GOAL := help
.PHONY: help demo test thorough check lint types layers docs snippets lock fmt golden bench \
	bench-fastapi bench-promises ids faults workers soak stalls collector compose \
	wheel test-wheel test-oldest interpreter sync clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(UV_READY) ## Show fapilog at work: an application, and its logs and traces at a receiver
	@$(UV) sync --locked --quiet --inexact --no-default-groups --extra demo
	@$(RUN) fapilog demo $(ARGS)

test: sync ## Run the tests with coverage; fails below 95 %
	$(RUN) $(PYTEST) $(COVERAGE)

thorough: sync ## Run the tests with a thousand examples of each property
	HYPOTHESIS_PROFILE=thorough $(RUN) $(PYTEST)

check: lint types layers lock docs snippets ## Run every check that is not a test

lint: sync ## Lint, and check the formatting
	$(RUN) ruff check
	$(RUN) ruff format --check

types: sync ## Type-check the package and the tests
	$(RUN) mypy

layers: sync ## Check that imports go down only
	$(RUN) lint-imports --no-logo --no-cache

lock: $(UV_READY) ## Check that uv.lock belongs to pyproject.toml
	$(UV) lock --check

docs: sync ## Build the documentation; warnings are errors
	$(RUN) sphinx-build -E -W -n --keep-going -q -b html docs docs/_build/html

snippets: sync ## Run the Python snippets of README.md and docs/
	$(RUN) pytest -q README.md docs

fmt: sync ## Format the code and fix what the linter can
	$(RUN) ruff check --fix-only
	$(RUN) ruff format

golden: sync ## Print the table of golden cases; fails if a bridge makes a different record
	@$(RUN) python -m tests.golden

bench: sync ## Print the performance figures
	$(RUN) python benchmarks/run.py $(ARGS)

bench-fastapi: sync ## Print the cost of logging in a FastAPI application (needs wrk)
	$(RUN) python benchmarks/web/run.py $(ARGS)

bench-promises: sync ## Print what libraries do in a burst, an outage, at exit, and with secrets
	$(RUN) python benchmarks/promises/run.py $(ARGS)

ids: sync ## Print the ids of records from nine places in each of 1,000 concurrent requests
	$(RUN) python -m tests.fastapi.ids

faults: sync ## Play every fault against every remote sink; fails if a record is unaccounted for
	$(RUN) python -m tests.faults $(ARGS)

workers: sync ## Recycle and kill 1,000 workers of a server, and compare their sums with the truth
	@$(RUN) python -m tests.fastapi.workers $(ARGS)

soak: sync ## Run ten minutes of load with outages, a SIGKILL and refused credentials
	$(RUN) python -m tests.faults.soak $(ARGS)

stalls: sync ## Print how long hostile texts hold the interpreter; fails if time outgrows length
	@$(RUN) python -m tests.stalls $(ARGS)

collector: $(COLLECTOR) ## Build the OpenTelemetry Collector for some tests (needs Go and some minutes)

$(COLLECTOR): collector-config/builder.yaml
	@command -v go >/dev/null || { echo "make collector needs Go: https://go.dev/dl/" >&2; exit 1; }
	GOBIN=$(CURDIR)/collector-config/build go install go.opentelemetry.io/collector/cmd/builder@$(OCB_VERSION)
	cd collector-config && CGO_ENABLED=0 build/builder \
		--config builder.yaml --skip-strict-versioning --ldflags="-s -w"
	cd collector-config && build/otelcol-fapilog validate --config base.yaml --config gateway.yaml

compose: $(COMPOSE_SPEC) ## Check the compose files with the library of Docker Compose (needs Go)
	$(COMPOSE_SPEC) docker-compose.yml >/dev/null
	$(COMPOSE_SPEC) examples/docker/compose.yaml >/dev/null

$(COMPOSE_SPEC):
	@command -v go >/dev/null || { echo "make compose needs Go: https://go.dev/dl/" >&2; exit 1; }
	GOBIN=$(CURDIR)/collector-config/build go install github.com/compose-spec/compose-go/v2/cmd@$(COMPOSE_GO_VERSION)
	mv collector-config/build/cmd $@

wheel: $(UV_READY) ## Build the wheel and try it without extras in its own environment
	rm -rf dist
	$(UV) build --quiet --all-packages --out-dir dist
	$(UV) venv --quiet --clear .venv-wheel
	$(UV) pip install --quiet --python .venv-wheel dist/fapilog-[0-9]*.whl
	.venv-wheel/bin/python -I .ci/smoke.py

test-wheel: wheel ## Run the tests against the built wheel
	$(UV) pip install --quiet --python .venv-wheel --group test \
		"$$(echo dist/fapilog-[0-9]*.whl)[all,demo]" dist/fapilog_fastapi-*.whl
	PYTHONSAFEPATH=1 .venv-wheel/$(PYTEST_INSTALLED)

test-oldest: $(UV_READY) ## Run the tests with the oldest dependencies that pyproject.toml allows
	$(UV) venv --quiet --clear .venv-oldest
	$(UV) pip compile --quiet --python .venv-oldest --resolution lowest-direct --all-extras \
		--no-emit-package fapilog --output-file .venv-oldest/oldest.txt \
		pyproject.toml $(FASTAPI)/pyproject.toml
	$(UV) pip install --quiet --python .venv-oldest --constraint .venv-oldest/oldest.txt \
		--group test --editable ".[all,demo]" --editable $(FASTAPI)
	.venv-oldest/$(PYTEST_INSTALLED)

# Prints the interpreter that PYTHON= names; fails if it is not installed.
interpreter: $(UV_READY)
	@$(UV) python find --no-project --no-python-downloads $(UV_PYTHON)

sync: $(UV_READY) ## Install everything into .venv: extras, fapilog-fastapi, test tools
	@$(UV) sync --locked --quiet --all-packages --all-extras

$(UV_OWN):
	@python3 -m venv --clear .uv/$(UV_VERSION) || { \
		echo "python3 cannot create virtual environments: install python3-venv (apt-get install python3-venv)" >&2; \
		rm -rf .uv/$(UV_VERSION); exit 1; }
	@.uv/$(UV_VERSION)/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

clean: ## Remove everything that make created, except the collector
	rm -rf .uv .venv .venv-* dist docs/_build htmlcov .coverage .coverage.* \
		.hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
