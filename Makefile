# Two commands: `make quickstart` and `make test`. Needs Python 3.11 or newer with venv, make and git.
PYTHON ?= python3
BIN := .venv/bin
RUN := checkpoints/quickstart
export TOKENIZERS_PARALLELISM := true

.PHONY: quickstart test clean

# Fine-tune, test, compare with the un-tuned model, read the stars of a sentence. A finished run is not trained again.
quickstart: .venv/quickstart $(RUN)/metrics.json
	$(BIN)/python -m yelp_lightning test --ckpt_path $(RUN)
	$(BIN)/python -m yelp_lightning compare --ckpt_path $(RUN)
	$(BIN)/python -m yelp_lightning predict --ckpt_path $(RUN) \
		--text "My first time going to this place. Lovely staff, but the soup came cold."

$(RUN)/metrics.json: | .venv/quickstart
	$(BIN)/python -m yelp_lightning fit --config configs/quickstart.yaml

# One thread a process: the tests run side by side, and are small.
test: export OMP_NUM_THREADS := 1
test: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --cov -n logical --maxprocesses 4

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/quickstart: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing the pinned versions into .venv: one to a few minutes"
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[embedded]"
	touch $@

.venv/dev: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing the pinned versions and the development tools into .venv: one to a few minutes"
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
