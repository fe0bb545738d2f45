# make repro: environment, then the whole pipeline.    make test: environment, then the tests.
# make interop: LangChain, LlamaIndex, ONNX, transformers 4 and a server on a checkpoint, in environments of their own.
# All need Python 3.11 or later and Git, nothing else.

PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: repro test interop lock
repro: .venv/installed
	dvc repro
	@cat metrics/table.md

test: .venv/installed
	python -m pytest

interop: .venv/installed $(patsubst %,.cache/interop/%/installed,apps optimum infinity)
	python -m pytest tests/interop

.cache/interop/%/installed: tests/interop/requirements-%.txt requirements.txt
	$(PYTHON) -m venv --clear .cache/interop/$*
	.cache/interop/$*/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

# The environment is whole when this file exists: an interrupted installation starts again.
.venv/installed: requirements.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11, 3.12 or 3.13 is needed, this is %d.%d: make PYTHON=python3.11" % sys.version_info[:2] if not (3, 11) <= sys.version_info[:2] <= (3, 13) else 0)'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	touch $@

# torch's own requirements (CUDA libraries on Linux) are left to pip: they differ between a CPU and a GPU build.
lock:
	$(PYTHON) -m venv .cache/lock && .cache/lock/bin/python -m pip install --quiet uv
	.cache/lock/bin/uv pip compile pyproject.toml --group test --universal --python-version 3.11 --no-header --no-annotate \
	  --quiet --upgrade | grep -vE '^(nvidia-|cuda-|triton)' > requirements.txt.new
	mv requirements.txt.new requirements.txt
