# make run   install into .venv, then show the whole agent at work on this machine
# make test  install what the tests need, then run all of them
# make lint, make bench, make docs, make clean

PYTHON ?= python3
JOBS ?= 3
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
PACKAGE := setup.cfg pyproject.toml edfn_agent/__init__.py $(wildcard edfn_agent/*/*.pyx)

.PHONY: run test lint bench soak docs clean

run: $(STAMPS)/run
	$(BIN)/edfn-agent demo

test: $(STAMPS)/test
	packaging/system-packages collectors
	$(BIN)/python tests/side_by_side.py -j $(JOBS)

lint: $(STAMPS)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMPS)/test
	$(BIN)/python benchmarks/run.py

soak: $(STAMPS)/test
	$(BIN)/python benchmarks/soak.py
	$(BIN)/python benchmarks/large_object.py

docs: $(STAMPS)/test
	$(BIN)/python docs/generate.py

$(VENV)/bin/python:
	packaging/system-packages python
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools

# the build backend's remarks about itself are no news to whoever installs
export PYTHONWARNINGS = ignore

# editable, so that a change in the tree is a change in what runs
$(STAMPS)/run: $(VENV)/bin/python $(PACKAGE)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[all]'
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/test: $(STAMPS)/run
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test,lint]'
	@mkdir -p $(STAMPS) && touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info edfn_agent/*/*.c edfn_agent/*/*.so
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -type d -name __pycache__ -prune -exec rm -rf {} +
