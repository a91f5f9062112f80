# What people call; tools/set_up.py does the setting up, and takes a tenth of a second when nothing has changed.
PYTHON ?= python3
VENV ?= .venv
INPUT ?=
PIPELINE ?= depth_pipeline

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## Make the virtual environment with everything pinned (PYTHON=python3.12 for another interpreter)
	@$(PYTHON) tools/set_up.py $(VENV)

demo: setup  ## A pipeline on real ROS 2 topics: report and picture in out/ (INPUT=..., PIPELINE=detection_pipeline)
	@. tools/environment.sh && $(VENV)/bin/perception demo --pipeline $(PIPELINE) $(if $(INPUT),"$(INPUT)")

test: setup  ## Run the tests
	@. tools/environment.sh && $(VENV)/bin/python3 -m pytest $(ARGS)

lint: setup  ## Check style with ruff and types with mypy, the TensorRT file against its real bindings
	@$(VENV)/bin/ruff check .
	@mkdir -p build/links && cd build/links && $(abspath $(VENV))/bin/python3 ../../setup.py --quiet --version
	@$(VENV)/bin/mypy -p perception
	@$(VENV)/bin/mypy tools setup.py
	@$(VENV)/bin/python3 tools/tensorrt_stubs.py

clean:  ## Remove what was built here, the virtual environment too
	rm -rf $(VENV) build install log out *.egg-info

.PHONY: help setup demo test lint clean
