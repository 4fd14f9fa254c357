# SPDX-License-Identifier: MPL-2.0
#
# Needs Go, a C toolchain (for the race detector), git and bash. `make` lists the
# targets; `make test` is the command to run before a commit.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# The targets share the Go build cache and two cores: -j gains nothing and would mix
# their output.
.NOTPARALLEL:

NAME := vault-plugin-secrets-mdi
# Nobody can own this host. One command replaces it everywhere with the path under which
# the project is published: see docs/release.md.
MODULE := example.com/vault-plugin-secrets-mdi
# A semantic version with a leading v, as Vault's plugin catalog requires.
VERSION ?= $(or $(shell git describe --tags --match 'v[0-9]*' --dirty 2>/dev/null),v0.1.0-dev)
is-version := ^v(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*)){2}(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$$
LDFLAGS := -s -w -X $(MODULE)/backend.Version=$(VERSION)

# Vault in dev mode registers every file of its plugin directory, so nothing but the
# plugin is there.
PLUGIN := dist/plugins/$(NAME)
TOOLS := .cache/bin
LINT_VERSION := v2.12.2
LINT := $(TOOLS)/golangci-lint-$(LINT_VERSION)
# The linter caches findings with the path of the checkout. With its usual cache, one per
# user, it reported files of another clone that had been deleted.
export GOLANGCI_LINT_CACHE := $(CURDIR)/.cache/golangci-lint
GORELEASER_VERSION := v2.15.1
GORELEASER := $(TOOLS)/goreleaser-$(GORELEASER_VERSION)/goreleaser
COSIGN_VERSION := v3.1.3
COSIGN := $(TOOLS)/cosign-$(COSIGN_VERSION)/cosign
# The tools for SBOMs, licences and packages, whose versions are in scripts/tools/go.mod.
GO_TOOLS := $(TOOLS)/tools
# What npm installs for scripts/clients.
JAVASCRIPT := .cache/javascript
MIN_COVERAGE := 90

progress := scripts/with-progress.sh
# with-args NAME is a command with its arguments, as one word for the shell.
with-args = '$(strip $(1) $(subst ',,$(ARGS)))'

##@ Try it

# The commands on the screen are those that run, so vault and mdi-simulator are on PATH
# under these names. No go run: it would hide signals from the program.
run-dev = vault=$$(scripts/vault.sh) && ln -sf "$$(realpath "$$vault")" $(TOOLS)/vault && \
	$(progress) "compiling the development server" go build -o $(TOOLS)/mdi-dev ./scripts/dev && PATH=$(CURDIR)/$(TOOLS):$$PATH exec $(TOOLS)/mdi-dev

.PHONY: demo
demo: announce build simulator ## Lease a key on a real Vault, install a sensor, revoke, see the key dead
	@$(run-dev) scripts/demo.sh

.PHONY: dev
dev: announce build simulator ## Run Vault in dev mode with the engine at mdi/ until Ctrl-C
	@$(run-dev)

##@ Build

.PHONY: build
build: ## Build the plugin into dist/plugins
	@grep -Eq '$(is-version)' <<<'$(VERSION)' || { \
		echo 'error: VERSION=$(VERSION) is not a semantic version with a leading v, such as v1.2.3' >&2; exit 1; }
	@$(progress) "compiling the plugin" env CGO_ENABLED=0 \
		go build -trimpath -buildvcs=false -ldflags "$(LDFLAGS)" -o $(PLUGIN) ./cmd/$(NAME)

.PHONY: simulator
simulator: ## Build the simulator of Entra and Graph into .cache/bin
	@$(progress) "compiling the simulator" go build -o $(TOOLS)/mdi-simulator ./cmd/mdi-simulator

.PHONY: vault
vault: ## Print the path of a Vault for tests, after building one if there is none
	@scripts/vault.sh

##@ Test

# Says what a target does the first time, before it does it.
.PHONY: announce
announce:
	@scripts/vault.sh -announce

