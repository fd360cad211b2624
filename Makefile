# ShuDL's goals. Everything that they install is in $(SHUDL_HOME), or in the package clients' caches.
SHELL := bash
SHUDL_HOME ?= $(CURDIR)/.shudl
export SHUDL_HOME
unexport PYTHONDONTWRITEBYTECODE
PYTHON := $(SHUDL_HOME)/envs/airflow/bin/python
TESTS ?= tests

.DEFAULT_GOAL := help
.PHONY: help demo test lint lock clean

help: ## List the goals
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 8

demo: ## Install what is missing, then run the demo
	@./shudl demo

test: ## Install what is missing, then run the tests (TESTS=path for some of them)
	@./shudl setup
	@PYTHONPATH=$(CURDIR) $(PYTHON) -m pytest $(TESTS)

lint: ## Check the Python code with ruff
	@./shudl setup
	@$(PYTHON) -m ruff check dags include plugins tests

lock: ## Make the locks anew from requirements.in, *.in and jars.toml
	@./shudl lock

clean: ## Stop what runs, then remove everything that was installed and written here
	@if [ -f "$(SHUDL_HOME)/envs/airflow/.stamp" ]; then ./shudl down; fi
	@rm -rf "$(SHUDL_HOME)"
