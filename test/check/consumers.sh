#!/bin/bash
# consumers.sh [pipelines|metrics|fleet]: unpacks the Debian packages of the consumers that test/pipelines (the
# default), test/metrics or test/fleet runs into .cache/SUITE/root. It installs none of
# them: rsyslog and syslog-ng exclude each other, and a server must not start here. For test/fleet it
# also puts chDB into .cache/fleet/chdb, by npm.
# Their libraries come along; what is installed already is used.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

suite=${1:-pipelines}

# chdb: installs the modules that test/fleet/chdb pins, and runs none of their scripts. It is not npm ci, which
# wants the libraries of all platforms in the lock file, also those that it does not install.
chdb() {
    mkdir -p "$cache/chdb"
    if ! cmp -s test/fleet/chdb/package-lock.json "$cache/chdb/node_modules/stamp"; then
        cp test/fleet/chdb/package*.json "$cache/chdb"
        npm --prefix "$cache/chdb" install --ignore-scripts --no-save --no-audit --no-fund >/dev/null
        cp test/fleet/chdb/package-lock.json "$cache/chdb/node_modules/stamp"
    fi
}

# What Debian 12 has: Prometheus 2.42, rsyslog 8.2302, syslog-ng 3.38, PostgreSQL 15, ClickHouse 18.16.
sets=('rsyslog rsyslog-kafka' 'syslog-ng-core' 'postgresql-15 postgresql-client-15' 'clickhouse-server clickhouse-client')

debian=$(cat /etc/debian_version 2>/dev/null || true)
cache=$PWD/.cache/$suite
stamp="$debian ${sets[*]}"
case $suite in
    metrics) sets=(prometheus) ;;
    fleet)
        # The packages of test/pipelines have ClickHouse, too.
        all=$PWD/.cache/pipelines
        if [[ -e $all/stamp && $(<"$all/stamp") == "$stamp" ]]; then
            mkdir -p "$cache"
            ln -sfnT ../pipelines/root "$cache/root"
            chdb
            exit 0
        fi
        sets=('clickhouse-server clickhouse-client')
        chdb
        ;;
esac
stamp="$debian ${sets[*]}"
if [[ -e $cache/stamp && $(<"$cache/stamp") == "$stamp" ]]; then
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo 'consumers: no apt-get here: the consumers are packages of Debian 12' >&2
    exit 1
fi

# as_root COMMAND...: runs it as root.
as_root() {
    if ((EUID == 0)); then "$@"; else sudo "$@"; fi
}

# download PACKAGE...: fetches the packages and what they need and this host lacks.
download() {
    as_root env LC_ALL=C apt-get -qq -y -o DPkg::Lock::Timeout=600 -o Dir::Cache::archives="$cache/debs" \
        --download-only --reinstall --no-install-recommends install "$@" >/dev/null
}

as_root rm -rf "$cache/debs" "$cache/root"
mkdir -p "$cache/debs/partial"
as_root apt-get -qq -o DPkg::Lock::Timeout=600 update
missing=()
for set in "${sets[@]}"; do
    read -ra packages <<<"$set"
    download "${packages[@]}" || missing+=("$set")
done
for package in "$cache"/debs/*.deb; do
    dpkg -x "$package" "$cache/root"
done
# Debian 12 has its libraries below /usr only.
if [[ -d $cache/root/lib ]]; then
    cp -a "$cache/root/lib/." "$cache/root/usr/lib/"
fi
as_root rm -rf "$cache/debs"
if ((${#missing[@]})); then
    echo "consumers: apt does not have ${missing[*]}" >&2
    exit 1
fi
echo "$stamp" >"$cache/stamp"
