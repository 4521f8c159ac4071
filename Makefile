# The commands of editpairs. `make` alone lists them.

MANIFEST ?= manifests/toybox.yaml
RUN ?= runs/toybox
STAGE ?= filter
SHEET ?= $(RUN)/contact-sheet.png
ARGS ?=
MODEL ?= toybox/weights/editor
N ?= 30
KILLS ?= 1000

BIN := .venv/bin
export PYTHONPATH := $(CURDIR)
# Where it is set, every worker would compile torch and its companions anew: a third of the tests' time.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup generate rerun status inspect edit test test-full chaos lint toybox toybox-eval clean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/:/' | awk -F: '{printf "  make %-16s %s\n", $$1, $$2}'
	@echo
	@echo "  Variables: MANIFEST=$(MANIFEST)  RUN=$(RUN)  STAGE=$(STAGE)  ARGS='--set key=value --wave N ...'"

setup: .venv/ready  ## create .venv with everything (a minute, 6 GB)

.venv/ready: pyproject.toml constraints.txt
	@test -x $(BIN)/python || python3 -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[test]'
	@touch $@

generate: setup  ## run the pipeline, or what is missing of it: make generate [MANIFEST=..] [ARGS='--wave 1']
	@$(BIN)/editpairs generate $(MANIFEST) $(ARGS)

rerun: setup  ## run one stage again, then what follows: make rerun STAGE=filter [ARGS='--set ..']
	@$(BIN)/editpairs rerun $(MANIFEST) --stage $(STAGE) $(ARGS)

status: setup  ## how far a run is: make status [RUN=runs/toybox]
	@$(BIN)/editpairs status $(RUN)

inspect: setup  ## a table and a contact sheet of pairs: make inspect [RUN=..] [SHEET=..]
	@$(BIN)/editpairs inspect $(RUN) --out $(SHEET) $(ARGS)

edit: setup  ## draw a picture, edit it three times in a row, keep every turn: make edit [MODEL=..]
	@rm -rf runs/edit
	@$(BIN)/python -m toybox.world.draw runs/edit/picture.png --seed 3
	@$(BIN)/editpairs edit $(MODEL) runs/edit/picture.png "make it night" "paint the car yellow" \
		"remove the mushroom" --predictor toybox/weights/task_predictor --out runs/edit/turns
	@echo "see runs/edit/turns/sheet.png"

test: setup  ## lint, types and tests (two workers)
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@told=$$(mktemp); \
	$(BIN)/mypy > $$told 2>&1 & types=$$!; \
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS); tests=$$?; \
	wait $$types; types=$$?; cat $$told; rm $$told; exit $$((tests | types))

test-full: setup  ## models at their published sizes, random weights (24 GB of memory, 10 minutes)
	@$(BIN)/python -m pytest -m full $(ARGS)

chaos: setup  ## random faults over toybox runs, then kills of cheap stages: make chaos N=30 KILLS=1000
	@$(BIN)/python -m benchmarks.chaos --faults $(N)
	@$(BIN)/python -m tests.kills --kills $(KILLS)

lint: setup  ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

toybox: setup  ## train the toybox's models from nothing (resumable; hours on 2 cores)
	@for recipe in recipes.train_autoencoder recipes.train_diffusion recipes.train_language_model recipes.train_detector \
		recipes.train_segmenter recipes.train_clip evaluation.train_judge recipes.train_task_predictor \
		recipes.train_transformer; do \
		$(BIN)/python -m toybox.$$recipe || exit 1; \
	done

toybox-eval: setup  ## measure the toybox's models and 40 edits a task (figures into toybox/; half an hour)
	@$(BIN)/editpairs generate manifests/toybox.yaml --set name=toybox-eval --set rows=440 --set repeats=2
	@$(BIN)/python -m toybox.evaluation.evaluate runs/toybox-eval
	@$(BIN)/editpairs inspect runs/toybox-eval --rows 48 --seed 2 --out toybox/kept-pairs.png

clean:  ## remove the environment and the caches (runs and weights stay)
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
