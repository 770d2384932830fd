-- What has changed since yesterday?
--
-- A row is a service on a host at one port (of a server its own, of a client its peers') whose number of connections or
-- failures in the last 24 hours differs from the 24 hours before, the largest difference first. yesterday = 0: the
-- service is new, or it was not traced.
SELECT
    host, service, role, port,
    sumIf(connections, hour <= now() - 86400) AS yesterday,
    sumIf(connections, hour > now() - 86400) AS today,
    sumIf(failures, hour <= now() - 86400) AS failed_yesterday,
    sumIf(failures, hour > now() - 86400) AS failed_today,
    sumIf(time_waits, hour <= now() - 86400) AS time_waits_yesterday,
    sumIf(time_waits, hour > now() - 86400) AS time_waits_today
FROM service_hour
WHERE hour > now() - 172800
GROUP BY host, service, role, port
HAVING yesterday != today OR failed_yesterday != failed_today
ORDER BY abs(toInt64(today) - toInt64(yesterday)) DESC, host, service
LIMIT 20
