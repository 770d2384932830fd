#!/bin/sh
# load.sh FILE [OPTION...]: loads the files that rotation has left of FILE into the table records of
# ClickHouse, and removes each one that is loaded. The options are those of clickhouse-client.
#
#     tcpshift --updates 60s --output '/var/log/tcpshift.ndjson?host=true&only=connection,alert,loss&rotate-age=10s'
#     ./load.sh /var/log/tcpshift.ndjson --database=tcpshift
#
# With two shards: --database=fleet --host=clickhouse-1. Run it more often than rotate-keep times
# rotate-age, or old files are removed before it has loaded them.
set -eu

file=$1
shift
for old in "$file".2*; do
    [ -e "$old" ] || continue
    clickhouse-client "$@" --input_format_skip_unknown_fields=1 --insert_distributed_sync=1 \
        --query='INSERT INTO records FORMAT JSONEachRow' <"$old"
    rm "$old"
done
