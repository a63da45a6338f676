# make demo    the main job on real data, from nothing: environment, train, commit, replay, tamper
# make demo-settlement   the same job for money: stakes, committee, disputes, on an embedded chain
# make test    what every change must pass: style, types, tests
# Every target makes the environment it needs; where that is there already, it costs nothing.
# Variables: PYTHON (interpreter of a new environment), VENV (its folder), ARGS (passed on to the command), TORCH (the
# version that test-torch-versions compares with).

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
TORCH ?= 2.9.1
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
NODE := tests/contracts/node_modules
# The program itself: npm's wrapper around it ends with 0 whatever it ends with.
FORGE := $(NODE)/@foundry-rs/forge-*/bin/forge
CPP := $(wildcard csrc/*.cpp csrc/*.h csrc/cuda/*.cu csrc/cuda/*.h tests/emulation/*.cpp tests/emulation/*.h kernels/metal/*.metal tests/emulation/metal/* tests/native/*.c tests/native/*.cpp examples/c/*.c examples/c/*.h)
# What the native build reads: a change of any of these builds it again.
NATIVE := pyproject.toml CMakeLists.txt $(wildcard csrc/* csrc/cuda/*) $(wildcard gensyn_verify/program/*.py)

.PHONY: demo demo-settlement test lint format contracts gas test-contracts test-coverage test-slither test-floats test-mutants test-proofs test-isas test-opinfo test-sanitize test-races test-race-proofs test-aarch64 test-triton test-torch-versions test-exhaustive test-fuzz test-models attacks bench wheel clean

# What `test` installs has all that the demo needs.
demo: $(or $(wildcard $(VENV)/.dev),$(VENV)/.demo)
	$(BIN)/gverify demo $(ARGS)

# Tasks settled on a chain inside of the process, honestly and not; ARGS="--scene 3" plays one scene.
demo-settlement: $(VENV)/.dev
	$(BIN)/gverify demo-settlement $(ARGS)

test: lint
	$(BIN)/pytest -n auto $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(CPP)

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP)

# The contracts' shipped bytecode, by the pinned compiler; needs Node.js.
contracts: $(VENV)/.dev $(NODE)/.package-lock.json
	$(BIN)/python tests/contracts/generate_blake3.py
	$(FORGE) fmt
	$(FORGE) build
	$(BIN)/python tests/contracts/artifacts.py

# What the moves of a dispute cost in gas, in the worst case that README states.
gas: $(VENV)/.dev
	PYTHONPATH=tests $(BIN)/python tests/contracts/gas.py

# The contracts: style, the shipped bytecode against a new compilation, forge's tests, then those in Python.
test-contracts: $(VENV)/.dev $(NODE)/.package-lock.json
	$(FORGE) fmt --check
	$(FORGE) build
	$(NODE)/.bin/solhint --max-warnings 0 --config tests/contracts/solhint.json "gensyn_verify/settle/contracts/*.sol"
	$(BIN)/python tests/contracts/artifacts.py --check
	$(FORGE) test
	$(BIN)/pytest -n auto tests/contracts $(ARGS)

# Branch coverage of the contracts by forge's tests; fails below 95 % of the branches. Artifacts are not touched.
test-coverage: $(NODE)/.package-lock.json
	@mkdir -p build/contracts
	FOUNDRY_PROFILE=coverage $(FORGE) coverage --exclude-tests --report summary --report lcov \
	  --report-file build/contracts/lcov.info $(ARGS)
	$(PYTHON) tests/contracts/coverage.py build/contracts/lcov.info

# Static analysis of the contracts. What is left out is meant: positions in tensors are quotients and remainders, amounts
# may be zero, structs begin as zeros.
test-slither: $(NODE)/.package-lock.json
	$(PYTHON) -m venv build/slither
	build/slither/bin/python -m pip --disable-pip-version-check install --quiet slither-analyzer==0.11.6
	PATH="$(abspath $(dir $(wildcard $(FORGE)))):$$PATH" build/slither/bin/slither . --filter-paths tests --fail-medium \
	  --exclude-informational --exclude-optimization --exclude-low \
	  --exclude divide-before-multiply,incorrect-equality,uninitialized-local

# The contracts' scalar operations on 49,000 operands each, 2.9 million in all. ARGS picks tests.
test-floats: $(VENV)/.dev $(NODE)/.package-lock.json
	$(FORGE) build
	GENSYN_VERIFY_FLOAT_ROWS=3500 $(BIN)/pytest -n auto tests/contracts/test_scalar.py $(ARGS)

# One token of the soft floats changed at a time: the vectors must notice. Takes long; ARGS=3/10 is the third tenth.
test-mutants: $(VENV)/.dev $(NODE)/.package-lock.json
	cd tests && PYTHONPATH=..:. ../$(BIN)/python contracts/mutants.py $(ARGS)

# For all operands, results of the soft floats are canonical; from any state, no message of a settlement creates or
# destroys money (what that rests on: tests/contracts/SettlementProofs.sol, PayoutProofs.sol). By halmos, in an
# environment of its own; about four minutes on one core.
HALMOS = FOUNDRY_OUT=build/proofs/out FOUNDRY_CACHE_PATH=build/proofs/cache \
  PATH=$(CURDIR)/build/proofs/bin:$(CURDIR)/$(NODE)/.bin:$$PATH halmos --forge-build-out build/proofs/out
test-proofs: $(NODE)/.package-lock.json
	$(PYTHON) -m venv build/proofs && build/proofs/bin/python -m pip --disable-pip-version-check install --quiet halmos==0.3.3
	$(HALMOS) --contract SoftFloat32Proofs --solver z3 --solver-timeout-assertion 120000 $(ARGS)
	$(HALMOS) --contract SettlementProofs --solver-timeout-assertion 120000 $(ARGS)
	$(HALMOS) --contract PayoutProofs --solver-timeout-assertion 120000 $(ARGS)

$(NODE)/.package-lock.json: tests/contracts/package-lock.json
	npm ci --prefix tests/contracts --ignore-scripts --no-audit --no-fund
	@touch $@

# The backend tests once more for every instruction set of this machine below the best one, which `test` uses.
test-isas: $(VENV)/.dev
	@for isa in $$($(BIN)/python -c "from gensyn_verify import _native; print(*_native.supported_isas()[1:])"); do \
	  echo "GENSYN_VERIFY_ISA=$$isa"; \
	  GENSYN_VERIFY_ISA=$$isa $(BIN)/pytest -q -n auto tests/backends --ignore-glob="*/test_vendor.py" --ignore-glob="*/test_bounds.py" --ignore=tests/backends/device $(ARGS) || exit 1; \
	done

# PyTorch's own samples of its operations, all of them; `test` takes one an operation. ARGS picks, e.g. ARGS="-k sort".
test-opinfo: $(VENV)/.dev
	GENSYN_VERIFY_OPINFO=all $(BIN)/pytest -n auto tests/frontend/test_opinfo.py $(ARGS)

# The same bits on another processor: NEON and portable kernels under qemu-user (see the script for what it needs).
test-aarch64: $(VENV)/.dev
	.ci/aarch64.sh $(BIN)/python

# Every Triton kernel, in all variants, compiled for GPUs that are not there, and read; ARGS picks targets: ARGS="sm_90".
test-triton: $(VENV)/.dev
	$(BIN)/python -m gensyn_verify.kernels.triton_audit $(ARGS)

# The same programs from another version of PyTorch; TORCH says which.
test-torch-versions: $(VENV)/.dev
	.ci/torch_versions.sh $(BIN)/python $(TORCH)

# Backend cuda under every schedule and from the PTX of every architecture, on the stand-in driver; `test` takes some.
test-cuda: $(VENV)/.dev
	GENSYN_VERIFY_CUDA_WAYS=all $(BIN)/pytest -n auto tests/backends/device/test_cuda.py tests/backends/device/test_ptx_audit.py $(ARGS)

# The CUDA kernels under ThreadSanitizer, a thread a thread, and with every barrier left out once; `test` takes one. About
# a minute and a half on two cores.
test-races: $(VENV)/.dev
	GENSYN_VERIFY_CUDA_RACES=all $(BIN)/pytest -n auto tests/backends/device/test_cuda_races.py $(ARGS)

# Proofs, by SentryWard in an environment of its own, that launches of the shipped PTX have no race in any order of threads.
test-race-proofs: $(VENV)/.dev
	$(PYTHON) -m venv build/sentryward
	build/sentryward/bin/python -m pip --disable-pip-version-check install --quiet sentryward==0.1.1
	PYTHONPATH=tests:. $(BIN)/python -m emulation.proofs build/sentryward/bin/sentryward

# The native code under Address-, UndefinedBehavior- and ThreadSanitizer, by g++ and clang++; ARGS picks Python tests.
test-sanitize: $(VENV)/.dev
	.ci/sanitize.sh $(BIN)/python $(ARGS)

# The models of tests/models, fine-tuning too, beside stock PyTorch for 200 steps each; `make test` takes 20.
test-models: $(VENV)/.dev
	GENSYN_VERIFY_MODEL_STEPS=200 $(BIN)/pytest -s tests/models/test_side_by_side.py $(ARGS)

# exp, log, tanh ... on all 2^32 inputs and every instruction set; takes long, ARGS picks functions.
test-exhaustive: $(VENV)/.dev
	$(BIN)/python tests/exhaustive/elementary.py $(ARGS)

# Mutated bundles, many: GENSYN_VERIFY_FUZZ_CASES (default 100000) of series GENSYN_VERIFY_FUZZ_SEED.
test-fuzz: $(VENV)/.dev
	GENSYN_VERIFY_FUZZ_CASES=$${GENSYN_VERIFY_FUZZ_CASES:-100000} $(BIN)/pytest -q tests/protocol/test_fuzz.py $(ARGS)

# Every attack against every verification rule, and honest solvers counted: bench/results/attacks.json, honest.json and
# docs/attacks.md. Takes an hour or two. ARGS picks attacks, e.g. ARGS="--model gpt --kind drift".
attacks: $(VENV)/.dev
	rm -rf build/attacks
	$(BIN)/python -m tests.attacks.honest exact build/attacks/exact mlp
	$(BIN)/python -m tests.attacks.honest threshold build/attacks 500
	$(BIN)/python -m tests.attacks.report --calibrated build/attacks/calibrated $(ARGS)

# Bits first, then times beside the peers; ARGS picks, e.g. ARGS=bench/bench_dot.py.
bench: $(VENV)/.dev
	env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(BIN)/pytest -o addopts= --benchmark-only $(or $(ARGS),bench)

# A wheel built as a stranger would build it, in isolation, and checked in an environment of its own.
wheel: | $(BIN)/python
	rm -rf dist
	$(PIP) wheel --quiet --no-deps --wheel-dir dist .
	$(PYTHON) -m venv --clear build/wheel-check
	build/wheel-check/bin/python -m pip --disable-pip-version-check install --quiet dist/gensyn_verify-*.whl
	cd build && wheel-check/bin/gverify doctor $(ARGS)

clean:
	rm -rf $(VENV) build dist $(NODE) .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# Installed from the working tree: a change of Python code is in force at once, one of native code after `make`.
$(VENV)/.demo $(VENV)/.dev: $(VENV)/.%: $(NATIVE) | $(BIN)/python
	@echo "installing gensyn_verify[$*] into $(VENV); the first time this takes some minutes"
	$(PIP) install --quiet "scikit-build-core>=0.10" "pybind11>=2.13" "cmake>=3.18" "ninja>=1.11"
	$(PIP) install --quiet --no-build-isolation --editable ".[$*]"
	@touch $@
