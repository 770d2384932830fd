package fleet_test

import (
	"fmt"
	"strings"
)

const (
	sizingHosts = 100
	// sizingSpan is the time over which the records are spread, in seconds. The longest query reads that much.
	sizingSpan = 2 * 86400
)

// sizingRecords returns a statement that inserts the records with the numbers from first to end - 1, spread over
// sizingSpan up to now. Two records are the two ends of a connection between two hosts. One in 50 connects fails, and has
// one record. Of one in 50 connections the server's end is open, in CLOSE_WAIT: its record is an update.
func sizingRecords(first, end int) string {
	return strings.NewReplacer("{span}", fmt.Sprint(sizingSpan), "{hosts}", fmt.Sprint(sizingHosts),
		"{first}", fmt.Sprint(first), "{count}", fmt.Sprint(end-first)).Replace(sizingInsert)
}

// sizingInsert works with 18.16 and in chDB. The inner queries make the numbers of a record, the outer one its keys.
const sizingInsert = `INSERT INTO tcpshift.records (type, time, host, boot_id, seq, phase, conn, netns, family, local_addr, local_port,
    peer_addr, peer_port, role, pid, comm, uid, pid_source, cgroup, unit, opened, duration_ns, established_ns, sent_bytes,
    received_bytes, retransmits, rtt_ns, state, final_state, closed_by, error)
SELECT 'connection', concat(replaceOne(toString(toDateTime(second, 'UTC')), ' ', 'T'), '.', substring(toString(1000000000 + ns), 2), 'Z'),
    concat('host-', toString(own)), concat(lower(hex(intHash64(own))), '-0000-4000-8000-000000000000'), n,
    if(leaks, 'update', 'end'), lower(hex(n + 1)), 4026531840, 'ipv4',
    concat('10.0.0.', toString(own)), if(client, port, served), concat('10.0.0.', toString(other)), if(client, served, port),
    if(client, 'client', 'server'), 1000 + own * 7 + h % 5, if(client, concat('worker-', toString(h % 4)), concat('server-', toString(served % 20))),
    1000 + h % 4, if(client, 'task', 'accept'),
    concat('/system.slice/', if(client, concat('worker-', toString(h % 4)), concat('server-', toString(served % 20))), '.service'),
    if(client, NULL, concat('server-', toString(served % 20), '.service')),
    concat(replaceOne(toString(toDateTime(second - 1, 'UTC')), ' ', 'T'), '.', substring(toString(1000000000 + ns), 2), 'Z'),
    1000000000, if(fails, 0, 999000000 - h % 1000000), if(fails, 0, h % 5000), if(fails, 0, h2 % 100000), if(h % 100 = 0, 1, 0),
    if(fails, NULL, 100000 + h2 % 400000), if(leaks, 'CLOSE_WAIT', NULL),
    if(leaks, NULL, if(client AND NOT fails AND h2 % 5 < 3, 'TIME_WAIT', 'CLOSE')),
    if(leaks, NULL, if(fails, 'refused', if(client = (h2 % 5 < 3), 'local', 'peer'))), if(fails, 'ECONNREFUSED', NULL)
FROM (
    SELECT n, h, h2, client, second, ns, served, port, fails, leaks,
        if(client, client_host, server_host) AS own, if(client, server_host, client_host) AS other
    FROM (
        SELECT toUInt64(number) + {first} AS n, intDiv(n, 2) AS pair, n % 2 = 0 AS client, intHash64(pair * 3 + 1) AS h, intHash64(pair * 3 + 2) AS h2,
            toUInt32(toUnixTimestamp(now()) - {span} * (1 - (number - number % 2) / {count})) AS second, h2 % 1000000000 AS ns,
            h % {hosts} AS client_host, (h % {hosts} * 31 + h % 4 * 17 + h2 % 3 * 7 + 1) % {hosts} AS server_host,
            8000 + h % 4 * 3 + h2 % 3 AS served, 32768 + h2 % 28000 AS port,
            pair % 50 = 0 AS fails, (pair % 50 = 1) AND NOT client AS leaks
        FROM (SELECT number FROM system.numbers LIMIT {count})
    )
    WHERE NOT (fails AND NOT client)
)`

// sizingAlerts returns a statement that inserts count alert records, spread over sizingSpan: most are older than the time
// that queries about open alerts look at.
func sizingAlerts(count int) string {
	return fmt.Sprintf(`INSERT INTO tcpshift.records (type, time, host, boot_id, seq, kind, phase, alert, severity, service, netns, role,
    local_addr, peer_addr, peer_port, rate_per_s, occupancy, capacity, capacity_kind, exhaustion_in_s, confidence, cause, advice)
SELECT 'alert', concat(replaceOne(toString(toDateTime(toUInt32(toUnixTimestamp(now()) - %d * (1 - number / %d)), 'UTC')), ' ', 'T'), '.000000000Z'),
    concat('host-', toString(number %% 100)), concat(lower(hex(intHash64(number %% 100))), '-0000-4000-8000-000000000000'), number,
    'time_wait_storm', 'update', concat('a-', toString(intDiv(number, 1000))), 'warning', 'worker-1', 4026531840, 'client',
    '10.0.0.1', '10.0.0.2', 8000, 100.5, 20000 + number %% 8000, 28232, 'ephemeral_ports', number %% 100, 'full', 'cause', 'advice'
FROM (SELECT number FROM system.numbers LIMIT %d)`, sizingSpan, count, count)
}
