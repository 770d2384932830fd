-- PostgreSQL stores connections and alerts. A file that is loaded twice changes nothing.
--
--     tcpshift --output '/var/log/tcpshift.ndjson?host=true&only=connection,alert&rotate-age=1m&rotate-keep=1440'
--
-- Every minute, as a user who may read and remove the files. If the database is away for longer than a
-- day, rotation removes the oldest files, and nothing counts their records: raise rotate-keep.
--
--     for f in /var/log/tcpshift.ndjson.2*; do psql -qX -f postgresql.sql <"$f" && rm "$f"; done

\set ON_ERROR_STOP on
BEGIN;

SET LOCAL client_min_messages = warning;
CREATE TABLE IF NOT EXISTS tcpshift (
    boot_id  uuid        NOT NULL, -- the host, until it boots again
    ts_ns    bigint      NOT NULL, -- nanoseconds since 1970
    seq      bigint      NOT NULL,
    time     timestamptz NOT NULL, -- microseconds, for BETWEEN and date_trunc()
    type     text        NOT NULL,
    record   jsonb       NOT NULL, -- all keys
    PRIMARY KEY (boot_id, ts_ns, seq)
);
CREATE INDEX IF NOT EXISTS tcpshift_time ON tcpshift (time);

-- One line is one value: no record contains the bytes 1 and 2, which tcpshift escapes.
CREATE TEMPORARY TABLE line (line text NOT NULL) ON COMMIT DROP;
\copy line FROM pstdin WITH (FORMAT csv, QUOTE E'\x01', DELIMITER E'\x02')

INSERT INTO tcpshift
SELECT (r->>'boot_id')::uuid,
       extract(epoch FROM date_trunc('second', (r->>'time')::timestamptz))::bigint * 1000000000
           + substr(r->>'time', 21, 9)::bigint,
       (r->>'seq')::bigint, (r->>'time')::timestamptz, r->>'type', r
FROM line, LATERAL (SELECT line.line::jsonb) AS parsed (r)
WHERE r->>'type' IN ('connection', 'alert')
ON CONFLICT DO NOTHING;

COMMIT;
