# The same few commands for people and for CI. Each sets up what it needs and is quick the second time.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
UV     := $(BIN)/uv
READY  := $(VENV)/.ready
# the provider of the tests of single sign-on, where there is npm; without it they say why they are skipped
PROVIDER := $(if $(shell command -v npm),tests/support/oidc_provider/node_modules/.ready)
# A machine that keeps no bytecode would compile MLflow anew in each server and client: 5 s of processor time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help serve test test-long test-oldest lint format docs screenshots bench drill drill-after-test rehearse example release lock clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

serve: $(READY)  ## MLflow on http://localhost:5000, SQLite and files under ./headrace-data
	$(BIN)/headrace serve $(ARGS)

test: $(READY) $(PROVIDER) .venv-old-client/.ready .venv-container/.ready .venv-slim/.ready .venv-checkov/.ready .venv-deploy/.ready .venv-release/.ready  ## every test; ARGS='-k name' picks some
	$(BIN)/pytest $(or $(ARGS),-n auto --dist loadscope --no-loadscope-reorder)

test-long: $(READY)  ## the tests that generate their cases: 10 times as many, and others each time
	HEADRACE_TIMES=10 $(BIN)/pytest -m generated $(or $(ARGS),-n auto --dist loadscope --no-loadscope-reorder)

test-oldest: .venv-oldest/.ready  ## the differential suite with the oldest MLflow that is supported
	.venv-oldest/bin/pytest $(or $(ARGS),-n auto --dist loadscope --no-loadscope-reorder) tests/differential

lint: $(READY)  ## ruff and mypy (strict)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)  ## let ruff put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv-docs/.ready  ## docs/ as a site: build/site/index.html; a link that leads nowhere is an error
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --quiet

screenshots: $(READY)  ## docs/images/ui anew, by the browser tests; needs Chromium
	HEADRACE_SCREENSHOTS=1 $(BIN)/pytest tests/browser $(ARGS)

bench: $(READY)  ## Headrace beside stock MLflow and FastTrackML; ARGS='--quick' for a short one
	$(BIN)/python -m bench $(ARGS)

drill: $(READY)  ## kill, cut off and overload real servers under load, count what is lost; ARGS='--long' for hours, ARGS=kills for one
	$(BIN)/python -m drill $(DRILL) $(ARGS)

drill-after-test: test
	$(MAKE) drill

rehearse: $(READY) .venv-awscli/.ready .venv-deploy/.ready  ## from source to a running server: a real Docker engine, registry and TLS, moto as AWS
	rehearsal/run.sh $(ARGS)

example: $(READY)  ## the user guide's run, against the server of MLFLOW_TRACKING_URI (http://localhost:5000)
	$(BIN)/python examples/churn_xgboost.py $(ARGS)

release: .venv-release/.ready  ## dist/: what a release publishes; VERSION=0.2.0
	.venv-release/bin/python release/release.py $(VERSION)

lock: $(READY)  ## write the lock files of requirements/ anew
	$(BIN)/python requirements/lock.py $(ARGS)

clean:  ## remove the environments and the caches
	rm -rf $(VENV) .venv-* .pytest_cache .mypy_cache .ruff_cache .hypothesis

# An environment is ready when its stamp is newer than the locks that it was made from.
$(UV):
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt

$(READY): requirements/dev.txt pyproject.toml | $(UV)
	$(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements/dev.txt
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .
# Compiled once: each of the workers, servers and clients of `make test` that start together would do it by itself.
	@$(BIN)/python -W ignore -c "import mlflow.cli, mlflow.server.fastapi_app"
	@touch $@

$(PROVIDER): tests/support/oidc_provider/package-lock.json
	cd $(<D) && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

.venv-oldest/.ready: requirements/oldest.txt requirements/dev.txt pyproject.toml | $(UV)
	$(UV) venv --quiet --clear --python $(BIN)/python .venv-oldest
	$(UV) pip sync --quiet --python .venv-oldest/bin/python --require-hashes requirements/dev.txt
	$(UV) pip install --quiet --python .venv-oldest/bin/python --require-hashes --no-deps -r requirements/oldest.txt
	$(UV) pip install --quiet --python .venv-oldest/bin/python --no-deps --editable .
	@touch $@

.venv-%/.ready: requirements/%.txt | $(UV)
	$(UV) venv --quiet --clear --python $(BIN)/python .venv-$*
	$(UV) pip sync --quiet --python .venv-$*/bin/python --require-hashes requirements/$*.txt
	@touch $@
