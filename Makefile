# Each target finds Python, makes the environment where it is not there yet, and runs.
RUNTIME ?=
VENV ?= .venv
PYTHON ?=
ARGS =

export RUNTIME VENV PYTHON

.PHONY: help setup demo test lint bench

help:
	@echo 'make setup   make the environment that the others use, and no more'
	@echo 'make demo    run the embedded experiment: glyphs100, ten steps of ten classes'
	@echo 'make test    run the linter and the tests'
	@echo 'make lint    run the linter'
	@echo 'make bench   run the benchmarks'
	@echo 'Each sets up what it needs first, in VENV (.venv). Options, as in "make demo RUNTIME=tf2":'
	@echo '  ARGS=...      flags for imagenet_main.py (demo), pytest (test) or the benchmarks (bench);'
	@echo '                further requirements (setup): requirements-plot.txt for figures'
	@echo '  RUNTIME=...   cpu: TensorFlow 1.15 for CPUs, gpu: for NVIDIA GPUs (both Python 3.7),'
	@echo '                tf2: TensorFlow 2.15.1 (Python 3.9 to 3.11), system: the TensorFlow 1.15 or'
	@echo '                2.0 to 2.15 that PYTHON (python3) has; chosen by itself otherwise'
	@echo '  VENV=...      another folder for the environment, to have several runtimes side by side'
	@echo '  PYTHON=...    the Python to make the environment with'

setup:
	@.ci/setup $(ARGS)

demo:
	@.ci/setup
	$(VENV)/bin/python imagenet_main.py --dataset=glyphs100 $(ARGS)

test:
	@.ci/setup requirements-test.txt requirements-plot.txt
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile $(ARGS)

lint:
	@.ci/setup requirements-test.txt
	$(VENV)/bin/python -m ruff check .

bench:
	@.ci/setup
	$(VENV)/bin/python tests/bench/run.py $(ARGS)
