#!/bin/sh
# A topic of Kafka gets each record, as it is: this publishes the files that rotation has left, and removes a
# file once the broker has acknowledged each of its records. If the broker or this script is killed, nothing
# is lost as long as rotation keeps the files, here a day: a file that was interrupted is published again. Its
# records come twice then, with the same boot_id and seq. Those of a host are in one partition, in order.
# Debian: kcat.
#
#     tcpshift --output '/var/log/tcpshift.ndjson?host=true&only=connection,alert,loss,stats&rotate-age=10s&rotate-keep=8640'
#     sh kafka.sh

while :; do
    for file in /var/log/tcpshift.ndjson.2*; do
        [ -e "$file" ] || continue
        acknowledged=$(kcat -P -b 127.0.0.1:9092 -t tcpshift -k "$(uname -n)" -X acks=all \
            -X message.timeout.ms=30000 -vv -l "$file" 2>&1 | grep -c '^% Message delivered')
        [ "$acknowledged" -eq "$(wc -l <"$file")" ] || break # try again
        rm "$file"
    done
    sleep 2
done
