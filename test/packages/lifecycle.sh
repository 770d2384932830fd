#!/bin/bash
# lifecycle.sh PACKAGE.deb: installs, upgrades, downgrades, removes and purges the package in a copy of this
# host's root directory, which only this process sees, and checks what is there after each step.
set -euo pipefail

fail() {
    echo "lifecycle: $1" >&2
    exit 1
}

if [[ ${2:-} != inside ]]; then
    exec unshare --mount "$0" "$1" inside
fi
scratch=$(mktemp -d)
mount -t tmpfs tmpfs "$scratch"
mkdir "$scratch"/{upper,work,root}
mount -t overlay overlay -o "lowerdir=/,upperdir=$scratch/upper,workdir=$scratch/work" "$scratch/root"
root=$scratch/root
mount -t proc proc "$root/proc"
mkdir -p "$root/packages"
cp "$1" "$root/packages/old.deb"
"${0%/*}/later.sh" "$1" "$root/packages/new.deb"

inside() { chroot "$root" env DEBIAN_FRONTEND=noninteractive LC_ALL=C "$@"; }
# Everything with this name but the packages, and what dpkg remembers.
traces() { find "$root/etc" "$root/usr" "$root/lib" "$root/var/log" "$root/var/lib" -xdev -name '*tcpshift*' ! -path '*/var/lib/dpkg/*' ! -path '*/go/*' 2>/dev/null || true; }

[[ -z $(traces) ]] || fail "this host has tcpshift already: $(traces)"
inside dpkg -i /packages/old.deb >/dev/null
config=$root/etc/tcpshift/config.yaml
[[ -f $config ]] || fail 'no configuration after the installation'
# systemd makes these when it starts the service.
mkdir -p "$root/var/log/tcpshift" "$root/var/lib/tcpshift"
inside tcpshift config check --config /etc/tcpshift/config.yaml >/dev/null
[[ -L $root/etc/systemd/system/multi-user.target.wants/tcpshift.service ]] || fail 'the unit is not enabled'
[[ $(inside tcpshift version) == "tcpshift $(dpkg-deb -f "$1" Version),"* ]] || fail 'the version of the program is not that of the package'
[[ -s $root/usr/share/man/man8/tcpshift.8.gz ]] || fail 'no man page'

echo 'stats-interval: 5m' >>"$config"
for package in new old; do # an upgrade and a downgrade
    inside dpkg -i --force-confdef --force-confold --force-downgrade "/packages/$package.deb" >/dev/null 2>&1
    grep -q 'stats-interval: 5m' "$config" || fail "the configuration is not kept by $package.deb"
done

inside dpkg -r tcpshift >/dev/null
[[ -f $config ]] || fail 'the removal has removed the configuration'
[[ ! -e $root/usr/bin/tcpshift ]] || fail 'the removal leaves the program'
inside dpkg -P tcpshift >/dev/null
[[ -z $(traces) ]] || fail "the purge leaves $(traces)"