.PHONY: plan
plan:
	@echo "make test: the unit tests with the race detector, those in FIPS mode, and the scenarios on a real Vault: about 10 minutes on two cores. A first run compiles for some minutes more." >&2

.PHONY: test
test: plan announce unit fips acceptance ## Run all tests (10 minutes on two cores)

# Most of these tests wait, so many run side by side. They make many connections, which are
# cheaper without post-quantum key exchange. Less garbage collection speeds up linking.
.PHONY: test-fast
test-fast: export GODEBUG := tlsmlkem=0
test-fast: export GOGC := 400
test-fast: ## Run the unit tests without the race detector, and fewer samples (30 seconds)
	@packages=$$(go list ./... | grep -v '/backend/acceptance'); \
	$(progress) "fast tests" go test -short -p 8 -parallel 32 -vet=off -ldflags='-s -w' -timeout 5m $$packages

.PHONY: unit
unit: ## Run the unit tests with the race detector
	@packages=$$(go list ./... | grep -v '/backend/acceptance'); \
	$(progress) "unit tests (5 minutes on two cores)" go test -race -timeout 20m $$packages

# Strict: what FIPS 140-3 does not allow panics or fails. The module is Go's validated one,
# as docs/security.md advises; the later one cannot be seeded while a test stops the clock.
# Of package backend, those that sign in are enough, with each kind of credential.
.PHONY: fips
fips: export GOFIPS140 := v1.0.0
fips: ## Run the unit tests of what ships in FIPS mode
	@packages=$$(go list -deps ./cmd/$(NAME) | grep '^$(MODULE)/backend/'); \
	export GODEBUG=fips140=only; \
	$(progress) "unit tests in FIPS mode (2 minutes)" go test -count=1 -skip '^TestExplore' $$packages; \
	$(progress) "signing in in FIPS mode" go test -count=1 -run 'SignIn|Credential|Certificate|RotateRoot' ./backend

# go test keeps to itself what a package that passes has skipped: hence TestServer, with -v.
.PHONY: acceptance
acceptance: ## Run the scenarios on a real Vault, or the server that VAULT_BIN names
	@VAULT_BIN=$$(scripts/vault.sh) && export VAULT_BIN; \
	$(progress) "acceptance tests (8 minutes)" go test -count=1 -timeout 25m -skip '^TestServer$$' ./backend/acceptance/...; \
	$(progress) "what the server has" go test -count=1 -v -run '^TestServer$$' ./backend/acceptance

# make server SERVER="openbao newest" prints VAULT_BIN=FILE, for the environment.
.PHONY: server
server: ## Download a server for the acceptance tests: SERVER="openbao newest"
	@file=$$(go run ./scripts/servers $(SERVER)) && "$$file" version >&2 && echo "VAULT_BIN=$$file"

.PHONY: cover
cover: ## Fail if the own tests of a package of the plugin cover too little of it
	@packages=$$(go list -deps ./cmd/$(NAME) | grep '^$(MODULE)/backend'); \
	$(progress) "coverage" scripts/cover.sh $(MIN_COVERAGE) $$packages

.PHONY: mutants
mutants: ## Show that the property test finds each known way to break the engine (minutes)
	@$(progress) $(call with-args,mutants) go run ./scripts/mutants $(ARGS)

MDI_CHAOS_ROUNDS ?= 50
MDI_FUZZTIME ?= 10m
MDI_RACE_RUNS ?= 10
MDI_SOAK_ROUNDS ?= 3

.PHONY: soak
soak: soak-race soak-explore soak-histories soak-storage soak-fuzz soak-chaos ## Run the long tests (hours)

.PHONY: soak-race
soak-race:
	@packages=$$(go list ./... | grep -v '/backend/acceptance'); \
	$(progress) "$(MDI_RACE_RUNS) race runs" go test -race -count=$(MDI_RACE_RUNS) -timeout 3h $$packages

