# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.
# PYTHON is 3.11 or newer: the pinned packages want that.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= out

.PHONY: demo test lint bench train-tiny clean

# One environment; each stamp says which extras are in it.
$(VENV)/installed-%: pyproject.toml constraints.txt CMakeLists.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$*]'
	touch $@

demo: $(VENV)/installed-export
	$(BIN)/devil-export --precision fp16 --output $(OUT)/devil-tiny-fp16 --force
	$(BIN)/devil-ground --demo --bundle $(OUT)/devil-tiny-fp16 --output $(OUT)/demo.json --render $(OUT)/demo.mp4 --force

test: $(VENV)/installed-test lint
	$(BIN)/pytest

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: $(VENV)/installed-test
	$(BIN)/python benchmarks/end_to_end.py

train-tiny: $(VENV)/installed-test
	$(BIN)/python -m devil.training.tiny --output $(OUT)/devil-tiny

clean:
	rm -rf $(VENV) $(OUT) build dist
