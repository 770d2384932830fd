# `make` alone lists the targets. A recipe of more than a few lines is a script in
# test/check.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

# The BPF objects are the only C in the program, so nothing is built with cgo.
export CGO_ENABLED := 0

# Finds Go, which sudo's PATH seldom contains. Debian's Go downloads the version that
# go.mod names only with GOTOOLCHAIN=auto.
export PATH := $(shell test/check/path.sh)
export GOTOOLCHAIN ?= auto

VERSION = $(shell deploy/packages/version.sh)
TOOL = go tool -modfile=.tools/go.mod
AS_ROOT = $(if $(filter-out 0,$(shell id -u)),sudo)
FUZZTIME ?= 20s
SOCKETS ?= 200000

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/tcpshift
	@command -v go >/dev/null || { echo 'build: install Go 1.21 or later: https://go.dev/dl/' >&2; exit 1; }
	go build -trimpath -ldflags '-X main.version=$(VERSION)' -o bin/tcpshift ./cmd/tcpshift

.PHONY: packages
packages: ## build static binaries, deb and rpm packages for amd64 and arm64, and checksums, in dist
	deploy/packages/build.sh '$(VERSION)' dist

.PHONY: image
image: packages ## build the container image for amd64 and arm64 as an OCI layout, dist/image, without a container engine
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) go -C deploy/image run . '$(VERSION)' '$(CURDIR)/dist' '$(CURDIR)/dist/image'

.PHONY: release
release: ## build what belongs to a release, in dist, from the tag of the commit: packages, lists of modules, checksums
	@deploy/packages/release.sh dist

.PHONY: test-packages
test-packages: ## test units, packages, releases, the service in a guest with systemd, the manifests and image of Kubernetes
	@test/check/install-deps.sh packages
	$(AS_ROOT) $(if $(AS_ROOT),env "PATH=$$PATH") go test -count=1 -timeout 60m -v ./test/packages ./test/service
	$(AS_ROOT) $(if $(AS_ROOT),env "PATH=$$PATH") go -C test/kubernetes test -count=1 -v .

# On a terminal, make run prints text. It leaves that to ARGS if they choose the format or an output, name a command
# of tcpshift, or contain a command to trace.
CHOOSES_FORMAT = --format% --schema% --fields% --output% --config% --profile% --
TEXT = $(if $(filter $(CHOOSES_FORMAT),$(ARGS))$(filter-out -%,$(firstword $(ARGS))),,--format text)

.PHONY: run
run: build ## build and run as root, as text on a terminal: make run ARGS='--port 443'
	if [ -t 1 ]; then $(AS_ROOT) bin/tcpshift $(TEXT) $(ARGS); else $(AS_ROOT) bin/tcpshift $(ARGS); fi

.PHONY: test
test: ## install what the tests need, then run the tests; uses sudo where it needs root
	@test/check/test.sh

.PHONY: test-hostile
test-hostile: ## run the attacks of users without privileges; uses sudo as make test does
	@test/check/test.sh hostile

.PHONY: test-pipelines
test-pipelines: ## run the examples of deploy/pipelines with the real consumers; uses sudo as make test does
	@test/check/test.sh pipelines

.PHONY: test-metrics
test-metrics: ## run the rules and dashboards of deploy/ with a real Prometheus beside a storm; uses sudo as make test does
	@test/check/test.sh metrics

.PHONY: test-fleet
test-fleet: ## run the schemas and queries of deploy/fleet with real ClickHouse servers and three hosts; uses sudo as make test does
	@test/check/test.sh fleet

.PHONY: fleet-sizing
fleet-sizing: ## measure what ROWS (20000000) connections take in ClickHouse, write it into docs/fleet.md
	test/check/consumers.sh fleet
	go test ./test/fleet -count=1 -timeout 3h -v -run TestSizing -rows $(or $(ROWS),20000000) -doc ../../docs/fleet.md

