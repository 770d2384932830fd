#!/bin/bash
# Prints the caller's PATH, and puts a usable Go in front if the PATH has none: sudo
# replaces the PATH by its secure_path, which seldom contains Go. Go 1.21 or later is
# usable, because it downloads the version that go.mod names.
set -euo pipefail

usable() {
    local version
    version=$(GOTOOLCHAIN=local "$1" env GOVERSION 2>/dev/null) || return 1
    [[ $version =~ ^go1\.([0-9]+) ]] && ((BASH_REMATCH[1] >= 21))
}

# Debian has tcpstates, bpftrace and nft in sbin, which the PATH of a normal user lacks.
for directory in /usr/local/sbin /usr/sbin /sbin; do
    [[ :$PATH: == *":$directory:"* ]] || PATH=$PATH:$directory
done

homes=("${HOME:-/root}")
if [[ -n ${SUDO_USER:-} ]]; then
    homes+=("$(getent passwd "$SUDO_USER" | cut -d: -f6)")
fi

shopt -s nullglob
found=("$(command -v go || true)" /usr/local/go/bin/go)
for home in "${homes[@]}"; do
    found+=("$home"/{go,.go,.local/go,.local}/bin/go "$home"/sdk/go*/bin/go)
done
found+=(/usr/lib/go-*/bin/go /usr/lib/go/bin/go /usr/lib/golang/bin/go /snap/bin/go)
for go in "${found[@]}"; do
    if [[ -x $go ]] && usable "$go"; then
        [[ $(command -v go) == "$go" ]] || PATH=${go%/*}:$PATH
        break
    fi
done
printf '%s\n' "$PATH"
