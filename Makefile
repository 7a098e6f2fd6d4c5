# Everything a new machine needs: `make demo` and `make test`. `make` alone prints this list.
.DEFAULT_GOAL := help
VENV ?= .venv
PYTHON ?= python3
# `make demo TORCH=cpu` takes PyTorch's own CPU builds (200 MB instead of 5 GB), where they can be reached.
TORCH ?= default
MMCAT_HOME ?= $(CURDIR)/.mmcat
DEMO_ARGS ?=
PYTEST_ARGS ?=
CHAOS_ARGS ?=
FUZZ_ARGS ?=
SOAK_ARGS ?=
BENCH_ARGS ?=
export MMCAT_HOME

bin := $(VENV)/bin
backend := $(if $(filter-out default,$(TORCH)),--torch-backend=$(TORCH),)
installed := $(VENV)/.installed

.PHONY: help install demo test fuzz chaos soak bench lint format kafka constraints clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(installed) ## make the environment $(VENV) and install everything into it

$(installed): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(bin)/python -m pip install --quiet uv
	$(bin)/uv pip install --compile-bytecode --python $(bin)/python --constraint constraints.txt $(backend) --editable '.[local,train,cpu,calibrate,bulk,mecab,test]'
	@touch $@

demo: $(installed) ## train a small model, stream 500 listings through it, print what came out (DEMO_ARGS=...)
	@$(bin)/mmcat demo $(DEMO_ARGS)

test: $(installed) kafka ## run every test, on real parts where they can be had (PYTEST_ARGS=...)
	$(bin)/python -m pytest $(PYTEST_ARGS)

fuzz: $(installed) ## decode 20,000 broken photos with memory capped, half a minute (FUZZ_ARGS="--count 200000 --first 20000")
	$(bin)/python -m tests.fuzz.run $(FUZZ_ARGS)

chaos: $(installed) kafka ## run the fault matrix; goes on where it stopped, writes docs/reliability.md (CHAOS_ARGS="--lanes 4")
	$(bin)/python -m tests.chaos.matrix $(CHAOS_ARGS)

soak: $(installed) kafka ## half an hour under load and faults; memory, descriptors, lag as soak.png (SOAK_ARGS=...)
	$(bin)/python -m tests.chaos.soak $(SOAK_ARGS)

bench: $(installed) kafka ## run every benchmark on an idle machine, half an hour; rewrites tests/benchmarks/RESULTS.md
	$(bin)/python -m tests.benchmarks.results $(BENCH_ARGS)

lint: $(installed) ## ruff, mypy --strict, codespell
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy
	$(bin)/codespell

format: $(installed) ## let ruff order imports and lay out the code
	$(bin)/ruff check --fix .
	$(bin)/ruff format .

kafka: ## fetch Apache Kafka's jars once (Java and Maven; without them the tests that need it skip)
	@if [ -n "$$(ls $(MMCAT_HOME)/kafka/libs/kafka_*.jar 2>/dev/null)" ]; then :; \
	elif command -v java >/dev/null && command -v mvn >/dev/null; then \
	  echo "fetching Apache Kafka into $(MMCAT_HOME)/kafka/libs (43 MB, once)"; \
	  mvn --quiet --batch-mode --file tests/kafka/pom.xml dependency:copy-dependencies -DincludeScope=runtime \
	    -DoutputDirectory=$(MMCAT_HOME)/kafka/libs || echo "Apache Kafka could not be fetched: tests that need it will skip"; \
	else echo "no java or mvn: tests that need Apache Kafka will skip"; fi

constraints: $(installed) ## pin what is installed now into constraints.txt
	$(bin)/uv pip freeze --python $(bin)/python --exclude-editable | grep -viE '^(uv|pip|setuptools)==' > constraints.txt

clean: ## remove the environment and everything under $(MMCAT_HOME)
	rm -rf $(VENV) $(MMCAT_HOME) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
