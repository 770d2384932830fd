#!/bin/bash
# debian.sh SUITE MIRROR DIRECTORY: makes a Debian with systemd that boots in QEMU: root.ext4, vmlinuz, and
# modules, which has the modules that mount a disk, in the order in which they load. The tests are on its
# second disk, and run once it is up. It has what `apt install` and a service need, and nothing of tcpshift.
set -euo pipefail
suite=$1 mirror=$2
cd "$3"

cat >guest-tests.service <<END
[Unit]
Description=Tests in the guest
# After everything that a boot starts.
DefaultDependencies=no
After=multi-user.target

[Service]
ExecStart=/payload/kernel.test -test.v -test.timeout=60m
Environment=CI=true HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
StandardOutput=file:/dev/ttyS0
StandardError=file:/dev/ttyS0

[Install]
WantedBy=multi-user.target
END
# Not as options of mmdebstrap, which would unpack the first packages through a filter in Perl: 18 s.
printf 'path-exclude=/usr/share/%s/*\n' man locale >guest.cfg
# The kernel is unpacked only: its package depends on an initramfs, which takes as long as all other packages.
cat >kernel.sh <<'END'
set -e
cd "$1/var/cache"
image=$(chroot "$1" apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9]\)/\1/p')
chroot "$1" sh -c "cd /var/cache && apt-get -qq -o APT::Sandbox::User=root download $image"
dpkg-deb --fsys-tarfile "$image"_*.deb | tar -C "$1" --keep-directory-symlink -xf -
rm "$image"_*.deb
chroot "$1" depmod "${image#linux-image-}"
END
# shellcheck disable=SC2016 # mmdebstrap sets $1 of its hooks
mmdebstrap --quiet --mode=root --variant=apt --format=directory \
    --include=systemd,systemd-sysv,dbus,kmod \
    --aptopt='Acquire::Languages "none"' --dpkgopt=force-unsafe-io \
    --essential-hook='copy-in guest.cfg /etc/dpkg/dpkg.cfg.d' \
    --customize-hook='sh kernel.sh "$1"' \
    --customize-hook='copy-in guest-tests.service /etc/systemd/system' \
    --customize-hook='systemctl --root="$1" -q enable guest-tests.service' \
    --customize-hook='systemctl --root="$1" -q mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer' \
    --customize-hook='mkdir -p "$1/payload" "$1/var/log/journal" && echo guest >"$1/etc/hostname"' \
    "$suite" root "$mirror"
mv root/boot/vmlinuz-* vmlinuz
release=$(ls root/lib/modules)
mkdir modules
count=10 # two digits
for module in virtio_pci virtio_blk; do
    chroot root modprobe --set-version "$release" --show-depends "$module"
done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++' | while read -r module; do
    to=modules/$((count++))-$(basename "$module" .xz)
    case $module in
    *.xz) xz -dc "root$module" >"$to" ;;
    *) cp "root$module" "$to" ;;
    esac
done
mkfs.ext4 -q -F -L root -O ^has_journal -d root root.ext4 1500M
rm -rf root kernel.sh guest.cfg guest-tests.service
