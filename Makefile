# `make demo` and `make test` set up what is missing in .venv first; nothing has to be done before.
PYTHON ?= python3
VENV_PYTHON := .venv/bin/python
# -W ignore below: the deprecation warnings of Detectron2's imports, which a user cannot act on

# A PYTHON that someone named rebuilds an environment made with another; the default one keeps it.
SETUP_FLAGS := $(if $(filter file,$(origin PYTHON)),--keep-interpreter)

.PHONY: help setup demo digits docs test test-oldest reference clean interpreter

help:
	@echo "make demo    set up what is missing, then prepare data, train, evaluate, draw pictures"
	@echo "make digits  the second data set: ten classes of digits on photographs, the same way"
	@echo "make docs    set up what is missing, then build the documentation site in site/"
	@echo "make test    set up what is missing, then check style and run all tests"
	@echo "make reference  write the reference page of the config keys"
	@echo "make setup   set up what is missing in .venv (a second run takes no time)"
	@echo "make test-oldest  the tests of every part on the lowest versions that setup.py allows"
	@echo "make clean   remove .venv"
	@echo "PYTHON=...   interpreter to use, >= 3.10 (default: python3); a Detectron2 it has is kept"

interpreter:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1 || { \
	    echo "PYTHON=$(PYTHON) is not a Python >= 3.10 but:" \
	        "`"$(PYTHON)" --version 2>&1 | head -n 1`." \
	        "Name one that is: make $(or $(firstword $(MAKECMDGOALS)),setup) PYTHON=/path/to/python3" >&2; \
	    exit 1; }

setup: interpreter
	@"$(PYTHON)" tools/setup_env.py $(SETUP_FLAGS)

demo: setup
	$(VENV_PYTHON) -W ignore -m retina_plugin.cli demo

digits: setup
	$(VENV_PYTHON) -W ignore -m retina_plugin.cli prepare digits
	$(VENV_PYTHON) -W ignore train_net.py --config-file configs/digits.yaml

docs: setup
	NO_MKDOCS_2_WARNING=1 $(VENV_PYTHON) -W ignore -m mkdocs build --clean --quiet
	@echo "open site/index.html"

test: setup
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check .
	$(VENV_PYTHON) -m pytest tests -n 2 --dist loadfile

reference: setup
	$(VENV_PYTHON) -W ignore -m retina_plugin.cli config --markdown > docs/reference/config.md

test-oldest: interpreter
	@"$(PYTHON)" tools/test_oldest.py

clean: interpreter
	@"$(PYTHON)" tools/setup_env.py --clean
