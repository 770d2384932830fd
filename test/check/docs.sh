#!/bin/bash
# Fails if docs and code use different words. The last section of docs/glossary.md is a
# table of old words (left) and new words (right). Only words in code font are checked,
# because the others are also ordinary English.
set -euo pipefail

glossary=docs/glossary.md
status=0

fail() {
    echo "docs: $1" >&2
    status=1
}

# code_in COLUMN: the words in code font in a column of the table.
# shellcheck disable=SC2016
code_in() {
    sed -n '/^## Old and new names/,$p' "$glossary" | grep '^|' | cut -d '|' -f "$1" |
        grep -o '`[^`]*`' | tr -d '`' | sort -u
}

# search OPTION...: git grep in everything but the places where old words may stand.
search() {
    git grep --untracked -nI "$@" -- ':!CHANGELOG.md' ":!$glossary" ':!*go.sum' ||
        (($? == 1))
}

mapfile -t old < <(code_in 2)
mapfile -t new < <(code_in 3)
if ((${#old[@]} < 50 || ${#new[@]} < 50)); then
    fail "there is no table of names in $glossary"
fi

found=$(printf '%s\n' "${old[@]}" | search -wFf -)
[[ -z $found ]] || fail "old names; $glossary has the new ones"$'\n'"$found"

# Spelt so that this file does not match itself.
found=$(search -wiE 'twi[n]s?|strange[r]s?|afterlif[e]|untol[d]')
[[ -z $found ]] || fail "old words; $glossary has the new ones"$'\n'"$found"

found=$(git ls-files --cached --others --exclude-standard |
    { grep -iE '(^|[/_.])(twi[n]s?|strange[r]s?|afterlif[e]|untol[d])([/_.]|$)' || true; })
[[ -z $found ]] || fail "old words in file names"$'\n'"$found"

for name in "${new[@]}"; do
    [[ -n $(search -lwF -e "$name") || -e $name ]] || fail "$glossary names $name, which does not exist"
done

# TestOwner and TestOwner_ stand for a topic, and TestTopic_WhatIsShown for all names.
# shellcheck disable=SC2016
for name in $(git grep -hoE '`(Test|Benchmark|Fuzz)[A-Z][A-Za-z0-9_]*`' -- '*.md' ':!CHANGELOG.md' | tr -d '`' | sort -u); do
    [[ $name != TestTopic_* ]] || continue
    [[ -n $(git grep -lE "^func ${name%_}[_(]" -- '*_test.go') ]] || fail "the docs name $name, which does not exist"
done

exit "$status"
