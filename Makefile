# ShuDL's goals. What they install and write is in $(SHUDL_HOME), or in the package clients' caches.
SHELL := bash
SHUDL_HOME ?= $(CURDIR)/.shudl
override SHUDL_HOME := $(abspath $(SHUDL_HOME))
export SHUDL_HOME
unexport PYTHONDONTWRITEBYTECODE
PYTHON := $(or $(SHUDL_INSTALL),$(SHUDL_HOME))/envs/airflow/bin/python
RUN := PYTHONPATH=$(CURDIR) $(PYTHON)
STOP_TESTS := import tests.conftest; from include.platform.supervisor import Supervisor; Supervisor().shutdown()
TESTS ?= tests

.DEFAULT_GOAL := help
.PHONY: help demo test lint benchmark images lock clean
.PHONY: secrets certificates check-docker up down test-docker test-faults test-ha test-ingest

help: ## List the goals
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: ## Install what is missing, then run the demo (DEMO='--rate 500' for its options; RUNTIME=docker in containers)
	@$(if $(filter docker,$(RUNTIME)),docker/platform.sh,./shudl) demo $(DEMO)

test: ## Install what is missing, then run the tests (TESTS=path for some of them)
	@./shudl setup
	@$(RUN) -m pytest $(TESTS)

lint: ## Check the Python code with ruff
	@./shudl setup
	@$(RUN) -m ruff check dags include plugins tests benchmarks

benchmark: ## Measure on the running platform: BENCHMARK=name; without it, list the benchmarks
	@./shudl setup
	@$(RUN) -m benchmarks $(BENCHMARK)

images: ## Build the images of docker/compose.yaml (IMAGES='kafka trino' for some; BUILD_CA_FILE=file to trust a proxy)
	@VERSION="$${VERSION:-$$(cat docker/VERSION)}" BUILDX_BAKE_ENTITLEMENTS_FS=0 \
		docker buildx bake -f docker/docker-bake.hcl $(IMAGES)

secrets: ## Make the passwords and keys of the containers that are missing (ROTATE='trino kafka_flink' makes these anew)
	@docker/platform.sh secrets $(ROTATE)

certificates: ## Make their certificates that are missing (RENEW=1 renews those whose turn it is; RENEW='trino kafka'; RENEW=ca)
	@docker/platform.sh certificates $(RENEW)

check-docker: ## Say what keeps the containers from starting; changes nothing
	@docker/platform.sh check

up: ## Start Airflow in containers and create the rest, which its DAG platform_bootstrap starts
	@docker/platform.sh up

down: ## Stop and remove the containers; their volumes stay
	@docker/platform.sh down

test-docker: ## Pass the tests that need Docker: the whole Compose platform, from empty volumes (TESTS=path for some of them)
	@./shudl setup
	@SHUDL_COMPOSE_TESTS=1 $(RUN) -m pytest $(if $(filter-out tests,$(TESTS)),$(TESTS),tests/docker)

test-ha: ## Pass all tests of what fails and is outgrown, those of the whole Compose platform too (TESTS=path for some of them)
	@./shudl setup
	@SHUDL_HA_TESTS=1 $(RUN) -m pytest $(if $(filter-out tests,$(TESTS)),$(TESTS),tests/ha)

test-faults: ## Pass the tests that crash every service and layer of the local platform
	@./shudl setup
	@SHUDL_FAULT_TESTS=1 $(RUN) -m pytest tests/faults

test-ingest: ## Pass the tests of connectors, Kafka to Iceberg and their kills, on the engines alone that they need (TESTS=path)
	@./shudl setup
	@SHUDL_INGEST_TESTS=1 $(RUN) -m pytest $(if $(filter-out tests,$(TESTS)),$(TESTS),tests/ingest tests/integration/test_landing.py)

lock: ## Make the locks anew from requirements.in, *.in and jars.toml
	@./shudl lock

clean: ## Stop what runs, then remove everything that was installed and written here
	@if [ ! -d "$(SHUDL_HOME)" ]; then exit 0; fi; \
	if [ ! -e "$(SHUDL_HOME)/install.lock" ]; then \
		echo "$(SHUDL_HOME) was not made by ./shudl: remove it by hand" >&2; exit 1; \
	fi; \
	if [ -e "$(SHUDL_HOME)/envs/airflow/.stamp" ]; then \
		$(RUN) -P -m include.cli down && $(RUN) -P -c "$(STOP_TESTS)" || exit 1; \
	fi; \
	rm -rf "$(SHUDL_HOME)"
