# Each target sets up the environment if necessary, then runs.
# Not every shell expands the ~ in `make VENV=~/folder`.
override VENV := $(patsubst ~/%,$(HOME)/%,$(or $(VENV),.venv))
override PYTHON := $(patsubst ~/%,$(HOME)/%,$(PYTHON))
ARGS =

export RUNTIME VENV PYTHON

.PHONY: help setup demo test lint bench

help:
	@echo 'make setup   create the environment that the other targets use'
	@echo 'make demo    run the embedded experiment: glyphs100, five steps of 20 classes'
	@echo 'make test    run the linter and the tests'
	@echo 'make lint    run the linter'
	@echo 'make bench   run the benchmarks'
	@echo 'Options, for example "make demo RUNTIME=tf2":'
	@echo '  ARGS=...      flags for imagenet_main.py (demo), pytest (test) or the benchmarks (bench),'
	@echo '                further requirements files (setup): requirements/plot.txt for figures'
	@echo '  RUNTIME=...   cpu, gpu:    TensorFlow 1.15 for CPUs or NVIDIA GPUs, Python 3.7'
	@echo '                tf2:         TensorFlow 2.15.1, Python 3.9 to 3.11'
	@echo '                tf2-newest:  TensorFlow 2.21, Python 3.12 or 3.13'
	@echo '                system:      the TensorFlow that PYTHON (default: python3) has'
	@echo '                By default, the set-up takes what suits the machine.'
	@echo '  VENV=...      folder of the environment (default: .venv)'
	@echo '  PYTHON=...    the Python to create the environment with'

setup:
	@sh requirements/setup.sh $(ARGS)

demo:
	@sh requirements/setup.sh
	"$(VENV)/bin/python" imagenet_main.py --dataset=glyphs100 $(ARGS)

test:
	@sh requirements/setup.sh requirements/test.txt requirements/plot.txt
	"$(VENV)/bin/python" -m ruff check . --extend-exclude "$(VENV)"
	CUDA_VISIBLE_DEVICES= "$(VENV)/bin/python" -m pytest -n 2 --dist worksteal $(ARGS)

lint:
	@sh requirements/setup.sh requirements/test.txt
	"$(VENV)/bin/python" -m ruff check . --extend-exclude "$(VENV)"

bench:
	@sh requirements/setup.sh
	"$(VENV)/bin/python" tests/bench/run.py $(ARGS)
