#!/bin/bash
# release.sh DIRECTORY: makes what belongs to a release, in the directory, from the tag of the commit: the
# packages and binaries of build.sh, lists of the modules in the binaries (CycloneDX), and checksums.txt.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

refuse() {
    echo "release: $1" >&2
    exit 2
}

changes=$(git status --porcelain) || refuse 'this is no git repository: a release is made from a tag'
[[ -z $changes ]] || refuse "the tree has changes, such as '${changes%%$'\n'*}': commit or remove them"
tag=$(git describe --tags --exact-match --match 'v[0-9]*' 2>/dev/null) ||
    refuse 'the commit has no tag: git tag -a v1.2.3 -m 1.2.3'
[[ $tag =~ ^v(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)$ ]] ||
    refuse "the tag $tag is no version, such as v1.2.3"
version=${tag#v}

deploy/packages/build.sh "$version" "$1"
dist=$(realpath "$1")
# The lists have a checksum of the tool, so it is built without paths. They have no time, no random number,
# and no licences, for which the tool asks the network: licences.txt in the packages has these.
export CGO_ENABLED=0 GOFLAGS=-trimpath
for arch in amd64 arm64; do
    go tool -modfile=.tools/release.mod cyclonedx-gomod bin -json -output-version 1.6 -std \
        -noserial -notimestamp -version "v$version" -output "$dist/tcpshift-linux-$arch.cdx.json" \
        "$dist/tcpshift-linux-$arch" 2>"$dist/sbom.log" || { cat "$dist/sbom.log" >&2; exit 1; }
done
rm "$dist/sbom.log"
cd "$dist"
sha256sum tcpshift-linux-* ./*.deb ./*.rpm | sed 's|\./||' >checksums.txt
