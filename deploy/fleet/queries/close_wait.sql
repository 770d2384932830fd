-- Which service leaks CLOSE_WAITs?
--
-- A row is a service on a host, the most sockets first. Its peers have closed these connections, and the service has
-- not: the sockets stayed in CLOSE_WAIT for 10 seconds or more, the oldest for longest_s so far, and were seen there
-- within the last 5 minutes. port is the service's own if it is a server, else its peers'. This needs records of a trace
-- with --updates.
SELECT
    host, service, role, port,
    count() AS sockets,
    round(max(last - first) / 1000000000) AS longest_s
FROM (
    SELECT host, boot_id, service, role, port, conn, minMerge(first_ns) AS first, maxMerge(last_ns) AS last
    FROM close_wait
    WHERE day >= today() - 1
    GROUP BY host, boot_id, service, role, port, conn
)
WHERE last - first >= 10000000000 AND last > toUInt64(toUnixTimestamp(now()) - 300) * 1000000000
GROUP BY host, service, role, port
ORDER BY sockets DESC, host, service
LIMIT 20
