#!/bin/bash
# later.sh PACKAGE.deb OTHER.deb: makes the same package with a later version, compressed in little time.
set -euo pipefail

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
dpkg-deb -R "$1" "$tree/package"
sed -i 's/^Version: .*/&.1/' "$tree/package/DEBIAN/control"
dpkg-deb -Zgzip -z1 --root-owner-group -b "$tree/package" "$2" >/dev/null
