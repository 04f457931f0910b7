# Everything a fresh machine with Python 3.11, pip and make needs; all of it lives in .venv.
PYTHON ?= python3.11
ENV := .venv
BIN := $(ENV)/bin
STAMP := $(ENV)/.installed-

.PHONY: demo test test-long audit lint docs bench clean

demo: $(STAMP)run                    ## simulate a record of thomas2021 and analyse it
	@mkdir -p demo
	$(BIN)/backaction simulate thomas2021 -o demo/record.h5 --duration "100 ms" --seed 1 --shot demo/shot.h5
	$(BIN)/backaction analyze thomas2021 demo/record.h5 --shot demo/shot.h5 -o demo/report
	@echo "open demo/report/index.html"

test: $(STAMP)dev                    ## all tests, slow ones included (at most 12 minutes on 2 cores)
	$(BIN)/python -m pytest -n 2

test-long: $(STAMP)dev               ## the property-based tests with 1000 examples each, 200 simulated campaigns and calibrations
	HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest -n 2
	$(BIN)/backaction sbc thomas2021_three --count 200

audit: $(STAMP)dev                   ## error rates of verdicts near V = 1, by simulation (hours); its table is docs/background/audit.md
	PYTHONPATH=tests $(BIN)/python -m support.audit --table docs/background/audit.md

lint: $(STAMP)dev                    ## style, docstrings, types, import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(STAMP)docs                   ## the documentation, into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "open site/index.html"

bench: $(STAMP)dev                   ## benchmarks against named peers
	$(BIN)/python benchmarks/run.py
	$(BIN)/python benchmarks/tracking.py
	$(BIN)/python benchmarks/inference.py

clean:
	rm -rf $(ENV) demo site report

$(BIN)/python:
	$(PYTHON) -m venv $(ENV)

$(STAMP)run: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(STAMP)dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

$(STAMP)docs: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,docs]"
	@touch $@
