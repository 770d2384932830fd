#!/bin/bash
# Runs every test: those of internal/ under the race detector, then all without
# it. One package at a time, since tests that trace see the sockets of all.
# Says after each how many passed, and names what was skipped, and why: a
# kernel test that did not run is not to be taken for one that passed.
set -euo pipefail

events=$(mktemp)
trap 'rm -f "$events"' EXIT
failed=0

# run TITLE ARGUMENTS: go test with these arguments; a line per package as it
# ends, then the results.
run() {
    local title=$1
    shift
    echo "== $title"
    go test -json -count=1 -p 1 -timeout 30m "$@" | tee "$events" |
        jq -rj 'select(.Test == null) | .Output // empty | select(. != "PASS\n" and . != "FAIL\n")' ||
        failed=1
    jq -rs --arg title "$title" -f test/check/results.jq "$events"
}

# The race detector needs cgo, and clang is there for bpf/ anyway.
CGO_ENABLED=1 CC=clang-19 run 'internal, with the race detector' -race ./internal/...

if ((EUID == 0)); then
    run 'all' ./...
else
    mapfile -t unprivileged < <(go list ./... | grep -v '/tcpshift/test\(/\|$\)')
    run 'all but ./test, which needs root' "${unprivileged[@]}"
fi

if ((failed)); then
    echo 'test: FAILED' >&2
    exit 1
fi
echo 'test: all passed'
