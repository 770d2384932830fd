#!/bin/bash
# Prints the version: 1.2.3 for the tag v1.2.3, else that of the next release, such as 0.1.0~dev+abc1234.
# dpkg and rpm sort it before 0.1.0.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

next=0.1.0
if tag=$(git describe --tags --exact-match --match 'v[0-9]*' --dirty 2>/dev/null) && [[ $tag != *-dirty ]]; then
    echo "${tag#v}"
elif commit=$(git describe --always --dirty=.dirty --exclude '*' 2>/dev/null); then
    echo "$next~dev+$commit"
else
    echo "$next~dev"
fi
