#!/bin/bash
# build.sh VERSION DIRECTORY: makes static binaries for amd64 and arm64, man pages, completions, deb and
# rpm packages, and checksums.txt, in the directory. Equal sources give equal bytes, in whatever folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

version=$1
mkdir -p "$2"
dist=$(realpath "$2")
rm -rf "${dist:?}"/*
export CGO_ENABLED=0
# The time of everything in the packages: that of the commit.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || echo 0)
export SOURCE_DATE_EPOCH

for arch in amd64 arm64; do
    GOARCH=$arch go build -trimpath -buildvcs=false -ldflags "-s -w -buildid= -X main.version=$version" \
        -o "$dist/tcpshift-linux-$arch" ./cmd/tcpshift
done

go test -count=1 -vet=off -run '^TestManual' ./cmd/tcpshift -manual "$dist/man" >/dev/null
find "$dist/man" -type f -exec gzip -9n {} +
mkdir "$dist/completion"
host=$dist/tcpshift-linux-$(go env GOHOSTARCH)
"$host" completion bash >"$dist/completion/tcpshift.bash"
"$host" completion zsh >"$dist/completion/_tcpshift"
"$host" completion fish >"$dist/completion/tcpshift.fish"
cp -r deploy/systemd docs "$dist"
cp CHANGELOG.md "$dist/docs"
cp deploy/packages/lintian-overrides "$dist"
deploy/packages/licences.sh >"$dist/docs/licences.txt"
{
    echo 'tcpshift: https://github.com/tcpshift/tcpshift'
    echo
    cat NOTICE
    echo
    echo 'On Debian the Apache License 2.0 is /usr/share/common-licenses/Apache-2.0.'
    echo 'The licences of the modules in the program are in licences.txt beside this file.'
} >"$dist/copyright"
gzip -9nc >"$dist/changelog.gz" <<END
tcpshift ($version) unstable; urgency=medium

  * See CHANGELOG.md.

 -- The tcpshift authors <tcpshift@users.noreply.github.com>  $(date -ud "@$SOURCE_DATE_EPOCH" '+%a, %d %b %Y %H:%M:%S +0000')
END
find "$dist" -exec touch -hd "@$SOURCE_DATE_EPOCH" {} +

for arch in amd64 arm64; do
    for format in deb rpm; do
        ARCH=$arch VERSION=$version DIST=$dist go tool -modfile=.tools/packages.mod nfpm package \
            --config deploy/packages/nfpm.yaml --packager "$format" --target "$dist" >"$dist/nfpm.log" || { cat "$dist/nfpm.log" >&2; exit 1; }
    done
done
rm -r "$dist"/{nfpm.log,man,completion,systemd,docs,changelog.gz,copyright,lintian-overrides}
cd "$dist"
sha256sum tcpshift-linux-* ./*.deb ./*.rpm | sed 's|\./||' >checksums.txt
