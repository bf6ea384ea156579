# Every target sets up what it needs in .venv by itself; nothing outside the repository is changed.
# pip is used as it is configured: PIP_FIND_LINKS and the other PIP_* variables of the environment apply.

VENV := .venv
BIN := $(VENV)/bin
# The first Python on the path that is new enough; PYTHON=... chooses another.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)

ARGS ?=
PYTEST_ARGS ?=
FACE ?=
TEACHER ?= fingerprint
MODEL_SERVERS ?=
BENCH ?=
BENCHES = $(patsubst benchmarks/%.py,%,$(wildcard benchmarks/[a-z]*.py))

PARTS := device-sim services/teacher-inference services/student-distiller services/model-registry
PROJECTS := pyproject.toml $(PARTS:%=%/pyproject.toml)
INSTALL := $(BIN)/python -m pip install -c constraints.txt
# One stamp for each set of extras: an installation is done once, and again when a project file changes.
DEMO_STAMP := $(VENV)/.installed-demo
DEV_STAMP := $(VENV)/.installed-dev
FACE_STAMP := $(VENV)/.installed-face
FACE_WANTED := $(if $(filter 1 yes true,$(FACE)),$(FACE_STAMP))
# Servers that run teachers. MLServer brings so much that it gets an environment of its own, which sees ours beside it.
TORCHSERVE_STAMP := $(VENV)/.installed-torchserve
MLSERVER := $(VENV)/mlserver
MODEL_SERVERS_WANTED := $(if $(filter 1 yes true,$(MODEL_SERVERS)),$(TORCHSERVE_STAMP) $(MLSERVER)/.installed)
TORCHSERVE_FOLDER := out/torchserve
NO_JAVA := TorchServe needs Java 17: on Debian and Ubuntu apt-get install openjdk-17-jre-headless

# The contracts are linted by buf, which comes from npm; it lies in .venv like everything else that was installed.
NPM := $(shell command -v npm)
BUF_VERSION := 1.75.0
BUF_FOLDER := $(VENV)/buf-$(BUF_VERSION)
BUF := $(BUF_FOLDER)/node_modules/.bin/buf
NO_NPM := protos/ was not linted: buf needs npm (on Debian and Ubuntu apt-get install npm). Where CI is set this fails.
AGAINST ?= main

# Container images: tutelage/NAME:IMAGE_TAG. IMAGE_TARGET=dev builds the ones that restart when a source changes.
IMAGES ?= model-registry student-distiller teacher-inference torchserve device-sim
IMAGE_TAG ?= dev
IMAGE_TARGET ?= service
IMAGE_ARGS ?=
IMAGE_LOADER ?= kind load docker-image
image_folder = $(or $(filter device-sim,$(1)),services/$(if $(filter torchserve,$(1)),teacher-inference,$(1)))
image_target = $(if $(filter torchserve,$(1)),torchserve,$(IMAGE_TARGET))
IMAGE_REVISION = $(shell git rev-parse HEAD 2>/dev/null)
IMAGE_CREATED = $(shell git show --no-patch --format=%cI HEAD 2>/dev/null)
IMAGE_VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
# What lists their content, in an environment of its own.
SBOM := $(VENV)/sbom
SBOM_FOLDER := out/sbom

LAYOUT_TESTS := tests/unit/test_layout.py tests/unit/test_boundaries.py tests/unit/test_repository_words.py

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help venv face demo torchserve test e2e cluster faults check registry-alone images sbom fmt bench clean proto proto-check proto-lint proto-breaking

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo "  ARGS=... goes to demo and bench, PYTEST_ARGS=... to test; FACE=1 adds the public face teacher to any of them"
	@echo "  MODEL_SERVERS=1 adds the servers that run teachers (TorchServe, MLServer) to test and bench"

venv: $(DEV_STAMP) $(FACE_WANTED) ## install everything a developer needs into .venv

face: $(FACE_STAMP) ## add the extra `face`: a public pre-trained face teacher

