#!/bin/sh
# dpkg: configure [OLD-VERSION], or abort-...; rpm: 1 for an installation, 2 for an upgrade.
set -e

case $1 in
    configure) first=$([ -n "$2" ] || echo yes) ;;
    1) first=yes ;;
    2) first='' ;;
    *) exit 0 ;;
esac
[ -d /run/systemd/system ] || {
    # No systemd runs here, such as in an image that is being made: the unit is enabled for later.
    if [ -n "$first" ] && command -v systemctl >/dev/null; then
        systemctl enable tcpshift.service >/dev/null 2>&1 || true
    fi
    exit 0
}
systemctl daemon-reload || true
if [ -n "$first" ]; then
    systemctl enable --now tcpshift.service || true
else
    # Instances, too. A unit that is stopped stays so.
    systemctl try-restart 'tcpshift.service' 'tcpshift@*.service' || true
fi
