# Every task of the workspace; README, CI and pre-commit call these and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROTOS := $(wildcard proto/m2ib/*/*.proto)
SERVICES := $(shell grep -l "^service " $(PROTOS))
EXPORTER := $(wildcard $(addprefix export/m2ib_export/,*.py *.txt families/*.py demo/__init__.py demo/checkpoint/*) proto/m2ib/v1/*_pb2.py)
DEMO_TEXT := right mid zone mass
WORKERS ?= 2
BENCHMARKS := eager roofline mask rows startup export_cost growth load

# A file's tests stay together: they share servers. The slow ones need the memory for themselves.
SIDE_BY_SIDE := --numprocesses $(WORKERS) --dist loadfile

.PHONY: install proto format lint test test-all soak demo bench bench-official fuzz clean

install: $(VENV)/.installed  ## Install the four distributions, editable, with their tools.

$(VENV)/.installed: constraints.txt requirements-dev.txt $(wildcard */pyproject.toml)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -r requirements-dev.txt -e proto -e client -e 'server[cpu]' -e export
	touch $@

proto: install  ## Generate the Python code of the wire contract.
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -Iproto --python_out=proto --mypy_out=quiet:proto $(PROTOS)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -Iproto --grpc_python_out=proto --mypy_grpc_out=quiet:proto $(SERVICES)

format: install  ## Rewrite the code in the house's format.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/buf format --write

lint: install  ## Check format, style, types, layers, spelling, and that generated code is fresh.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file bench/mypy.ini
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	$(BIN)/python tests/contract/fresh_proto.py

test: install  ## Run the tests that fit into ten minutes on two cores.
	$(BIN)/pytest -m 'not slow and not soak' $(SIDE_BY_SIDE)

test-all: install  ## Run every test but the soak, full-size architectures included.
	$(BIN)/pytest -m 'not slow and not soak' --hypothesis-profile deep $(SIDE_BY_SIDE)
	$(BIN)/pytest -m slow --hypothesis-profile deep

soak: install  ## Mix calls of every kind for ten minutes (M2IB_SOAK_SECONDS) and look for what is lost or leaks.
	$(BIN)/pytest -m soak -s tests/soak

fuzz: install  ## Break images, messages and calls in new ways, each for M2IB_FUZZ_SECONDS (300); finds are in out/fuzz.
	$(BIN)/pip install --quiet --upgrade --target out/fuzz/tools -r tests/fuzz/requirements.txt
	for target in images messages inferences changes; do \
	  PYTHONPATH=out/fuzz/tools:tests $(BIN)/python -m fuzz $$target $${M2IB_FUZZ_SECONDS:-300} || exit 1; done
	$(BIN)/pytest --hypothesis-profile endless tests/e2e/test_fuzz*.py tests/unit/server/test_imaging_fuzz.py \
	  tests/unit/server/test_access_fuzz.py --timeout 3600

models/demo/manifest.json: $(VENV)/.installed $(EXPORTER)
	mkdir -p models
	$(BIN)/m2ib-export demo models/demo --force

demo: models/demo/manifest.json  ## Explain a phantom film with the demo model, offline; leave the overlay in out/.
	mkdir -p out
	$(BIN)/python -m m2ib_export.demo phantom --seed 22 --finding mass --finding effusion --out out/phantom.dcm
	$(BIN)/m2ib explain out/phantom.dcm "$(DEMO_TEXT)" --overlay out/overlay.png --effort specific --local --models models
	@echo
	@echo "The film is out/phantom.dcm, the map over it out/overlay.png. Next, a server of your own:"
	@echo
	@echo "    $(BIN)/m2ib-server serve --models models"
	@echo "    $(BIN)/m2ib explain out/phantom.dcm \"$(DEMO_TEXT)\" --overlay out/overlay.png --effort specific"

bench: install  ## Run the benchmarks that need nothing from outside; leave their reports in out/bench.
	for name in $(BENCHMARKS); do PYTHONPATH=tests $(BIN)/python bench/$$name.py || exit 1; done

bench-official: install  ## Compare with a checkout of the official code: make bench-official CHECKOUT=path.
	PYTHONPATH=tests $(BIN)/python bench/official.py --checkout "$(CHECKOUT)"

clean:  ## Remove what the other targets made.
	rm -rf $(VENV) models out
