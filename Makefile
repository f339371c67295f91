# Two commands matter: `make quickstart` and `make test`. Both set up what they need in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: quickstart test slow vllm check clean

quickstart: $(VENV)/.installed
	$(BIN)/trialign quickstart --resume $(ARGS)

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(ARGS)

# What takes minutes: the real quickstart against its promises, the clean control, rebuilding a base.
slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow $(ARGS)

# vLLM for CPUs in an environment of its own, since it pins its own torch.
vllm:
	PYTHON="$(PYTHON)" .ci/vllm-env
	.venv-vllm/bin/python -m pytest -m vllm tests/vllm $(ARGS)

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) .venv-vllm build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
