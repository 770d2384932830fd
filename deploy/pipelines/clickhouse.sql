-- ClickHouse stores connections. This works with version 18.16 (Debian 12) and later ones.
--
--     tcpshift --output '/var/log/tcpshift.ndjson?host=true&only=connection&rotate-age=1m&rotate-keep=1440'
--     clickhouse-client -n <clickhouse.sql
--
-- Every minute, as a user who may read and remove the files. If the database is away for longer than a
-- day, rotation removes the oldest files, and nothing counts their records: raise rotate-keep.
--
--     for f in /var/log/tcpshift.ndjson.2*; do grep '^{"type":"connection"' "$f" | clickhouse-client --input_format_skip_unknown_fields=1 --query='INSERT INTO tcpshift FORMAT JSONEachRow' && rm "$f"; done
--
-- docs/fleet.md has tables for many hosts. `go generate ./deploy/fleet/ddl` writes this file from the same list of columns.

CREATE TABLE IF NOT EXISTS tcpshift (
    type String, time String, host String, boot_id String, seq UInt64, phase Nullable(String),
    conn Nullable(String), netns Nullable(UInt32), family Nullable(String), mapped Nullable(UInt8),
    local_addr Nullable(String), local_port Nullable(UInt16), peer_addr Nullable(String),
    peer_port Nullable(UInt16), role Nullable(String), pid Nullable(UInt32), comm Nullable(String),
    uid Nullable(UInt32), pid_source Nullable(String), cgroup Nullable(String),
    container Nullable(String), container_runtime Nullable(String), pod_uid Nullable(String),
    container_claimed Nullable(UInt8), pod Nullable(String), namespace Nullable(String),
    container_name Nullable(String), unit Nullable(String), unit_claimed Nullable(UInt8),
    opened Nullable(String), duration_ns Nullable(UInt64), established_ns Nullable(UInt64),
    sent_bytes Nullable(UInt64), received_bytes Nullable(UInt64), retransmits Nullable(UInt32),
    rtt_ns Nullable(UInt64), cwnd Nullable(UInt32), state Nullable(String),
    final_state Nullable(String), closed_by Nullable(String), error Nullable(String),
    reset_reason Nullable(String), partial Nullable(UInt8), sampled Nullable(UInt32),
    -- Computed: the day, and nanoseconds since 1970, which no type of 18.16 can hold as a time.
    day Date MATERIALIZED toDate(substring(time, 1, 10)),
    ts_ns UInt64 MATERIALIZED toUInt64(toDateTime(replaceOne(substring(time, 1, 19), 'T', ' '), 'UTC'))
        * 1000000000 + toUInt64(substring(time, 21, 9))
) ENGINE = MergeTree(day, (boot_id, ts_ns, seq), 8192);
