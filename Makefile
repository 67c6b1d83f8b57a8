# Everything a developer runs. `make help` lists it.

VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
PORT     ?= 8000
FUZZTIME ?= 30s
# What make bench measures: SUITES="wsgi asgi", or all; how often, and how many
# seconds each time.
SUITES   ?=
ROUNDS   ?= 5
SECONDS  ?= 2
# Packages tested at a time: their tests start many processes of their own.
JOBS     ?= 2

GO_BUILD := CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)'

EXTENSION := scripts/gatecrew_worker/_speed.abi3.so

.PHONY: help build run setup lint test fuzz soak bench pgo clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Optional: without a C compiler and Python.h the workers run in pure Python.
$(EXTENSION): scripts/gatecrew_worker/_speed.c scripts/build-extension.sh
	@scripts/build-extension.sh

build: $(EXTENSION) ## build bin/gatecrew, one static binary
	$(GO_BUILD) -o bin/gatecrew ./cmd/gatecrew

run: build ## serve examples/ on loopback; PORT=8000
	@echo 'Open http://127.0.0.1:$(PORT)/ in a browser; Ctrl-C stops.'
	@exec bin/gatecrew serve -c examples/gatecrew.yaml --bind 127.0.0.1:$(PORT)

setup: ## install what the tests need (Debian packages, .build/venv)
	@test/setup.sh

lint: ## gofmt, go vet, staticcheck
	@bad=$$(gofmt -l bench cmd gateway procpool protocol scripts test); \
	if [ -n "$$bad" ]; then echo "not gofmt-ed: $$bad" >&2; exit 1; fi
	go vet ./...
	go tool staticcheck ./...

# -count=1: Go's cache of test results can't know that a test ran the binary.
test: ## everything a change must pass; 15 minutes on 2 cores
	@$(MAKE) --no-print-directory -j2 setup lint
	@$(MAKE) --no-print-directory $(EXTENSION)
	go test -race -count=1 -p $(JOBS) -timeout 20m ./...
	test/python.sh

fuzz: ## run every fuzz function for FUZZTIME=30s each, and the C extension against its reference
	@set -e; for pkg in $$(go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' ./...); do \
		listed=$$(go test -list '^Fuzz' $$pkg); \
		for name in $$(echo "$$listed" | grep '^Fuzz' || true); do \
			echo "$$pkg $$name"; \
			go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) $$pkg; \
		done; \
	done
	scripts/fuzz-extension.sh

soak: setup ## the long runs: the same tests with SOAK=1
	SOAK=1 go test -race -count=1 -p 1 -timeout 6h ./...

bench: build ## gatecrew beside its peers, three quarters of an hour; SUITES="wsgi asgi" ROUNDS=3
	bench/setup.sh
	bench/bench.py $(SUITES) --rounds $(ROUNDS) --seconds $(SECONDS) --output .build/bench/results.json --publish

pgo: ## refresh the profile that the compiler optimises by; idle machine, wrk
	bench/pgo/collect.sh

clean: ## remove everything that was built, downloaded or cached here
	rm -rf bin .build $(EXTENSION)
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
