-- Where do connects fail, and why?
--
-- A row is a service on a host and one peer, the most failures of the last hour first. why is closed_by, or the
-- error: refused: nothing listens there; timeout: no answer; no_port: this host has no local port left for the
-- peer; local: the process gave up before an answer came. A peer that many hosts name is itself at fault.
SELECT
    host, service, peer_addr, peer_port, why,
    sum(failures) AS failed,
    min(minute) AS first_minute,
    max(minute) AS last_minute
FROM connect_failure
WHERE day >= today() - 1 AND minute > now() - 3600
GROUP BY host, service, peer_addr, peer_port, why
ORDER BY failed DESC, host, service
LIMIT 20