.PHONY: test-look
test-look: ## the pages of tcpshift in a real Chromium, top in a real terminal, beside a storm; uses sudo as make test does
	@test/check/test.sh look

.PHONY: pictures
pictures: ## make the pictures of the docs again: three minutes
	@test/check/install-deps.sh look
	$(AS_ROOT) $(if $(AS_ROOT),env "PATH=$$PATH") go test ./test/look -count=1 -timeout 20m -v -run TestPictures -pictures ../../docs/pictures

.PHONY: test-kernels
test-kernels: ## run the kernel tests on other kernels, in QEMU: SHORT=1 KERNELS=6.12 ARCH=arm64 RUN=Storm COUNT=10 ENV=TCPSHIFT_STORM_LOAD=2 DOC=1
	@CI=true nice -n 5 go run ./test/kernelmatrix -kernels '$(KERNELS)' -arch '$(ARCH)' -run '$(RUN)' -count '$(or $(COUNT),1)' -env '$(ENV)' $(if $(SHORT),-short) $(if $(DOC),-doc docs/kernels.md)

.PHONY: bench
bench: ## run the benchmarks of internal/
	go test -run '^$$' -bench . -benchmem ./internal/...

.PHONY: compare
compare: ## run other tools beside tcpshift in ten everyday cases, write docs/comparison.md
	@test/check/install-deps.sh compare
	$(AS_ROOT) $(if $(AS_ROOT),env "PATH=$$PATH") go test ./test/peers -count=1 -v -run Compare -doc ../../docs/comparison.md

.PHONY: pipeline-cost
pipeline-cost: ## measure how many bytes a connection costs in a log pipeline, write it into docs/pipelines.md
	$(AS_ROOT) $(if $(AS_ROOT),env "PATH=$$PATH") go test ./test/pipelines -count=1 -v -run Cost -connections 10000 -doc ../../docs/pipelines.md

.PHONY: yardstick
yardstick: ## compare the transitions of ten storms with the counts of perf; needs an idle machine
	go test ./test/peers -count=1 -run Perf -v -connections 100000 -rounds 10

.PHONY: bench-load
bench-load: ## measure the cost of tracing, append it to docs/performance.md; needs an idle machine
	go test ./test/load -count=1 -timeout 2h -v -run TestCost -warm -connections 100000 -requests 400000 -rounds 3 -pause 2s -idle 30s -doc ../../docs/performance.md

.PHONY: bench-scale
bench-scale: ## measure one ring shared by two cores, and many open sockets; needs an idle machine
	go test ./test/load -count=1 -v -run "OneRing|LiveSockets" -records 400000 -rounds 20 -sockets $(SOCKETS)

.PHONY: bench-scrape
bench-scrape: ## measure what a scrape a second costs with 10,000 sockets of 200 services, and how many series there are
	$(AS_ROOT) $(if $(AS_ROOT),env "PATH=$$PATH") go test ./test/metrics -count=1 -v -run TestScrape_Cost -scrape-time 20s -scrape-limit 1
	go test ./internal/metrics -count=1 -v -run 'TestMetrics_(Bounded|MostSeries)'

.PHONY: bench-top
bench-top: ## measure what tcpshift top costs at 10,000 connections a second; fails from 5 % of a core on; needs an idle machine
	@test/check/install-deps.sh look
	$(AS_ROOT) $(if $(AS_ROOT),env "PATH=$$PATH") go test ./test/look -count=1 -v -run TestTop_Cost -top-limit 5

.PHONY: bench-start
bench-start: ## measure the memory of a start on a large host: 1,000,000 sockets, 10,000 namespaces, 5,000 cgroups
	go test ./test/load -count=1 -timeout 1h -v -run StartMemory -sockets 1000000 -namespaces 10000 -cgroups 5000

.PHONY: soak
soak: ## run half an hour of mixed load with every feature on; memory must not grow, counts must add up
	go test ./test/load -count=1 -timeout 1h -v -run Soak -soak 30m

