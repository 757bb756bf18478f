# Two commands on a fresh machine:  make sweep   and   make test.  Both set up .venv first, once.
PYTHON ?= python3
BIN := .venv/bin
export WANDB_SILENT ?= true

.PHONY: sweep test check clean
.DEFAULT_GOAL := sweep

sweep: .venv/.ready          ## the main job: three ranks on the embedded pocket base, scored, with a diary
	$(BIN)/python train.py -m network_dim=8,32,128

test: .venv/.ready           ## everything that needs no GPU and takes under a minute each
	$(BIN)/python -m pytest

check: .venv/.ready          ## style and types
	$(BIN)/ruff check .
	$(BIN)/mypy

.venv/.ready: pyproject.toml requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv
