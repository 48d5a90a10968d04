# Everything a developer does here, one target each. One cargo profile (release) serves all of them, so that the
# dependencies are built once.

CARGO ?= cargo
COMPOSE ?= docker compose --file docker/compose.yaml
SERVICE_SUITE = $(CARGO) test --release --features pause-points --test service
SERVICES = $(CARGO) run --release --package services --

.DEFAULT_GOAL := help
.PHONY: help build test lint fmt services up logs down demo clean

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build campaignd and the services tool
	$(CARGO) build --release --workspace

# The last line starts Kafka, Cassandra and Apicurio, after all is built, so that they do not compete with the compiler.
# It ends with how many service tests ran and were skipped.
test: ## Run all tests, the service suite on real Kafka, Cassandra and Apicurio included
	$(CARGO) test --release --workspace
	$(SERVICE_SUITE) --no-run
	$(SERVICES) exec --or-skip -- $(SERVICE_SUITE)

lint: ## Check format and lints, warnings as errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --workspace --all-targets -- -D warnings
	$(CARGO) clippy --release --workspace --all-targets --features pause-points -- -D warnings

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
