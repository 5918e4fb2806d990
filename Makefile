# make test        every unmarked test, in an environment that it makes
# make comfyui VERSION=v0.33.0 [FROM=a remote or a folder]   a ComfyUI and its environment in build/comfyui/v0.33.0
# make test COMFYUI=v0.33.0                                  the nodes' tests in it
# make test-long   the counts and sizes that take minutes
# make test-hpsv2  scores beside the hpsv2 package, in an environment of its own
# make demo        the whole method on a tiny model that comes with the package; the page is build/demo/report.html
# make fuzz        thousands of hostile inputs; the table of what became of them is then in build/fuzz.md
# make bench       what things cost, a table each; bench-score makes the hpsv2 package's environment for two of them
# make gpu         what only a card can tell: whether it computes the same, ComfyUI's memory and the trainer on it
# make lint        ruff

PYTHON ?= python3
VENV ?= .venv
FUZZ ?= 700
HPSV2 ?= .venv-hpsv2
HPSV2_BIN := $(HPSV2)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
FROM ?= https://github.com/Comfy-Org/ComfyUI
ifdef COMFYUI
VENV := build/comfyui/$(COMFYUI)/.venv
COMFYUI_PATH := $(CURDIR)/build/comfyui/$(COMFYUI)/ComfyUI
TESTS := tests/nodes
endif
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
COMFYUI_PATH ?= $(firstword $(patsubst %/comfy/cli_args.py,%,$(wildcard $(HOME)/ComfyUI/comfy/cli_args.py ../../comfy/cli_args.py)))
export COMFYUI_PATH

.PHONY: test comfyui demo test-long fuzz test-hpsv2 bench bench-score gpu lint clean

# torchvision and torchaudio are not ours: ComfyUI imports them, and tests compare against the first
$(VENV)/ready: pyproject.toml $(if $(COMFYUI_PATH),$(COMFYUI_PATH)/requirements.txt)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch torchvision torchaudio
	$(BIN)/python -m pip install --quiet -e ".[test]" \
		$(if $(COMFYUI_PATH),requests -r "$(COMFYUI_PATH)/requirements.txt")
	@# one that was built for another torch keeps diffusers, too, from being imported
	$(BIN)/python -c "import torchaudio" || $(BIN)/python -m pip uninstall --quiet --yes torchaudio
	touch $@

# two files at a time, a thread each: numbers are the same however many files run beside each other
test: export OMP_NUM_THREADS = 1
test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile $(TESTS)

# a folder that is a ComfyUI already is used where it lies; nothing is written into it
comfyui: ROOM = build/comfyui/$(or $(VERSION),$(error Say which: make comfyui VERSION=v0.33.0, a tag or a branch of ComfyUI))
comfyui:
	mkdir -p $(ROOM)
	test -e $(ROOM)/ComfyUI || \
		$(if $(wildcard $(FROM)/comfy/cli_args.py),ln -s "$(realpath $(FROM))",git clone --quiet --depth 1 --branch $(VERSION) "$(FROM)") $(ROOM)/ComfyUI
	$(MAKE) COMFYUI=$(VERSION) $(ROOM)/.venv/ready

test-long: $(VENV)/ready
	$(BIN)/python -m pytest -m long

demo: $(VENV)/ready
	$(BIN)/python -m trainer demo --out build/demo

fuzz: $(VENV)/ready
	FUZZ_CASES=$(FUZZ) FUZZ_SECONDS=300 $(BIN)/python -m pytest tests/fuzz tests/nodes/test_fuzz_nodes.py

lint: $(VENV)/ready
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .

bench: $(VENV)/ready
	for table in apply bases redenoise collect fit evaluate; do $(BIN)/python -m benchmarks.$$table || exit 1; done

gpu: $(VENV)/ready
	COMFYUI_PATH="$(COMFYUI_PATH)" $(BIN)/python -m benchmarks.gpu

$(HPSV2)/ready: pyproject.toml
	$(PYTHON) -m venv $(HPSV2)
	$(HPSV2_BIN)/python -m pip install --quiet --upgrade pip
	$(HPSV2_BIN)/python -m pip install --quiet torch torchvision
	$(HPSV2_BIN)/python -m pip install --quiet -e ".[hpsv2]"
	touch $@

test-hpsv2: $(HPSV2)/ready
	$(HPSV2_BIN)/python -m pytest tests/hpsv2_live.py

bench-score: $(HPSV2)/ready
	$(HPSV2_BIN)/python -m benchmarks.score
	$(HPSV2_BIN)/python -m benchmarks.evaluate

clean:
	rm -rf $(VENV) $(HPSV2) build dist *.egg-info
