# The verbs of a contributor; "make" lists them. CONTRIBUTING.md says when to use which.
# Everything but modules and race works with nothing but Go.

GO ?= go
FUZZTIME ?= 10s
# The packages in which things happen at once.
RACY = ./cli/... ./host ./host/abi/... ./metrics/... ./runtime/... ./server/...

.DEFAULT_GOAL := help
.PHONY: help
help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build ./torpor, static
	CGO_ENABLED=0 $(GO) build -trimpath -o torpor .

.PHONY: test
test: ## go test ./..., and which tests were skipped for want of which program
	$(GO) tool -modfile=tools/go.mod gotestsum --format pkgname -- ./...

.PHONY: race
race: ## run the tests with the race detector (needs a C compiler)
	CGO_ENABLED=1 $(GO) test -race -short $(RACY)

.PHONY: lint
lint: ## gofmt, go vet, golangci-lint as pinned in tools/go.mod
	@test -z "$$(gofmt -l .)" || { echo "gofmt would change:"; gofmt -l .; exit 1; }
	$(GO) vet ./...
	$(GO) tool -modfile=tools/go.mod golangci-lint run ./...

.PHONY: fmt
fmt: ## format all Go files
	gofmt -w .

.PHONY: modules
modules: ## rebuild the built-in serializers (needs Debian's rustc, see modules/build.sh)
	modules/build.sh

.PHONY: fuzz
fuzz: ## fuzz every target for FUZZTIME (default 10s) each
	tools/fuzz.sh $(FUZZTIME)

.PHONY: bench
bench: ## measure, and print the table of tests/bench/RESULTS.md
	$(GO) run ./tests/bench

.PHONY: golden
golden: ## write the golden files of this format version anew; read CONTRIBUTING.md first
	$(GO) test ./runtime/statefile -run '^TestGolden$$' -update

.PHONY: man
man: ## write the manual pages in man/ anew, from the help texts
	$(GO) test ./cli -run '^TestManPages$$' -update-man

.PHONY: ci
ci: ## all that CI does; installs what it needs, on Debian 12 as root
	.ci/run

.PHONY: clean
clean: ## remove what make has built
	rm -f torpor
