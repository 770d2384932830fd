#!/bin/bash
# look.sh: fetches what the pages of tcpshift embed from other projects, and writes it into the tree. Each package has
# its version and the hash of its archive here; another archive is refused. Needs npm.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

package=uplot version=1.6.32
integrity=KIMVnG68zvu5XXUbC4LQEPnhwOxBuLyW1AHtpm6IKTXImkbLgkMy+jabjLgSLMasNuGGzQm/ep3tOkyTxpiQIw== # SHA-512

command -v npm >/dev/null || { echo 'look: needs npm' >&2; exit 1; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

npm pack --silent --pack-destination "$scratch" "$package@$version" >/dev/null
archive=$scratch/$package-$version.tgz
found=$(openssl dgst -sha512 -binary "$archive" | base64 -w 0)
if [[ $found != "$integrity" ]]; then
    echo "look: $package $version has the hash $found, not $integrity" >&2
    exit 1
fi
tar -xzf "$archive" -C "$scratch"
install -m 644 "$scratch"/package/{dist/uPlot.iife.min.js,dist/uPlot.min.css,LICENSE} internal/report/page/uplot/
echo "look: $package $version"
