#!/bin/bash
# Runs each fuzz target for the given time: fuzz.sh 20s. Minimises a new input with at
# most ten runs, because with an empty cache nearly all inputs are new.
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
