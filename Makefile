# Python and make are all that a fresh machine needs. PYTHON names the interpreter that makes the environment.
PYTHON ?= python3
# Processes among which the tests are divided; each test runs on one thread.
WORKERS ?= 2
BIN := .venv/bin

.PHONY: install demo fer2013 test check

install: .venv/.ready

.venv/.ready: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: install
	$(BIN)/python -m demo

# FER2013=path/to/fer2013 names another place of the data; three hours of one core with units for bfloat16.
fer2013: install
	$(BIN)/python -m demo.fer2013 $(if $(FER2013),--data $(FER2013))

test: install
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
