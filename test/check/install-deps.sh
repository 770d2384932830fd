#!/bin/bash
# Installs the Debian or Ubuntu packages of a purpose, as root or through sudo:
#
#     install-deps.sh test       what make test needs
#     install-deps.sh compare    what make compare needs
#     install-deps.sh packages   what make test-packages needs
#     install-deps.sh fleet      what make test-fleet needs
#     install-deps.sh look       what make test-look and make pictures need
#     install-deps.sh all        all of that, and what make check and make generate need
#
# Does nothing if all of it is installed. If it cannot install something, it prints in
# one line what is missing and ends with status 1.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
PATH=$(./path.sh)

lock_timeout=600 # seconds to wait for another apt or dpkg

# needs 'COMMAND|FILE' PACKAGE...: if there is no such command or file, adds the packages
# to missing. The packages are alternatives, the preferred one first, because Debian's
# releases and Ubuntu use different names.
missing=()
needs() {
    command -v "$1" >/dev/null || [[ -e $1 ]] || missing+=("${*:2}")
}

if [[ $1 == look || $1 == all ]]; then
    needs chromium chromium # a page
    needs fc-list fontconfig
    needs tmux tmux # a terminal
    needs /usr/share/fonts/truetype/dejavu/DejaVuSans.ttf fonts-dejavu-core
fi
needs curl curl # test: traffic
needs ss iproute2
needs jq jq # test: the report
needs logrotate logrotate # test: rotation of the output
needs mkfs.ext4 e2fsprogs # test: a disk that freezes
needs /lib/systemd/systemd-journald systemd # test: the journal
needs bpftrace bpftrace # test: other tracers
needs tcpstates libbpf-tools
needs perf linux-perf linux-tools-generic
./cc.sh >/dev/null || missing+=('clang-19 clang gcc') # test: the race detector
needs go golang-go

if [[ $1 == compare || $1 == all ]]; then
    needs conntrack conntrack
    needs nft nftables
fi
if [[ $1 == packages || $1 == all ]]; then
    needs lintian lintian
    needs rpm rpm
    needs rpm2cpio rpm2cpio
    needs cpio cpio
    needs mmdebstrap mmdebstrap # a guest with systemd
fi
if [[ $1 == fleet || $1 == all ]]; then
    needs node nodejs
    needs npm npm
fi
if [[ $1 == all ]]; then
    needs clang-19 clang-19 # generate
    needs llvm-strip-19 llvm-19
    needs /usr/include/bpf/bpf_helpers.h libbpf-dev
    needs clang-format-19 clang-format-19 # check
    needs shellcheck shellcheck
fi
if ((${#missing[@]} == 0)); then
    exit 0
fi

give_up() {
    local names
    names=$(printf '%s, ' "${missing[@]%% *}")
    echo "install-deps: $1; install by hand (Debian's names): ${names%, }" >&2
    exit 1
}

as_root=()
if ! command -v apt-get >/dev/null; then
    give_up 'no apt-get here'
elif ((EUID != 0)); then
    command -v sudo >/dev/null || give_up 'neither root nor sudo'
    sudo -n true 2>/dev/null || [[ -t 0 ]] || give_up 'sudo would ask for a password'
    as_root=(sudo)
fi

# apt-get that waits for other package managers. Its option covers dpkg's lock only,
# not those of the package lists and of the archives.
apt_get() {
    local output
    until output=$("${as_root[@]}" env LC_ALL=C DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -o "DPkg::Lock::Timeout=$lock_timeout" "$@" 2>&1); do
        if [[ $output != *'Could not get lock'* ]] || ((SECONDS > lock_timeout)); then
            printf '%s\n' "$output" >&2
            return 1
        fi
        sleep 1
    done
}

# first_known PACKAGE...: prints the first package that apt can install, if any. Go must
# be 1.21 or later, which downloads the version that go.mod names.
first_known() {
    local package version
    for package; do
        version=$(LC_ALL=C apt-cache policy "$package" | sed -n 's/^  Candidate: //p')
        [[ -n $version && $version != '(none)' ]] || continue
        if [[ $package != golang-go ]] || dpkg --compare-versions "$version" ge 2:1.21~; then
            echo "$package"
            return
        fi
    done
}

apt_get update || give_up 'apt-get update failed'
packages=() unknown=()
for names in "${missing[@]}"; do
    read -ra alternatives <<<"$names"
    package=$(first_known "${alternatives[@]}")
    if [[ -n $package ]]; then
        packages+=("$package")
    else
        unknown+=("$names")
    fi
done
if ((${#packages[@]})); then
    echo "install-deps: ${packages[*]}"
    apt_get install -y --no-install-recommends "${packages[@]}" || give_up 'apt-get install failed'
fi
if ((${#unknown[@]})); then
    missing=("${unknown[@]}")
    give_up 'apt does not have all of it'
fi
