#!/bin/bash
# consumers.sh [pipelines|metrics|fleet]: unpacks the Debian packages of the consumers that test/pipelines (the
# default), test/metrics or test/fleet runs into .cache/SUITE/root. It installs none of
# them: rsyslog and syslog-ng exclude each other, and a server must not start here. For test/fleet it
# also puts chDB into .cache/fleet/chdb, by npm.
# Their libraries come along; what is installed already is used.
#
# consumers.lock has the version and the SHA-256 of each package. Where the archive has that version no more, the
# one it has is taken, and a line says so; but a consumer must be of the same upstream release, which Debian
# keeps: 8.2302 of rsyslog, 15 of PostgreSQL.
#
# consumers.sh pin: writes consumers.lock, from what the archive of Debian 12 has now.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# What Debian 12 has: Prometheus 2.42, rsyslog 8.2302, kcat 1.7, syslog-ng 3.38, PostgreSQL 15, ClickHouse 18.16.
clickhouse='clickhouse-server clickhouse-client'
pipelines=('rsyslog rsyslog-kafka kcat' 'syslog-ng-core' 'postgresql-15 postgresql-client-15' "$clickhouse")

suite=${1:-pipelines}
lock=test/check/consumers.lock
cache=$PWD/.cache/$suite

# as_root COMMAND...: runs it as root.
as_root() {
    if ((EUID == 0)); then "$@"; else sudo "$@"; fi
}

# apt_get ARGUMENT...: runs apt-get with the preferences of this script.
apt_get() {
    as_root env LC_ALL=C apt-get -qq -o DPkg::Lock::Timeout=600 -o Dir::Etc::preferences="$cache/preferences" "$@"
}

# closure PACKAGE...: prints the file names of the packages and of all that they need on a host without any.
closure() {
    apt_get -o Dir::State::status="$cache/none" --print-uris --no-install-recommends -y install "$@" | cut -d ' ' -f 2
}

# pin: writes the lock. It prefers the main archive to that of security updates, which removes what it replaces.
# Essential packages and their libraries are on each host.
pin() {
    printf '%s\n' 'Package: *' 'Pin: release l=Debian' 'Pin-Priority: 1001' >"$cache/preferences"
    : >"$cache/none"
    apt_get update
    local name version
    {
        sed '/^[^#]/d' "$lock"
        for set in "${pipelines[@]}" prometheus; do
            read -ra packages <<<"$set"
            closure "${packages[@]}"
        done | sort -u | grep -vxFf <(closure '?essential') | while IFS=_ read -r name version _; do
            version=${version//%3a/:}
            echo "$name $version $(apt-cache show "$name=$version" | sed -n 's/^SHA256: //p;/^SHA256/q')"
        done
    } >"$cache/lock"
    cp "$cache/lock" "$lock"
}

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

# release VERSION: prints the upstream release without its last number: 15 of 15.18-0+deb12u1.
release() {
    local version=${1#*:}
    version=${version%-*}
    version=${version%%+*}
    echo "${version%.*}"
}

# check FILE: compares a package with the lock. It fails if the package is not the pinned one and must not be taken.
check() {
    local name version pinned hash
    name=$(dpkg-deb -f "$1" Package)
    version=$(dpkg-deb -f "$1" Version)
    read -r pinned hash < <(awk -v name="$name" '$1 == name { print $2, $3 }' "$lock") || true
    if [[ $version == "$pinned" ]]; then
        # The lock has the hashes of one architecture.
        if [[ $(dpkg --print-architecture) == amd64 ]] && ! sha256sum --quiet --check <<<"$hash  $1" >/dev/null 2>&1; then
            echo "consumers: $name $version does not have the SHA-256 of $lock: do not use it before you know why" >&2
            return 1
        fi
        return
    fi
    echo "consumers: $name: Debian has $version, $lock has ${pinned:-none}" >&2
    if [[ " ${sets[*]} " == *" $name "* && $(release "$version") != "$(release "$pinned")" ]]; then
        echo "consumers: $name is of another release: run the tests with it after $0 pin, and commit $lock" >&2
        return 1
    fi
    others+=("$name")
}

# download PACKAGE...: fetches the packages and what they need and this host lacks.
download() {
    apt_get -y -o Dir::Cache::archives="$cache/debs" \
        --download-only --reinstall --allow-downgrades --no-install-recommends install "$@" >/dev/null
}

sets=("${pipelines[@]}")
debian=$(cat /etc/debian_version 2>/dev/null || true)
stamp="$debian ${sets[*]} $(sha256sum <"$lock")"
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
        sets=("$clickhouse")
        chdb
        ;;
esac
stamp="$debian ${sets[*]} $(sha256sum <"$lock")"
if [[ -e $cache/stamp && $(<"$cache/stamp") == "$stamp" ]]; then
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo 'consumers: no apt-get here: the consumers are packages of Debian 12' >&2
    exit 1
fi
mkdir -p "$cache"
if [[ $suite == pin ]]; then
    pin
    exit 0
fi

as_root rm -rf "$cache/debs" "$cache/root" "$cache/stamp"
mkdir -p "$cache/debs/partial"
# The pinned version, if the archive has it.
awk '/^[^#]/ { printf "Package: %s\nPin: version %s\nPin-Priority: 1001\n\n", $1, $2 }' "$lock" >"$cache/preferences"
apt_get update
missing=() others=() refused=0
for set in "${sets[@]}"; do
    read -ra packages <<<"$set"
    download "${packages[@]}" || missing+=("$set")
done
for package in "$cache"/debs/*.deb; do
    if check "$package"; then
        dpkg -x "$package" "$cache/root"
    else
        refused=1
    fi
done
# Debian 12 has its libraries below /usr only.
if [[ -d $cache/root/lib ]]; then
    cp -a "$cache/root/lib/." "$cache/root/usr/lib/"
fi
as_root rm -rf "$cache/debs"
if ((${#missing[@]})); then
    echo "consumers: apt does not have ${missing[*]}" >&2
fi
if ((${#missing[@]} || refused)); then
    exit 1
fi
if ((${#others[@]})); then
    echo "consumers: not the pinned versions: ${others[*]}. If the tests pass, run $0 pin and commit $lock" >&2
fi
echo "$stamp" >"$cache/stamp"