demo: $(DEMO_STAMP) $(FACE_WANTED) $(if $(findstring --grpc,$(ARGS)),$(DEV_STAMP)) ## watch devices lose accuracy and recover; ARGS="--data FOLDER" takes your images
	$(BIN)/tutelage demo $(ARGS)

torchserve: $(TORCHSERVE_STAMP) ## serve TEACHER (fingerprint, face or a file) with TorchServe on 127.0.0.1:7070 until Ctrl-C
	@command -v java >/dev/null || { echo "$(NO_JAVA)" >&2; exit 1; }
	@mkdir -p $(TORCHSERVE_FOLDER)
	$(BIN)/python -m teacher_inference.archive --teacher $(TEACHER) --out $(TORCHSERVE_FOLDER)
	cd $(TORCHSERVE_FOLDER) && $(abspath $(BIN))/torchserve --start --foreground --no-config-snapshots \
		--ts-config $(abspath services/teacher-inference/torchserve/config.properties) --model-store . --models teacher=teacher.mar

test: $(DEV_STAMP) $(FACE_WANTED) $(MODEL_SERVERS_WANTED) ## run the tests, but for `e2e`, `cluster` and `faults`
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m 'not e2e and not cluster and not faults' $(PYTEST_ARGS)

e2e: $(DEV_STAMP) $(FACE_WANTED) ## do what a user does: pages followed, services as processes; and `cluster`, if there is one
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadscope tests/e2e $(PYTEST_ARGS)
	@if kubectl version --request-timeout=5s >/dev/null 2>&1; then $(MAKE) --no-print-directory cluster; \
		else echo "no cluster answers: tests/cluster was not run" >&2; test -z "$(TUTELAGE_CLUSTER)"; fi

# IMAGE_LOADER brings images to the cluster's nodes; empty where they are pulled from a registry that has them.
cluster: $(DEV_STAMP) $(if $(IMAGE_LOADER),images) ## test images and chart on the cluster that the kubeconfig leads to
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/cluster --image-loader '$(IMAGE_LOADER)' --image-tag $(IMAGE_TAG) $(PYTEST_ARGS)

faults: $(DEV_STAMP) $(FACE_WANTED) $(MODEL_SERVERS_WANTED) ## run what takes minutes: services killed at random, cut off, fed nonsense
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 tests/faults $(PYTEST_ARGS)

check: $(DEV_STAMP) proto-lint proto-check ## format, lint, types, layout, boundaries, contracts; changes nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python docs/generate_errors.py --check
	$(BIN)/python docs/generate_settings.py --check
	$(BIN)/python docs/generate_results.py --check
	$(BIN)/python docs/generate_speed.py --check
	$(BIN)/python docs/generate_year.py --check
	$(BIN)/python docs/generate_sizing.py --check
	$(BIN)/python charts/generate_dashboard.py --check
	$(BIN)/python charts/generate_readme.py --check
	$(BIN)/python -m pytest -q $(LAYOUT_TESTS)

# In an environment of its own, from built wheels, as an image would: what it must not need is not there.
registry-alone: | $(BIN)/pip ## tell whether the registry installs and starts without torch
	rm -rf $(VENV)/registry-alone && $(BIN)/python -m venv $(VENV)/registry-alone
	$(VENV)/registry-alone/bin/pip install -q -c constraints.txt . ./services/model-registry
	$(VENV)/registry-alone/bin/python -c 'import importlib.util as u, model_registry.service, model_registry.redis_index; \
		assert not u.find_spec("torch"), "torch came along"'
	rm -rf $(VENV)/registry-alone

images: $(IMAGES:%=image-%) ## build the container images IMAGES (all by default) with the tag IMAGE_TAG (dev)

.PHONY: $(IMAGES:%=image-%) $(IMAGES:%=sbom-%)
$(IMAGES:%=image-%): image-%:
	docker build --tag tutelage/$*:$(IMAGE_TAG) --file $(call image_folder,$*)/Dockerfile --target $(call image_target,$*) \
		--build-arg VERSION=$(IMAGE_VERSION) --build-arg REVISION=$(IMAGE_REVISION) --build-arg CREATED=$(IMAGE_CREATED) \
		$(IMAGE_ARGS) .