.PHONY: test-long
test-long: ## run what takes too long for every change: 10,000 simulations of detection, the pipeline into Loki, the soaks
	go test ./internal/detect -count=1 -timeout 2h -v -run TestSimulation -simulations 10000
	$(AS_ROOT) $(if $(AS_ROOT),env "PATH=$$PATH") go test ./test/pipelines -count=1 -timeout 1h -v -run TestLoki -loki
	$(MAKE) soak soak-losses soak-chaos

.PHONY: soak-storms
soak-storms: ## run ten minutes of mixed load that must raise no alert
	go test ./test/detection -count=1 -timeout 30m -run NoneUnderNormalLoad -v -load-duration 10m

.PHONY: soak-losses
soak-losses: ## run an hour of mixed load with forced losses and restarts; no alert may be left
	go test ./test/detection -count=1 -timeout 90m -run Soak -v -soak 1h

.PHONY: soak-starved
soak-starved: ## run the same for SOAK (1h) beside a busy loop of a high priority on each CPU
	go test ./test/detection -count=1 -timeout 3h -run Soak -v -soak $(or $(SOAK),1h) -busy-loops $(shell nproc)

.PHONY: soak-chaos
soak-chaos: ## run half an hour of random attacks beside a polite load, and half a million connections beside a storm
	go test ./test/detection -count=1 -timeout 60m -run 'TestHostile_(Chaos|ManyConnections)' -v -chaos 30m -flood 500000

.PHONY: fuzz
fuzz: ## run each fuzz target for FUZZTIME (20s)
	@test/check/fuzz.sh $(FUZZTIME)

.PHONY: generate
generate: ## compile bpf/ into internal/bpfobj, write the schemas of deploy/fleet
	go generate ./internal/bpfobj ./deploy/fleet/ddl

CHECKS := check-format check-vet check-build check-lint check-staticcheck check-c \
	check-headers check-shell check-generated check-modules check-licences check-notes check-docs check-bench

.PHONY: check
check: ## run every check; one alone: make check-lint; no check writes into the tree
	@$(MAKE) --no-print-directory --keep-going $(CHECKS)
	@echo 'check: all passed'

.PHONY: install-deps
install-deps: ## install the Debian packages for test, compare, check and generate
	@test/check/install-deps.sh all

.PHONY: generate-look
generate-look: ## fetch what the pages embed from other projects, by its hash; needs npm
	@test/check/look.sh

.PHONY: clean
clean: ## remove what was built
	rm -rf bin dist

.PHONY: $(CHECKS)

check-format:
	@files=$$(gofmt -l .); [[ -z $$files ]] || { echo "run gofmt -w" $$files >&2; exit 1; }

check-vet:
	GOARCH=amd64 go vet ./...
	GOARCH=arm64 go vet ./...

check-build:
	GOARCH=arm64 go build -o /dev/null ./...

check-lint:
	$(TOOL) golangci-lint run ./...

check-staticcheck:
	$(TOOL) staticcheck ./...

check-c:
	clang-format-19 --dry-run --Werror bpf/*.[ch]

check-headers:
	@test/check/headers.sh

check-shell:
	shellcheck .ci/run $$(find test deploy -name '*.sh')

check-generated:
	@test/check/generated.sh

check-modules:
	@go mod tidy -diff || { echo 'run go mod tidy' >&2; exit 1; }

check-licences:
	@go test -count=1 -run TestDependencies ./test/service

check-notes:
	@test/check/notes.sh

check-docs:
	@test/check/docs.sh

check-bench: # each benchmark runs once, so that none is broken unseen
	@go test -run '^$$' -bench . -benchtime 1x ./internal/... >/dev/null || \
		{ echo "a benchmark fails: run go test -run '^\$$' -bench . -benchtime 1x ./internal/..." >&2; exit 1; }
