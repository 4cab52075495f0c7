# dicomnode: `make demo` runs the main job, `make test` proves it. Everything lands in .venv/.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0
STAMP := $(VENV)/.installed
# So many processes run the tests, each a core's worth: 25 minutes on two cores, installation included.
WORKERS ?= 2

.PHONY: install demo test check format train lock bench fuzz soak clean

install: $(STAMP)

# Torch first and by pip's plain request, so that a CPU wheel offered by the machine's own pip configuration is taken;
# its hash differs between CPU and CUDA builds, therefore it is pinned by version and is not in requirements.lock.
$(STAMP): requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
		|| { echo "error: no virtual environment could be made — apt-get install python3.11 python3.11-venv" >&2; rm -rf $(VENV); exit 2; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: install
	$(BIN)/dicomnode demo

test: install
	$(BIN)/python tests/system_packages.py
	@status=0; \
	$(BIN)/python -m pytest -n $(WORKERS) -m "not alone" || status=$$?; \
	$(BIN)/python -m pytest -m alone $$(grep -rlF pytest.mark.alone --include='test_*.py' tests) || status=$$?; \
	exit $$status

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

train: install
	$(BIN)/dicomnode pipelines train chest_ct

# A million mutated PDUs, command sets, headers and association requests, then sessions against a real receive process.
fuzz: install
	$(BIN)/python -m tests.fuzz --cases 1000000 --sessions 3000

# Long runs: ten thousand associations, the attacks for longer.
soak: install
	$(BIN)/python -m pytest -m soak --timeout 3600

bench: install
	$(BIN)/dicomnode bench ingest

# Renews requirements.lock from pyproject.toml. Torch and what only its CUDA build needs stay out.
lock:
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --group dev --generate-hashes --python-version 3.11 --no-annotate --no-header --upgrade -q -o requirements.lock.full
	$(BIN)/python deploy/lock_without_torch.py requirements.lock.full requirements.lock
	rm requirements.lock.full

clean:
	rm -rf $(VENV) demo-output build dist *.egg-info
