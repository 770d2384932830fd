#!/bin/sh
# dpkg: remove, or upgrade NEW-VERSION; rpm: 0 for a removal, 1 for an upgrade.
set -e

case $1 in
    remove | 0) ;;
    *) exit 0 ;;
esac
command -v systemctl >/dev/null || exit 0
if [ -d /run/systemd/system ]; then
    systemctl disable --now tcpshift.service || true
    systemctl stop 'tcpshift@*.service' || true
else
    systemctl disable tcpshift.service >/dev/null 2>&1 || true
fi
