# Everything a newcomer or CI runs. Each target makes .venv first and installs the exact versions of
# constraints-<python>.txt; `make test PYTHON=python3.12` uses another interpreter.

PYTHON ?= python3
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
ifeq ($(VERSION),)
$(error $(PYTHON) does not run; name a Python with PYTHON=)
endif
CONSTRAINTS := constraints-$(VERSION).txt
INSTALLED := .venv/.installed-$(VERSION)
# What is imported is compiled then: compiling all of 12,000 modules is half of what installing
# takes.
PIP_INSTALL := install -qq --disable-pip-version-check --no-compile
BIN := .venv/bin
# A step's scratch memory comes fresh from the system every time. Huge pages make that cheaper, and a
# process that keeps what it had saves it (benchmarks/huge_pages.py). Without glibc nobody reads it.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1
KEPT := glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=8589934592:glibc.malloc.top_pad=268435456
# A test keeps one core busy, and up to 3 GiB. Files stay whole, for what their tests share.
WORKERS := --numprocesses=2 --dist=loadfile

.PHONY: demo test test-all lint types floors format venv constraints clean

demo: export GLIBC_TUNABLES := $(GLIBC_TUNABLES):$(KEPT)
demo: $(INSTALLED)-run  ## the whole path on the procedural world, or on MEDIA=folder
	$(BIN)/sora demo --workdir runs/demo $(if $(MEDIA),--media "$(MEDIA)")

test: lint types floors  ## what CI runs
	$(BIN)/pytest -m "not slow" $(WORKERS)

test-all: lint types floors  ## also the slow tests: real footage, long runs
	$(BIN)/pytest $(WORKERS)

lint: venv  ## style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: venv  ## static types
	$(BIN)/mypy

floors: venv  ## which package may import which
	$(BIN)/lint-imports --no-logo

format: venv  ## fix style and format in place
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

venv: $(INSTALLED)-dev  ## .venv with everything that the tests need

$(INSTALLED)-run: setup.py $(CONSTRAINTS)
	@echo "installing into .venv (about a minute)"
	test -x $(BIN)/python$(VERSION) || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip $(PIP_INSTALL) -c $(CONSTRAINTS) -e ".[data,eval]"
	touch $@

$(INSTALLED)-dev: setup.py $(CONSTRAINTS)
	@echo "installing into .venv (about a minute)"
	test -x $(BIN)/python$(VERSION) || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip $(PIP_INSTALL) -c $(CONSTRAINTS) -e ".[data,pipelines,eval,scaling,fvd,gcs,dev]"
	touch $@ $(INSTALLED)-run

constraints-%.txt:
	@echo "sora_jax is tested on the Pythons that have a constraints file" \
		"($(wildcard constraints-*.txt)), and $(PYTHON) is $*: name another with PYTHON=" && exit 1

constraints:  ## resolve the newest versions that setup.py allows, and pin them
	$(PYTHON) -m venv --clear build/resolve
	build/resolve/bin/python -m pip $(PIP_INSTALL) -e ".[data,pipelines,eval,scaling,fvd,gcs,dev]"
	echo "# Exact versions for Python $(VERSION), written by \`make constraints\`." > $(CONSTRAINTS)
	build/resolve/bin/python -m pip freeze --exclude-editable >> $(CONSTRAINTS)

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
