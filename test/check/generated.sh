#!/bin/bash
# Fails if internal/bpfobj differs by a byte from what bpf/ compiles to. Compiles in a
# copy, because a check must not write into the tree.
set -euo pipefail

dir=internal/bpfobj
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT

mkdir "$copy/internal"
cp -r go.mod go.sum bpf "$copy"
cp -r "$dir" "$copy/internal"
find "$copy/$dir" -name '*_bpf.*' -delete
(cd "$copy" && go generate "./$dir")

status=0
while read -r name; do
    if ! cmp -s "$dir/$name" "$copy/$dir/$name"; then
        echo "$dir/$name differs from what bpf/ compiles to" >&2
        status=1
    fi
done < <({ ls "$dir"; ls "$copy/$dir"; } | sort -u)

if ((status)); then
    echo "run make generate, with $(clang-19 --version | head -n 1)" >&2
fi
exit "$status"
