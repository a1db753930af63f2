# The commands of the course; `make` alone lists them.
#
# Plain enough for the make that macOS ships (GNU make 3.81). Everything runs in .venv, which the
# first command that needs it sets up from requirements.lock.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run lab test check notebooks lock clean static test-data quality bench

VENV  := .venv
PY    := $(VENV)/bin/python
READY := $(VENV)/.ready
HALF  := $(VENV)/.half-installed

# PYTHON=/path/to/python chooses the interpreter that makes .venv; otherwise the first of these
# that is new enough.
PYTHON ?=
PYTHONS := $(or $(PYTHON),python3 python3.13 python3.12 python3.11)
OLD    := import sys, venv; sys.exit(sys.version_info < (3, 11))

# `python`, `torchrun` and the rest mean this project's own in every cell and script.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

# Commands run in folders of their own: a folder given relative to this one is made absolute.
ifneq ($(COURSE_DATA),)
override COURSE_DATA := $(shell cd "$(COURSE_DATA)" 2>/dev/null && pwd || echo "$(COURSE_DATA)")
export COURSE_DATA
endif

# The stamp says that the installation came to its end. One that was cut off is made anew: pip has
# kept the downloads. The lock has versions, no hashes (CONTRIBUTING.md says why).
$(READY): requirements.lock pyproject.toml
	@if [ ! -e $(HALF) ] && $(PY) -c 'import pip; $(OLD)' 2>/dev/null; then exit 0; fi; \
	for python in $(PYTHONS); do \
	    if "$$python" -c '$(OLD)' 2>/dev/null; then \
	        echo "Making $(VENV) with $$python, $$("$$python" --version)."; \
	        "$$python" -m venv --clear $(VENV) && exit 0 || exit 1; \
	    fi; \
	done; \
	echo "The course needs Python 3.11 or newer with its venv module. Looked for: $(PYTHONS)." >&2; \
	echo "Install one, or say where it is: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; \
	exit 1
	@touch $(HALF)
	@echo "Installing the packages of requirements.lock: once, about 7 GB on disk. It takes some"
	@echo "minutes; the last of them are silent."
	$(PY) -m pip install --disable-pip-version-check -r requirements.lock
	$(PY) -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e .
	@mv $(HALF) $@

help:  ## show this list
	@echo "make TARGET, where TARGET is one of"
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/\1#\2/p' Makefile \
	    | while IFS='#' read -r name text; do printf '  %-10s %s\n' "$$name" "$$text"; done

LESSON ?= 11
ARGS   ?=

run: $(READY)  ## run a lesson from end to end: make run LESSON=11 ARGS="-p world_size=4"
	$(VENV)/bin/course run $(LESSON) $(ARGS)

# No questions: tools/jupyter turns the news prompt off, root is let in (rented machines have no other
# user), and `python3` is the kernel of .venv. What is open where is remembered in .cache, apart from
# your other projects. ARGS="--no-browser --port=9000" and the like go to JupyterLab.
lab: $(READY)  ## open JupyterLab at the first lesson
	@echo "JupyterLab opens in your browser; if not, open the address below. Control-C, twice, ends it."
	@JUPYTER_PREFER_ENV_PATH=1 \
	JUPYTER_CONFIG_PATH="$(CURDIR)/tools/jupyter$${JUPYTER_CONFIG_PATH:+:$$JUPYTER_CONFIG_PATH}" \
	JUPYTER_RUNTIME_DIR="$(CURDIR)/.cache/jupyter/runtime" \
	JUPYTERLAB_WORKSPACES_DIR="$(CURDIR)/.cache/jupyter/workspaces" \
	    $(PY) -m jupyterlab --log-level=ERROR --ServerApp.root_dir="$(CURDIR)" \
	    --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb \
	    $(if $(filter 0,$(shell id -u)),--allow-root) $(ARGS)

# Tests read data from a folder of their own and never download, so that they see the same thing on
# every machine. Real data are unpacked there if a checkout of them lies beside this one; without
# any, the tests use the synthetic stand-ins. COURSE_DATA=… points them at another folder.
SHARED_DATA ?= ../shared/data
TEST_DATA   := $(or $(COURSE_DATA),$(CURDIR)/.cache/data)
TEST        := COURSE_DATA="$(TEST_DATA)" COURSE_OFFLINE=1 $(PY) -m pytest
NBMAKE      := COURSE_PRESET=smoke $(TEST) --nbmake --nbmake-timeout=300 --timeout=1200 --durations=0

test: $(READY) static test-data  ## lint, compare notebooks with sources, run every test and every notebook
	$(TEST)
	$(NBMAKE) notebooks solutions exercises
	COURSE_START_METHOD=spawn $(NBMAKE) notebooks/11_*.ipynb

check: $(READY) static test-data  ## the fast part of `make test`, for the inner loop
	$(TEST) -m "not faults and not slow"

static: $(READY)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m course_lib.authoring check

test-data: $(READY)
	@if [ -z "$(COURSE_DATA)" ] && [ -f "$(SHARED_DATA)/unpack" ]; then \
	    $(PY) "$(SHARED_DATA)/unpack" .cache/data >/dev/null; \
	fi
	@if [ -n "$$(ls "$(TEST_DATA)" 2>/dev/null)" ]; then \
	    echo "The tests use the data in $(TEST_DATA)."; \
	else \
	    echo "No data in $(TEST_DATA): the tests use synthetic stand-ins."; \
	fi

quality: $(READY) test-data  ## lessons on real data, their numbers against the targets
	COURSE_DATA="$(TEST_DATA)" $(PY) tools/quality.py $(ARGS)

# The peers are installed into .cache/bench, pinned; .venv stays as the lock has it.
bench: $(READY)  ## measure launching and training against peers (about 5 minutes)
	PYTHONPATH="$(CURDIR)/tools$${PYTHONPATH:+:$$PYTHONPATH}" $(PY) -m bench $(ARGS)

notebooks: $(READY)  ## build the notebooks from sources/
	$(PY) -m course_lib.authoring build

# Needs uv (pip install uv). Keeps every version that still fits; UPGRADE=--upgrade takes the newest.
UV      ?= uv
UPGRADE ?=

lock:  ## write requirements.lock anew from pyproject.toml (needs uv)
	@command -v "$(UV)" >/dev/null || { \
	    echo "make lock needs uv: pip install uv, or make lock UV=/path/to/uv" >&2; exit 1; }
	"$(UV)" pip compile --universal --python-version 3.11 --extra dev --quiet $(UPGRADE) \
	    --no-emit-index-url --no-emit-find-links --no-header --no-annotate \
	    --output-file requirements.lock pyproject.toml

clean:  ## remove caches and build folders; .venv and your runs/ stay
	rm -rf build dist .cache .pytest_cache .ruff_cache
	find course_lib tests tools sources -name __pycache__ -prune -exec rm -rf {} +
