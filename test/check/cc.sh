#!/bin/bash
# Prints the first C compiler that finds its headers; the race detector needs one.
set -euo pipefail

for compiler in clang-19 clang gcc cc; do
    if "$compiler" -fsyntax-only -x c - <<<'#include <stdlib.h>' 2>/dev/null; then
        echo "$compiler"
        exit 0
    fi
done
exit 1
