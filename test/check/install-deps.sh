#!/bin/bash
# Installs the Debian packages that make test, check and generate need; does
# nothing where all of them are there.
set -euo pipefail

packages=(
    clang-19 llvm-19 libbpf-dev       # compile bpf/
    clang-format-19 shellcheck        # check
    curl iproute2 jq                  # test: traffic, ss, records
    bpftrace libbpf-tools linux-perf  # test: other tracers to compare with
)

missing=()
for package in "${packages[@]}"; do
    state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [[ $state == installed ]] || missing+=("$package")
done
if ((${#missing[@]} == 0)); then
    exit 0
fi

echo "install-deps: ${missing[*]}"
as_root=()
((EUID == 0)) || as_root=(sudo)
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
