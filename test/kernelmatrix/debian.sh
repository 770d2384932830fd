#!/bin/bash
# debian.sh SUITE MIRROR DIRECTORY: makes a Debian with systemd that boots in QEMU: root.ext4, vmlinuz and
# initrd.img. On its second disk are the tests, which it runs once it is up. It has what `apt install` and
# a service need, and nothing of tcpshift.
set -euo pipefail
suite=$1 mirror=$2
cd "$3"

# In the initramfs is only what mounts the disk: it is unpacked by an emulated processor.
cat >modules <<END
virtio_pci
virtio_blk
ext4
END
cat >guest-tests.service <<END
[Unit]
Description=Tests in the guest
# After everything that a boot starts.
DefaultDependencies=no
After=multi-user.target
RequiresMountsFor=/payload

[Service]
ExecStart=/payload/kernel.test -test.v -test.timeout=60m
Environment=CI=true HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
StandardOutput=file:/dev/ttyS0
StandardError=file:/dev/ttyS0

[Install]
WantedBy=multi-user.target
END
# shellcheck disable=SC2016 # mmdebstrap sets $1 of its hooks
mmdebstrap --quiet --mode=root --variant=minbase --format=directory \
    --include=systemd,systemd-sysv,dbus,udev,linux-image-cloud-amd64,initramfs-tools,zstd,kmod \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --aptopt='Acquire::Languages "none"' --dpkgopt=force-unsafe-io \
    --essential-hook='mkdir -p "$1/etc/initramfs-tools/conf.d"' \
    --essential-hook='printf "MODULES=list\nCOMPRESS=gzip\n" >"$1/etc/initramfs-tools/conf.d/guest"' \
    --essential-hook='copy-in modules /etc/initramfs-tools' \
    --customize-hook='copy-in guest-tests.service /etc/systemd/system' \
    --customize-hook='systemctl --root="$1" -q enable guest-tests.service' \
    --customize-hook='systemctl --root="$1" -q mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer' \
    --customize-hook='printf "/dev/vda / ext4 defaults 0 0\nLABEL=payload /payload ext4 ro,x-systemd.device-timeout=30min 0 0\n" >"$1/etc/fstab"' \
    --customize-hook='mkdir -p "$1/payload" "$1/var/log/journal" && echo guest >"$1/etc/hostname"' \
    "$suite" root "$mirror"
cp root/boot/vmlinuz-* vmlinuz
cp root/boot/initrd.img-* initrd.img
rm root/boot/{vmlinuz,initrd.img}-*
mkfs.ext4 -q -F -L root -O ^has_journal -d root root.ext4 1500M
rm -rf root modules guest-tests.service
