-- Who makes the most TIME_WAITs?
--
-- A row is a service on a host, the one with the most TIME_WAITs of the last hour first. time_waits is how many of its
-- connections this side closed first; most_in_a_minute is about how many TIME_WAITs it has at a time, because each lasts
-- for a minute.
-- A client uses up local ports with them: compare with net.ipv4.ip_local_port_range. A server does not.
SELECT
    host, service, role,
    sum(made) AS time_waits,
    max(made) AS most_in_a_minute,
    max(destinations) AS most_destinations
FROM (
    SELECT host, service, role, minute, sum(time_waits) AS made, uniq(peer_addr, port) AS destinations
    FROM time_wait
    WHERE day >= today() - 1 AND minute > now() - 3600
    GROUP BY host, service, role, minute
)
GROUP BY host, service, role
ORDER BY time_waits DESC, host, service
LIMIT 20