sbom: $(IMAGES:%=sbom-%) ## list what is inside the images, one CycloneDX document each, in out/sbom

$(IMAGES:%=sbom-%): sbom-%: $(SBOM)/.installed
	$(SBOM)/bin/python docs/image_sbom.py tutelage/$*:$(IMAGE_TAG) $(SBOM_FOLDER)/$*.cdx.json

fmt: $(DEV_STAMP) ## fix what `check` can fix
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	$(BIN)/python docs/generate_errors.py
	$(BIN)/python docs/generate_settings.py
	$(BIN)/python docs/generate_results.py
	$(BIN)/python docs/generate_speed.py
	$(BIN)/python docs/generate_year.py
	$(BIN)/python docs/generate_sizing.py
	$(BIN)/python charts/generate_dashboard.py
	$(BIN)/python charts/generate_readme.py

bench: $(DEMO_STAMP) $(FACE_WANTED) $(MODEL_SERVERS_WANTED) ## measure: BENCH=NAME runs benchmarks/NAME.py with ARGS
	@test -f "benchmarks/$(BENCH).py" || { echo "name one with BENCH=: $(BENCHES)" >&2; exit 2; }
	$(BIN)/python benchmarks/$(BENCH).py $(ARGS)

proto: $(DEV_STAMP) ## write src/tutelage/api anew from protos/
	$(BIN)/python protos/generate.py

proto-check: $(DEV_STAMP) ## tell whether src/tutelage/api is what protos/ gives; changes nothing
	$(BIN)/python protos/generate.py --check

proto-lint: $(if $(NPM),$(BUF)) ## lint protos/ with buf
	$(if $(NPM),$(BUF) lint,@echo "$(NO_NPM)" >&2; test -z "$$CI")

proto-breaking: $(BUF) ## tell what in protos/ breaks callers of the branch AGAINST=main
	$(BUF) breaking --against '.git#branch=$(AGAINST)'

clean: ## remove caches and build output (.venv and out/ stay)
	rm -rf .mypy_cache .pytest_cache .ruff_cache build dist device-sim/build device-sim/dist
	find src device-sim tests docs benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# pip is the last thing that `venv` puts there, so one left half-made by an interruption is completed.
$(BIN)/pip:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { echo "on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }

$(BUF):
	npm install --loglevel=error --no-save --no-audit --no-fund --prefix $(BUF_FOLDER) @bufbuild/buf@$(BUF_VERSION)

$(DEMO_STAMP): $(PROJECTS) constraints.txt | $(BIN)/pip
	$(INSTALL) -e '.[torch]' -e device-sim
	@touch $@

$(DEV_STAMP): $(PROJECTS) constraints.txt | $(BIN)/pip
	$(INSTALL) -e '.[dev,grpc,torch]' $(PARTS:%=-e %) -e 'services/student-distiller[kubernetes]'
	@touch $@ $(DEMO_STAMP)

$(FACE_STAMP): $(PROJECTS) constraints.txt | $(BIN)/pip
	$(INSTALL) -e '.[face,torch]' -e device-sim
	@touch $@ $(DEMO_STAMP)

$(TORCHSERVE_STAMP): $(PROJECTS) constraints.txt | $(BIN)/pip
	$(INSTALL) -e '.[grpc,stores,torch]' -e 'services/teacher-inference[torchserve]'
	@touch $@

$(MLSERVER)/.installed: services/teacher-inference/pyproject.toml | $(DEV_STAMP)
	$(BIN)/python -m venv --clear $(MLSERVER)
	$(MLSERVER)/bin/python -m pip install -c constraints.txt 'mlserver>=1.7'
	$(BIN)/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
		> "$$($(MLSERVER)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/beside.pth"
	@touch $@

$(SBOM)/.installed: | $(BIN)/pip
	$(BIN)/python -m venv --clear $(SBOM)
	$(SBOM)/bin/python -m pip install 'cyclonedx-bom>=7'
	@touch $@
