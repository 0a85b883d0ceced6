# Everything a reader, a teacher or CI runs. `make` lists it.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
PROFILE ?= quick
# For instance LAB_FLAGS="--no-browser --allow-root" in a container.
LAB_FLAGS ?=
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.PHONY: help setup reproduce record compare photos test bench course site lab lint format docs clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.ready  ## make .venv with everything pyproject.toml names (minutes, once)

# The stamp is written last, so that an interrupted installation is taken up again.
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; say PYTHON=python3.11")'
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable ".[dev,site,pretrained,cluster]"
	touch $@

reproduce: setup  ## run every notebook into runs/$(PROFILE); UPDATE=1 makes it the record
	$(RUN) -m tkmia_utils.pipeline --profile $(PROFILE) $(if $(UPDATE),--update)

record:  ## the same, and the run takes the place of the record figures/$(PROFILE)
	$(MAKE) reproduce UPDATE=1

compare: setup  ## put the run in runs/$(PROFILE) beside the record, number by number
	$(RUN) -m tkmia_utils.pipeline --compare $(PROFILE) $(if $(WITH),--with $(WITH))

photos: setup  ## six attacks on your own photos, as tables: TRAIN=train.csv VAL=val.csv
	@test -n "$(TRAIN)" -a -n "$(VAL)" || { echo "say which: make photos TRAIN=train.csv VAL=val.csv" >&2; exit 2; }
	$(RUN) -m tkmia_utils.pipeline --profile photos --only 08_tables_and_figures 10_imperceptible \
		--set "train_csv=$$(realpath "$(TRAIN)")" "val_csv=$$(realpath "$(VAL)")"

test: setup lint  ## lint, unit tests, then the notebooks in a smoke size
	$(RUN) -m pytest -q

bench: setup  ## time the engine beside its floor, a plain loop and other libraries (minutes)
	$(RUN) -m benchmarks

course: setup  ## a course for OUT=folder: students' copy with a trained victim, teacher's with answers
	@test -n "$(OUT)" || { echo "say where to: make course OUT=folder" >&2; exit 2; }
	$(RUN) -m tkmia_utils.pipeline --profile quick --only 04_victim
	$(RUN) -m tkmia_utils.course make "$(OUT)"

site: reproduce  ## every lesson with its results as pages: runs/site/index.html
	$(RUN) docs/make_site.py --run runs/$(PROFILE)

lab: setup  ## open the notebooks in JupyterLab
	$(RUN) -m jupyter lab -y --notebook-dir=notebooks $(LAB_FLAGS)

lint: setup  ## ruff everywhere, types of mathematics, attacks and engine, no outputs in notebooks
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(RUN) -m nbstripout --verify notebooks/*.ipynb

format: setup  ## let ruff and nbstripout put right what they can
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .
	$(RUN) -m nbstripout notebooks/*.ipynb

docs: setup  ## write docs/api.md from the docstrings
	$(RUN) docs/make_api.py

clean:  ## remove data sets, victims and runs with their figures; .venv and the record stay
	rm -rf cache runs .pytest_cache .ruff_cache .mypy_cache
