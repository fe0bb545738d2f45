# make repro and make test need Python 3.11, 3.12 or 3.13 and Git, nothing else. make help lists what there is.

PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)

# Two processes of one thread each. Which tests stay in one process, and in which order they come, tests/conftest.py says.
PYTEST = python -m pytest -n 2 --dist loadscope --no-loadscope-reorder

.PHONY: help repro test test-all test-cpus verify faults audit docs-check interop lock
help:
	@sed -n 's/^\([a-z-]*\):.* ## /\1	/p' Makefile | expand -t 12

repro: .venv/installed  ## environment, then the whole pipeline
	dvc repro
	@cat metrics/table.md
	@echo 'The report: report/index.html'
	@tunerank compare --machine

test: .venv/installed  ## environment, then the tests but for those that take minutes each
	$(PYTEST) -m "not slow"

test-all: .venv/installed  ## every test; CI runs this
	$(PYTEST)

test-cpus: .venv/installed  ## what trains or scores a model, with the kernels of other CPUs and with two threads
	python tests/cpus.py

verify: .venv/installed  ## what is here against dvc.lock, byte by byte, and two stages made again
	tunerank verify --again prepare --again samples

# The newest figures lie in .cache/faults/*.md; docs/reliability.md has those of one run.
faults: .venv/installed .cache/atheris/installed  ## kills, power cuts, full disks, two at once, determinism and a fuzz run, for over an hour
	python -m pytest tests/faults/kills.py tests/faults/power.py tests/faults/scarce.py tests/faults/together.py
	python tests/faults/determinism.py
	python tests/faults/fuzz.py --seconds 600

.cache/atheris/installed: tests/faults/requirements.txt
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --target .cache/atheris --requirement $<
	touch $@

# --strict: what the index has no advisories for is an error, not a pass.
audit:  ## known advisories about what requirements.txt names, by pip-audit
	$(PYTHON) -m venv .cache/audit && .cache/audit/bin/python -m pip install --quiet pip-audit
	.cache/audit/bin/pip-audit --requirement requirements.txt --no-deps --disable-pip --strict --progress-spinner off

docs-check: .venv/installed  ## every command of the documentation, run in a small repository
	python -m pytest tests/docs_check.py

interop: .venv/installed $(patsubst %,.cache/interop/%/installed,apps optimum infinity trackers clients cohere)  ## the checkpoint in other people's tools, and trackers
	python -m pytest tests/interop

.cache/interop/%/installed: tests/interop/requirements-%.txt requirements.txt
	$(PYTHON) -m venv --clear .cache/interop/$*
	.cache/interop/$*/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

# The environment is whole when this file exists: an interrupted installation starts again.
.venv/installed: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11, 3.12 or 3.13 is needed, this is %d.%d: make PYTHON=python3.11" % sys.version_info[:2] if not (3, 11) <= sys.version_info[:2] <= (3, 13) else 0)'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index --editable .
	touch $@

# torch's own requirements (CUDA libraries on Linux) are left to pip: they differ between a CPU and a GPU build.
lock:  ## rewrite requirements.txt from pyproject.toml, with the newest versions it allows
	$(PYTHON) -m venv .cache/lock && .cache/lock/bin/python -m pip install --quiet uv
	.cache/lock/bin/uv pip compile pyproject.toml --extra pipeline --extra train --extra publish --extra serve --group lock --group test --universal --python-version 3.11 --no-header --no-annotate \
	  --quiet --upgrade | grep -vE '^(nvidia-|cuda-|triton)' > requirements.txt.new
	mv requirements.txt.new requirements.txt