.PHONY: soak-explore
soak-explore:
	@MDI_EXPLORE=all $(progress) "every world of the key's rule" \
		go test -count=1 -timeout 90m -run '^TestExplore' -v ./backend/accesskey

MDI_HISTORIES ?= 1000

.PHONY: soak-histories
soak-histories:
	@$(progress) "20 times $(MDI_HISTORIES) random histories" \
		go test -count=1 -timeout 60m -run TestHistories ./backend -rapid.checks=$(MDI_HISTORIES)

.PHONY: soak-storage
soak-storage:
	@MDI_SOAK_ROUNDS=$(MDI_SOAK_ROUNDS) $(progress) "storage faults" \
		go test -race -count=1 -timeout 60m -run TestEveryStorageOperationFailsOnce ./backend

.PHONY: soak-fuzz
soak-fuzz:
	@for package in ./backend ./backend/graph; do \
		for target in $$(go test -list '^Fuzz' $$package | grep '^Fuzz'); do \
			$(progress) "fuzzing $$target for $(MDI_FUZZTIME)" \
				go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(MDI_FUZZTIME) -timeout 0 $$package; \
		done; \
	done

# -v shows the numbers. Only make test searches the logs for secrets: the search needs the
# output of all scenarios.
.PHONY: soak-chaos
soak-chaos: export MDI_CHAOS_ROUNDS := $(MDI_CHAOS_ROUNDS)
soak-chaos:
	@VAULT_BIN=$$(scripts/vault.sh) && export VAULT_BIN; \
	$(progress) "$(MDI_CHAOS_ROUNDS) rounds of chaos" \
		go test -count=1 -v -timeout 6h -run '^TestAcceptance$$/^scenarios$$/^failover$$' ./backend/acceptance

##@ Measure

.PHONY: tenant-check
tenant-check: ## Compare a test tenant with what the engine assumes; regenerates its key (see ARGS="-help")
	@go run ./scripts/tenantcheck $(ARGS)

.PHONY: bench
bench: ## Compare the engine with one that does nothing and with two others (minutes; see ARGS="-help")
	@VAULT_BIN=$$(scripts/vault.sh) && export VAULT_BIN; $(progress) $(call with-args,bench) go run ./scripts/bench $(ARGS)

.PHONY: fleet
fleet: ## Have many hosts read and register at once on a real Vault (see ARGS="-help")
	@VAULT_BIN=$$(scripts/vault.sh) && export VAULT_BIN; $(progress) $(call with-args,fleet) go run ./scripts/fleet $(ARGS)

##@ Check

.PHONY: lint
lint: $(LINT) ## Run the linters
	@$(MAKE) --no-print-directory prose
	@$(progress) "linters" $(LINT) run --allow-parallel-runners ./...
	@for module in bench/plot integrations/check integrations/external-secrets/check clients tools; do \
		(cd scripts/$$module && $(CURDIR)/$(progress) "linters in scripts/$$module" $(CURDIR)/$(LINT) run --allow-parallel-runners ./...); done

# What is generated is not read: docs/faults.md has lists of faults for sentences.
.PHONY: prose
prose: ## Find long sentences, and phrases for which there is a plainer one
	@go run ./scripts/prose $$(git ls-files '*.md' '*.go' | grep -v -e _test.go -e docs/faults.md)

.PHONY: vet
vet: ## Run go vet
	@$(progress) "go vet" go vet ./...

.PHONY: fmt
fmt: $(LINT) ## Format the code
	$(LINT) fmt ./...

.PHONY: deps-check
deps-check: ## Check the direction of imports, what ships, and the modules against go.sum
	@$(progress) "dependencies" scripts/deps-check.sh

# Without a package in the command, go test prints which clients this machine lacks.
.PHONY: integrations-check
integrations-check: ## Check the examples in scripts/integrations with the tools that they are for
	@VAULT_BIN=$$(scripts/vault.sh) && export VAULT_BIN; \
	$(progress) "integrations" go test -C scripts/integrations/check -count=1; \
	$(progress) "External Secrets Operator; its first build takes minutes" go test -C scripts/integrations/external-secrets/check -count=1

