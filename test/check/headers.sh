#!/bin/bash
# Compiles each header of bpf/ alone, and fails if a header does not include all that it
# uses. So the order of includes does not matter.
set -euo pipefail

flags=(-target bpf -mcpu=v3 -fsyntax-only -Wall -Wextra -Werror
    -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu)

status=0
for header in bpf/*.h; do
    for arch in x86 arm64; do
        if ! clang-19 "${flags[@]}" "-D__TARGET_ARCH_$arch" -include "$header" -x c /dev/null; then
            echo "$header does not compile alone" >&2
            status=1
        fi
    done
done
exit "$status"
