# Every task of the workspace; README, CI and pre-commit call these and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROTOS := $(wildcard proto/m2ib/v1/*.proto)
PACKAGES := proto/m2ib client/m2ib_client server/m2ib_server export/m2ib_export

.PHONY: install proto format lint test test-all demo bench clean

install: $(VENV)/.installed  ## Install the four distributions, editable, with their tools.

$(VENV)/.installed: constraints.txt requirements-dev.txt $(wildcard */pyproject.toml)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -r requirements-dev.txt -e proto -e client -e 'server[cpu]' -e export
	touch $@

proto: install  ## Generate the Python code of the wire contract.
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -Iproto --python_out=proto --mypy_out=quiet:proto $(PROTOS)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -Iproto --grpc_python_out=proto --mypy_grpc_out=quiet:proto proto/m2ib/v1/attribution.proto

format: install  ## Rewrite the code in the house's format.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/buf format --write

lint: install  ## Check format, style, types, layers, spelling, and that generated code is fresh.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	$(BIN)/python tests/contract/fresh_proto.py

test: install  ## Run the tests that fit into ten minutes on two cores.
	$(BIN)/pytest -m 'not slow'

test-all: install  ## Run every test, full-size architectures included.
	$(BIN)/pytest

demo: install  ## Export the demo model, explain a phantom film, leave an overlay in out/.
	$(BIN)/python bench/demo.py

bench: install  ## Run every benchmark; bench/README.md says how to read them.
	$(BIN)/python -m bench

clean:  ## Remove what the other targets made.
	rm -rf $(VENV) models out
