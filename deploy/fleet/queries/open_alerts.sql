-- What is wrong now, on which host?
--
-- A row is an alert of the last ten minutes that is open, or was open when its tracer stopped, the critical ones first.
SELECT host, kind, severity, service, cause, advice, lasted_ns / 1000000000 AS lasted_s
FROM (
    SELECT *
    FROM alert
    WHERE day >= today() - 1 AND ts_ns > toUInt64(toUnixTimestamp(now()) - 600) * 1000000000
    ORDER BY ts_ns DESC
    LIMIT 1 BY boot_id, alert
)
WHERE phase != 'close' OR close_reason = 'stopped'
ORDER BY severity, host, kind, service
LIMIT 20
