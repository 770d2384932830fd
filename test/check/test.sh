#!/bin/bash
# test.sh [SUITE]: runs every test except the suites that need much, or only one of these: hostile
# (the attacks, TestHostile_), or pipelines, metrics, fleet or look (the directory of that name in test/).
# For a normal user, the tests that need root run through sudo. Each part ends with the number of
# tests that passed, and the skipped tests with their reasons: a kernel test that did not run must
# not look like a success.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

failed=0
left_out=()
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# run TITLE ARGUMENTS: runs go test with these arguments; prints a line for each package as
# it ends, then the results. It does not run vet, which make check-vet does.
run() {
    local title=$1 events began=$SECONDS
    shift
    events=$(mktemp -p "$scratch")
    echo "== $title"
    if ! command -v jq >/dev/null; then
        go test -count=1 -timeout 30m -vet=off "$@" || failed=1
        return
    fi
    go test -json -count=1 -timeout 30m -vet=off "$@" | tee "$events" |
        jq -rj --unbuffered 'select(.Test == null) | .Output // empty | select(. != "PASS\n" and . != "FAIL\n")' ||
        failed=1
    jq -rs --arg title "$title" --argjson seconds $((SECONDS - began)) -f test/check/results.jq "$events"
}

# run_race TITLE ARGUMENTS: run with the race detector, or without it if there is no C
# compiler. The tags keep the Go versions of net and os/user, as in the product.
run_race() {
    local title=$1
    shift
    if [[ -n $compiler ]]; then
        CC=$compiler CGO_ENABLED=1 run "$title, with the race detector" -race -tags netgo,osusergo "$@"
    else
        run "$title" "$@"
    fi
}

# packages_with PATTERN FILES: prints the packages that have a line that matches in such files.
packages_with() {
    git grep -lE --untracked "$1" -- "$2" | sed 's|^|./|; s|/[^/]*$||' | sort -u
}

# Everything except internal/probe. These tests do not see each other's sockets, so two
# packages run at a time. The race detector changes the number of allocations, so the
# packages that count allocations also run without it. Detection, and the tests named Bounded,
# which fill tables, run only without it: one goroutine does their work, and it would take minutes.
unprivileged() {
    local all counting bounded
    mapfile -t all < <(go list ./internal/... ./cmd/... | grep -vE '/internal/(probe|detect)$')
    run_race 'internal and cmd' -p 2 -skip Bounded "${all[@]}"
    mapfile -t counting < <(packages_with 'AllocsPerRun' 'internal/*_test.go')
    mapfile -t bounded < <(packages_with '^func Test\w*Bounded' '*_test.go' | grep -vxFf <(printf '%s\n' "${counting[@]}" ./internal/probe ./internal/detect))
    run 'tables that fill up' -p 2 -run Bounded "${bounded[@]}"
    run 'internal, where allocations count, and internal/detect with 500 simulations' -p 2 ./internal/detect "${counting[@]}"
}

# The tests that load BPF programs. Most trace only namespaces of their own, and most of
# test/detection waits for TIME_WAITs to end: it runs beside test/cli. The others run one package at
# a time, because they measure, or see the sockets of all. One test of test/kernel does nothing for
# a minute: it runs at the same time as the others of that package, as it does in the guests of
# test/kernelmatrix.
privileged() {
    local others waits='^TestTimewait_LastsOneMinute$' waiting
    run_race 'internal/probe' ./internal/probe
    run 'test/cli and test/detection' -p 2 -skip '^TestHostile' ./test/cli ./test/detection
    mapfile -t others < <(go list ./test/... | grep -vE '/test/(cli|detection|kernel|pipelines|metrics|fleet|look|packages|packages/guest)$')
    run 'other tests, except test/kernel' -p 1 -skip '^TestHostile' "${others[@]}"
    (
        failed=0
        run 'test/kernel, the test that waits' -run "$waits" ./test/kernel
        exit "$failed"
    ) &>"$scratch/waiting" &
    waiting=$!
    run 'test/kernel' -skip "$waits" ./test/kernel
    wait "$waiting" || failed=1
    cat "$scratch/waiting"
}

# Attacks of users without privileges, as root only to become such a user.
hostile() {
    local packages
    mapfile -t packages < <(packages_with '^func TestHostile' '*_test.go')
    run 'hostile users' -p 1 -run '^TestHostile' "${packages[@]}"
}

# The examples of deploy/pipelines with the real consumers. They see only their own connections.
pipelines() {
    run 'pipelines' ./test/pipelines
}

# The rules and dashboards of deploy/ with a real Prometheus. It sees only its own connections.
metrics() {
    run 'metrics' ./test/metrics
}

# The schemas and queries of deploy/fleet with real servers and hosts. It sees only its own connections.
fleet() {
    run 'fleet' ./test/fleet
}

# The pages in a real Chromium. They see only their own connections.
look() {
    run 'look' ./test/look
}

# All tests of internal/ once more, because a normal user had to skip some.
skipped_before() {
    local packages
    mapfile -t packages < <(go list ./internal/... | grep -v '/internal/probe$')
    run 'internal, as root' -p 2 "${packages[@]}"
}

# as_root: runs the rest of this script through sudo, with the caller's Go, modules and
# proxies. It downloads all modules first, so that root writes nothing into the caller's
# cache.
as_root() {
    local module
    go mod download
    if [[ $suite == look ]]; then
        go -C test/look/browser mod download
    fi
    if [[ $suite == pipelines ]]; then
        for module in test/pipelines/{brokers,otelcol}/go.mod; do
            go -C "${module%/*}" mod download
        done
    fi
    echo 'test: the rest needs root: sudo'
    local name environment=("PATH=$PATH")
    for name in GOMODCACHE GOPROXY GOSUMDB GOFLAGS GOTOOLCHAIN; do
        environment+=("$name=$(go env "$name")")
    done
    sudo env "${environment[@]}" "CI=${CI:-}" CGO_ENABLED=0 test/check/test.sh --as-root "$suite" || failed=1
}

suite=${1:-all}
if [[ $suite == --as-root ]]; then
    suite=$2
    compiler=$(test/check/cc.sh) || true
    # The tree belongs to another user, which git refuses to read.
    export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0=$PWD
    if [[ $suite != all ]]; then
        "$suite"
    else
        skipped_before
        privileged
    fi
    exit "$failed"
fi

needed='test'
[[ $suite != fleet && $suite != look ]] || needed=$suite
test/check/install-deps.sh "$needed" || left_out+=('what needs a program that is missing')
case $suite in
    pipelines | metrics | fleet) test/check/consumers.sh "$suite" || left_out+=('consumers that are missing') ;;
esac
PATH=$(test/check/path.sh)
if ! command -v go >/dev/null; then
    echo 'test: install Go 1.21 or later: https://go.dev/dl/' >&2
    exit 1
fi
compiler=$(test/check/cc.sh) || left_out+=('the race detector, which needs a C compiler')

go build ./... # both processors; -p 1 would compile one package at a time
[[ $suite != all ]] || unprivileged
if ((EUID == 0)) && [[ $suite != all ]]; then
    "$suite"
elif ((EUID == 0)); then
    privileged
elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [[ -t 0 ]]; }; then
    as_root
else
    left_out+=('internal/probe and test, which need root: run make test as root')
fi

for what in "${left_out[@]}"; do
    echo "test: left out: $what" >&2
done
if ((failed)); then
    echo 'test: FAILED' >&2
    exit 1
fi
if ((${#left_out[@]})); then
    echo 'test: passed, but not everything ran'
else
    echo 'test: all passed'
fi
