-- Which destination runs out of local ports next, and where?
--
-- A row is an open alert of the last ten minutes, the nearest exhaustion first. used of capacity local ports (or
-- TIME_WAIT buckets) are taken on this host for this destination. in_s is the forecast of the alert in seconds: 0 if
-- connects fail now, NULL if this rate will never use up the capacity. service causes most of it.
SELECT
    host, netns, local_addr, peer_addr, peer_port, service, kind, severity,
    occupancy AS used, capacity, round(rate_per_s, 1) AS per_s, round(exhaustion_in_s, 1) AS in_s, failures
FROM (
    SELECT *
    FROM alert
    WHERE day >= today() - 1 AND ts_ns > toUInt64(toUnixTimestamp(now()) - 600) * 1000000000
        AND kind IN ('time_wait_storm', 'port_exhaustion')
    ORDER BY ts_ns DESC
    LIMIT 1 BY boot_id, alert
)
WHERE phase != 'close' OR close_reason = 'stopped'
ORDER BY ifNull(exhaustion_in_s, 1e9), ifNull(occupancy, 0) / ifNull(capacity, 1) DESC
LIMIT 20
