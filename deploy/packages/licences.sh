#!/bin/bash
# Prints the licences of all modules in the binary, and of the script that it embeds.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

go list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}' ./cmd/tcpshift | sort -u |
    while read -r module version directory; do
        printf '\n---- %s %s\n\n' "$module" "$version"
        find "$directory" -maxdepth 1 \( -iname 'LICEN[CS]E*' -o -iname 'NOTICE*' -o -iname 'COPYING*' \) | sort |
            xargs -r -d '\n' cat
    done

printf '\n---- uPlot %s\n\n' "$(sed -n 's/^package=uplot version=//p' test/check/look.sh)"
cat internal/report/page/uplot/LICENSE
