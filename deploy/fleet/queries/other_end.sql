-- Which connection is the other end of this one?
--
-- Replace BOOT_ID, CONN and TIME by the keys of a record of the connection, see docs/fleet.md. A row is a connection record with the same
-- addresses and ports in reverse that was open at the same time, the nearest first: mostly one. opened_ms is how
-- much later the other end was opened, by the clocks of the two hosts; they may differ by 5 seconds. No row: the
-- other host has no tcpshift, the other end is still open, or an address is translated (NAT). Addresses that
-- several hosts have, such as those of containers, give a row for each; loopback addresses are of one namespace.
SELECT
    host, netns, boot_id, conn, service, role, closed_by,
    (toInt64(opened_ns) - toInt64(this_opened_ns)) / 1000000 AS opened_ms
FROM (
    SELECT *
    FROM endpoint
    WHERE (local_addr, local_port, peer_addr, peer_port) GLOBAL IN (
        SELECT ifNull(peer_addr, ''), ifNull(peer_port, 0), ifNull(local_addr, ''), ifNull(local_port, 0)
        FROM connection
        WHERE boot_id = 'BOOT_ID' AND conn = 'CONN'
            AND ts_ns = toUInt64(toDateTime(replaceOne(substring('TIME', 1, 19), 'T', ' '), 'UTC')) * 1000000000 + toUInt64(substring('TIME', 21, 9))
    )
) AS ends
GLOBAL ALL INNER JOIN (
    SELECT
        p AS local_addr, pp AS local_port, l AS peer_addr, lp AS peer_port,
        opened AS this_opened_ns, ended AS this_ts_ns, n AS this_netns
    FROM (
        SELECT
            ifNull(peer_addr, '') AS p, ifNull(peer_port, 0) AS pp, ifNull(local_addr, '') AS l, ifNull(local_port, 0) AS lp,
            max(opened_ns) AS opened, max(ts_ns) AS ended, max(ifNull(netns, 0)) AS n
        FROM connection
        WHERE boot_id = 'BOOT_ID' AND conn = 'CONN'
            AND ts_ns = toUInt64(toDateTime(replaceOne(substring('TIME', 1, 19), 'T', ' '), 'UTC')) * 1000000000 + toUInt64(substring('TIME', 21, 9))
        GROUP BY p, pp, l, lp
    )
) AS this USING (local_addr, local_port, peer_addr, peer_port)
WHERE NOT (boot_id = 'BOOT_ID' AND conn = 'CONN')
    AND opened_ns < this_ts_ns + 5000000000 AND ts_ns + 5000000000 > this_opened_ns
    AND (NOT match(local_addr, '^(127\\.|::1$)') OR (boot_id = 'BOOT_ID' AND netns = this_netns))
ORDER BY abs(opened_ms)
LIMIT 5
