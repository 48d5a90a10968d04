# Everything a developer does here, one target each. One cargo profile (release) serves all of them, so that the
# dependencies are built once.

CARGO ?= cargo
COMPOSE ?= docker compose --file docker/compose.yaml
# Both suites that need features of their own share one build.
TEST_FEATURES = --features pause-points,mutants
SERVICE_SUITE = $(CARGO) test --release $(TEST_FEATURES) --test service
SIMULATION = $(CARGO) test --release $(TEST_FEATURES) --test simulation
SERVICES = $(CARGO) run --release --package services --

.DEFAULT_GOAL := help
.PHONY: help build test simulate lint fmt services up logs down demo clean

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build campaignd and the services tool
	$(CARGO) build --release --workspace

# The last line starts Kafka, Cassandra and Apicurio, after all is built, so that they do not compete with the compiler.
# It ends with how many service tests ran and were skipped.
test: ## Run all tests, the service suite on real Kafka, Cassandra and Apicurio included
	$(CARGO) test --release --workspace
	$(SERVICE_SUITE) --test simulation --no-run
	$(SIMULATION)
	$(SERVICES) exec --or-skip -- $(SERVICE_SUITE)

# SEEDS=20000 FIRST=5000 runs other seeds, SEED=17 replays one and tells every step, MUTANTS=all prints the table of broken rules.
simulate: ## Run the simulation alone: SEEDS=n, SEED=n or MUTANTS=all
	$(SIMULATION) -- --nocapture

lint: ## Check format and lints, warnings as errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --workspace --all-targets -- -D warnings
	$(CARGO) clippy --release --workspace --all-targets $(TEST_FEATURES) -- -D warnings

fmt: ## Format the code
	$(CARGO) fmt --all

services: ## Start Kafka, Cassandra and Apicurio in the foreground; Ctrl-C stops them
	$(SERVICES) up

up: ## Start campaignd and its services with docker compose
	$(COMPOSE) up --build --detach

logs: ## Follow the logs of docker compose
	$(COMPOSE) logs --follow

down: ## Stop docker compose and remove its data
	$(COMPOSE) down --volumes

demo: ## See campaignd at work in one process, without any service
	$(CARGO) run --release -- demo

clean: ## Remove what was built
	$(CARGO) clean
