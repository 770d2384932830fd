#!/bin/sh
# load.sh FILE [OPTION...]: loads the files that rotation has left of FILE into the table records of
# ClickHouse, and removes each one that is loaded. The options are those of clickhouse-client.
#
#     tcpshift --updates 60s --output '/var/log/tcpshift.ndjson?host=true&only=connection,alert,loss&rotate-age=1m&rotate-keep=1440'
#     ./load.sh /var/log/tcpshift.ndjson --database=tcpshift
#
# With two shards: --database=fleet --host=clickhouse-1. Run it every minute. If the server is away for
# longer than a day, rotation removes the oldest files before they are loaded: raise rotate-keep.
set -eu

file=$1
shift
for old in "$file".2*; do
    [ -e "$old" ] || continue
    clickhouse-client "$@" --input_format_skip_unknown_fields=1 --insert_distributed_sync=1 \
        --query='INSERT INTO records FORMAT JSONEachRow' <"$old"
    rm "$old"
done
