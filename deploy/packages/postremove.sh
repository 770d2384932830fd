#!/bin/sh
# dpkg: remove, purge, upgrade ...; rpm: 0 for a removal, 1 for an upgrade.
set -e

if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
fi
if [ "$1" = purge ]; then
    rm -rf /var/log/tcpshift /var/lib/tcpshift /etc/tcpshift
fi
