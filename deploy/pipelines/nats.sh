#!/bin/sh
# NATS JetStream stores each record, as it is: this publishes the files that rotation has left, and removes a
# file once the server has acknowledged each of its records. If the server or this script is killed, nothing
# is lost as long as rotation keeps the files, here a day: a file that was interrupted is published again. Its
# records come twice then, with the same boot_id and seq. The stream keeps the newest 1 GiB. nats is natscli
# 0.5.1.
#
#     nats-server -a 127.0.0.1 -js -sd /var/lib/nats
#     tcpshift --output '/var/log/tcpshift.ndjson?host=true&only=connection,alert,loss,stats&rotate-age=10s&rotate-keep=8640'
#     sh nats.sh

while :; do
    nats stream add tcpshift --subjects 'tcpshift.>' --storage file --defaults --max-bytes 1GiB >/dev/null 2>&1
    for file in /var/log/tcpshift.ndjson.2*; do
        [ -e "$file" ] || continue
        acknowledged=$(nats publish tcpshift.records --jetstream --send-on newline --no-templates <"$file" 2>&1 |
            sed '/Could not publish/q' | grep -c ' Stored in Stream: ')
        [ "$acknowledged" -eq "$(wc -l <"$file")" ] || break # try again
        rm "$file"
    done
    sleep 2
done
