# InstantID: every command sets up what it needs. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TESTS ?= tests
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Spinning OpenMP threads slow every other process on the machine down.
export OMP_WAIT_POLICY ?= PASSIVE
export GRADIO_ANALYTICS_ENABLED := False

.DEFAULT_GOAL := help
.PHONY: help setup run test lint fix evaluate bench pictures doctor clean

help: ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(READY) ## Install everything into .venv (done by the other commands too)

$(READY): requirements.txt requirements-dev.txt
	@echo "Setting up .venv: this takes a few minutes the first time ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --retries 10 --timeout 120 -r requirements.txt -r requirements-dev.txt
	@echo "Putting the GPU build of onnxruntime and the headless OpenCV on top ..."
	@# insightface brings the CPU onnxruntime and the desktop OpenCV, which write to the same folders: the last one wins.
	@if [ "$$(uname -s)" = Darwin ]; then \
	  $(BIN)/python -m pip install --quiet --force-reinstall --no-deps $$(grep -oE '^opencv-python-headless==[0-9.]+' requirements.txt); \
	else \
	  $(BIN)/python -m pip install --quiet --force-reinstall --no-deps $$(grep -oE '^(onnxruntime-gpu|opencv-python-headless)==[0-9.]+' requirements.txt); \
	fi
	@touch $(READY)
	@echo "Ready."

run: $(READY) ## Start the app on http://127.0.0.1:7860 (or $$PORT)
	$(BIN)/python app.py

test: $(READY) ## Run all tests (TESTS=tests/faces runs a part)
	$(BIN)/python -m pytest -m "not openvino" $(TESTS)
	@# OpenVINO and training's threads do not share a process well: its tests have one of their own.
	$(BIN)/python -m pytest -m openvino $(TESTS) || test $$? -eq 5

lint: $(READY) ## Check style and types
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

fix: $(READY) ## Mend style
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

evaluate: $(READY) ## Measure Pocket on PORTRAITS=folder
	$(BIN)/python -m instantid_demo evaluate --model pocket --portraits $(PORTRAITS) --report outputs/report

bench: $(READY) ## Measure speed on small modules
	$(BIN)/python -m benchmarks --synthetic tiny

pictures: $(READY) ## Draw the style tiles and photograph the app for docs/pictures
	$(BIN)/python -m instantid_demo.thumbnails
	$(BIN)/python -m pytest -q tests/browser/pictures.py

doctor: $(READY) ## Tell what is installed and what to do next
	$(BIN)/python -m instantid_demo doctor

clean: ## Remove .venv and caches, never your pictures
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
