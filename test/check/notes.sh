#!/bin/bash
# Fails if a comment about unfinished work has no link to an issue. The words are spelled
# so that this file does not match itself.
set -euo pipefail

words='\b(TO[D]O|FIX[M]E|X[X]X)\b'
issue='https?://[^ ]+/issues/[0-9]+'

status=0
notes=$(git grep --untracked -nIE "$words" -- ':!*go.sum' ':!*/testdata/*') || status=$?
if ((status > 1)); then
    exit "$status"
fi
if notes=$(grep -vE "$issue" <<<"$notes" | grep .); then
    printf '%s\n' "$notes" 'finish the work, or open an issue and put its address in the line' >&2
    exit 1
fi
