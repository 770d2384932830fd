#!/bin/bash
# Prints the examples of README.md, made now: run as root, after make build. Everything
# happens in a network namespace of its own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

if [[ ${1:-} != inside ]]; then
    exec unshare --net --pid --fork --kill-child --mount-proc "$0" inside
fi
ip link set lo up
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

# trace FILE ARGUMENTS: starts tcpshift, and waits for the first record in that file.
trace() {
    bin/tcpshift --netns "$netns" "${@:2}" &
    until [[ -s $1 ]]; do sleep 0.1; done
}

# The client makes COUNT connections to port 8080 with a PAUSE after each, and closes
# each first.
client='
import socket, sys, time
for _ in range(int(sys.argv[1])):
    try: socket.create_connection(("127.0.0.1", 8080)).close()
    except OSError: break
    time.sleep(float(sys.argv[2]))'
ln -s "$(python3 -c 'import sys; print(sys.executable)')" "$dir/shop"

netns=$(stat -Lc %i /proc/self/ns/net)
python3 -m http.server --protocol HTTP/1.1 --bind 127.0.0.1 8080 >/dev/null 2>&1 &
server=$!
until ss -Hltn | grep -q :8080; do sleep 0.1; done
# One run with two outputs: the times of two runs would differ.
trace "$dir/text" --output "$dir/ndjson?only=connection" --output "$dir/text?format=text"
curl -s -o /dev/null http://127.0.0.1:8080/
curl -s -o /dev/null http://127.0.0.1:8081/ || true # nothing listens there
sleep 1
kill "$server"
sleep 1
echo '--- text'
sed -n '/^TIME/,$p' "$dir/text" | head -n 17
echo '--- one NDJSON line'
grep -m 1 '"type":"connection"' "$dir/ndjson" | sed 's|"cgroup":"[^"]*"|"cgroup":"/demo"|'

# A client that uses up 1,000 ports, where TIME_WAITs are not reused.
sysctl -qw net.ipv4.tcp_tw_reuse=0 net.ipv4.ip_local_port_range='50000 50999'
python3 -m http.server --bind 127.0.0.1 8080 >/dev/null 2>&1 &
until ss -Hltn | grep -q :8080; do sleep 0.1; done
trace "$dir/alert" --output "$dir/alert?format=text&only=alert"
"$dir/shop" -c "$client" 900 0.01
echo '--- one alert'
grep -m 1 time_wait_storm "$dir/alert" || cat "$dir/alert"
