# make test        every unmarked test, in an environment that it makes
# make test-long   the counts and sizes that take minutes
# make bench       the tables of benchmarks/
# make lint        ruff

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
COMFYUI_PATH ?= $(firstword $(patsubst %/comfy/cli_args.py,%,$(wildcard $(HOME)/ComfyUI/comfy/cli_args.py ../../comfy/cli_args.py)))

.PHONY: test test-long bench lint clean

# torchvision is not ours: ComfyUI imports it, and tests compare against it
$(VENV)/ready: pyproject.toml $(if $(COMFYUI_PATH),$(COMFYUI_PATH)/requirements.txt)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch torchvision
	$(BIN)/python -m pip install --quiet -e ".[test]" \
		$(if $(COMFYUI_PATH),requests -r "$(COMFYUI_PATH)/requirements.txt")
	@# a torchaudio that was built for another torch keeps diffusers from being imported; only audio nodes miss it
	$(BIN)/python -m pip uninstall --quiet --yes torchaudio
	touch $@

test: lint
	$(BIN)/python -m pytest

test-long: $(VENV)/ready
	$(BIN)/python -m pytest -m long

lint: $(VENV)/ready
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .

bench: $(VENV)/ready
	$(BIN)/python -m benchmarks.apply

clean:
	rm -rf $(VENV) build dist *.egg-info
