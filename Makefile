# Two commands: `make demo` segments a real photograph, `make test` checks everything. Both set up what they need in .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# A change here builds again.
NATIVE := setup.py pyproject.toml constraints.txt $(shell find sdk/csrc -type f)

.PHONY: demo test test-slow lint bench clean

demo: $(VENV)/demo.stamp
	$(BIN)/python examples/segment_picture.py --conf 0.5 --out out

test: lint
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(VENV)/test.stamp
	$(BIN)/python -m pytest

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/test.stamp
	$(BIN)/python -m benchmarks.ops_roi_align
	$(BIN)/python -m benchmarks.ops_paste_rle
	$(BIN)/python -m benchmarks.ops_detect
	$(BIN)/python -m benchmarks.ops_patches
	$(BIN)/python -m benchmarks.predict
	$(BIN)/python -m benchmarks.evaluate

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# Editable, so that what runs is what lies here. setuptools and pybind11 come first because nothing is isolated.
$(VENV)/demo.stamp: $(NATIVE) | $(BIN)/python
	$(PIP) setuptools pybind11
	$(PIP) --no-build-isolation -e ".[demo]"
	touch $@

$(VENV)/test.stamp: $(NATIVE) | $(BIN)/python
	$(PIP) setuptools pybind11
	KERF_WERROR=1 $(PIP) --no-build-isolation -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build out *.egg-info sdk/*.so
