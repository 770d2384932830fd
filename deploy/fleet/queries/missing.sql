-- Is anything missing from these answers?
--
-- A row is a host and a cause of loss in the last 24 hours: how many transitions, connections, updates and alerts the
-- tables lack. No row: nothing is missing from what has been loaded.
SELECT
    host, stage, cause,
    sum(lost) AS transitions,
    sum(lost_connections) AS connections,
    sum(lost_updates) AS updates,
    sum(lost_alerts) AS alerts
FROM loss
WHERE ts_ns > toUInt64(toUnixTimestamp(now()) - 86400) * 1000000000
GROUP BY host, stage, cause
ORDER BY host, stage, cause
LIMIT 100