# Without npm, the test of the clients for JavaScript is skipped, and -v shows that.
ifneq ($(shell command -v npm),)
clients-check: $(JAVASCRIPT)
endif
.PHONY: clients-check
clients-check: ## Run Microsoft's own clients for Go and JavaScript against the simulator
	@$(progress) "Microsoft's clients; their first build takes minutes" go test -C scripts/clients -count=1 -v ./...

.PHONY: licences
licences: $(GO_TOOLS) ## Check that the plugin's licence allows the licences of all its modules
	@PATH=$(abspath $(GO_TOOLS)):$$PATH $(progress) "licences" scripts/licences.sh

$(JAVASCRIPT): $(addprefix scripts/clients/javascript/,package.json package-lock.json)
	@rm -rf $@ $@.new && mkdir -p $@.new && cp $^ $@.new
	@$(progress) "installing Microsoft's clients for JavaScript" npm ci --ignore-scripts --prefix $@.new
	@mv $@.new $@ && touch $@

# The tools are built outside of this module, so that go.mod stays free of their
# dependencies.
$(LINT):
	@mkdir -p $(TOOLS)/lint.new
	@GOBIN=$(abspath $(TOOLS)/lint.new) GOFLAGS= $(progress) "building golangci-lint $(LINT_VERSION), once" \
		go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)
	@mv $(TOOLS)/lint.new/golangci-lint $@ && rmdir $(TOOLS)/lint.new

$(GORELEASER):
	@GOBIN=$(abspath $(@D)).new GOFLAGS= $(progress) "building goreleaser $(GORELEASER_VERSION), once" \
		go install github.com/goreleaser/goreleaser/v2@$(GORELEASER_VERSION)
	@rm -rf $(@D) && mv $(@D).new $(@D)

$(COSIGN):
	@GOBIN=$(abspath $(@D)).new GOFLAGS= $(progress) "building cosign $(COSIGN_VERSION), once" \
		go install github.com/sigstore/cosign/v3/cmd/cosign@$(COSIGN_VERSION)
	@rm -rf $(@D) && mv $(@D).new $(@D)

$(GO_TOOLS): scripts/tools/go.mod scripts/tools/go.sum $(wildcard scripts/tools/*/*.go)
	@rm -rf $@ $@.new
	@$(progress) "building the tools of scripts/tools, once" go build -C scripts/tools -o $(abspath $@).new/ tool
	@mv $@.new $@

##@ Release

with-release-tools := PATH=$(abspath $(dir $(GORELEASER))):$(abspath $(dir $(COSIGN))):$(abspath $(GO_TOOLS)):$$PATH

.PHONY: release-lint
release-lint: $(GORELEASER) licences ## Check the configuration of releases, and that two builds for this machine are equal
	$(GORELEASER) check
	@$(with-release-tools) scripts/release/check.sh -quick

.PHONY: release-check
release-check: $(GORELEASER) $(COSIGN) $(GO_TOOLS) ## Build a release twice, compare, sign, look into packages, register on a Vault (15 minutes)
	@$(with-release-tools) scripts/release/check.sh

# For the workflow that follows a tag. It needs a token of GitHub, and Docker.
.PHONY: release
release: $(GORELEASER) $(COSIGN) $(GO_TOOLS)
	@rm -rf dist/register && mkdir -p dist
	scripts/release/notes.sh $(VERSION) >dist/notes.md
	@$(with-release-tools) $(progress) "release" goreleaser release --clean --release-notes=dist/notes.md

##@ Other

.PHONY: clean
clean: ## Remove what was built, except for the Vault, which takes minutes
	rm -rf dist $(TOOLS)/mdi-simulator $(TOOLS)/mdi-dev .cache/cover.out

.PHONY: help
help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@/ { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  %-18s  %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
