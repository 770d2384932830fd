#!/bin/bash
# Runs each fuzz target of the tree for the time given: fuzz.sh 20s. Each input that
# is new is minimised by a few tries only: with an empty cache nearly all are new.
set -euo pipefail

time=$1

packages=$(go list ./...)
for package in $packages; do
    listed=$(go test -list '^Fuzz' "$package")
    mapfile -t targets < <(grep '^Fuzz' <<<"$listed")
    for target in "${targets[@]}"; do
        echo "fuzz: $package $target"
        go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 10x "$package"
    done
done
