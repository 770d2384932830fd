-- Which connection is the other end of this one?
--
-- Replace BOOT_ID, CONN and TS_NS by the columns of a row of the table connection, see docs/fleet.md. A row of the
-- answer is a connection record with the same addresses and ports in reverse that was open at the same time, the
-- nearest first: mostly one. opened_ms is how much later the other end was opened, by the clocks of the two hosts; they
-- may differ by 5 seconds. No row: the other host has no tcpshift, the other end is still open, or an address is
-- translated (NAT). Addresses that several hosts have, such as those of containers, give a row for each; loopback
-- addresses are of one namespace.
SELECT
    host, netns, boot_id, conn, service, role, closed_by,
    (toInt64(opened_ns) - toInt64(this_opened_ns)) / 1000000 AS opened_ms
FROM (
    -- One value at a time, so that 18.16 uses the order of the table.
    SELECT *
    FROM endpoint
    WHERE local_addr = (SELECT any(ifNull(peer_addr, '')) FROM connection WHERE boot_id = 'BOOT_ID' AND conn = 'CONN' AND ts_ns = TS_NS)
        AND local_port = (SELECT any(ifNull(peer_port, 0)) FROM connection WHERE boot_id = 'BOOT_ID' AND conn = 'CONN' AND ts_ns = TS_NS)
        AND peer_addr = (SELECT any(ifNull(local_addr, '')) FROM connection WHERE boot_id = 'BOOT_ID' AND conn = 'CONN' AND ts_ns = TS_NS)
        AND peer_port = (SELECT any(ifNull(local_port, 0)) FROM connection WHERE boot_id = 'BOOT_ID' AND conn = 'CONN' AND ts_ns = TS_NS)
) AS ends
GLOBAL ALL INNER JOIN (
    SELECT
        'CONN' AS this_conn, 'BOOT_ID' AS this_boot_id, toUInt16(any(ifNull(peer_port, 0))) AS local_port,
        any(opened_ns) AS this_opened_ns, any(ts_ns) AS this_ts_ns, any(ifNull(netns, 0)) AS this_netns
    FROM connection
    WHERE boot_id = 'BOOT_ID' AND conn = 'CONN' AND ts_ns = TS_NS
) AS this USING (local_port)
WHERE NOT (boot_id = this_boot_id AND conn = this_conn)
    AND opened_ns < this_ts_ns + 5000000000 AND ts_ns + 5000000000 > this_opened_ns
    AND (NOT match(local_addr, '^(127\\.|::1$)') OR (boot_id = this_boot_id AND netns = this_netns))
ORDER BY abs(opened_ms)
LIMIT 5
