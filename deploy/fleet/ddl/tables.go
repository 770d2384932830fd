package main

import "fmt"

// column is a column of a table that a materialized view fills from the records.
type column struct {
	name, dataType string
	from           string // the expression over a record
	codec          string
}

// table is a table and the view that fills it. If grouped, the engine sums or aggregates, and the view groups by the
// columns that no aggregate function makes.
type table struct {
	name, answers string // answers: what the table is for, as a comment of the schema
	engine, order string
	month         bool // a partition is a month, not a day
	days          int  // after so many days the modern schema removes a row
	where         string
	columns       []column
	grouped       bool
	granularity   int // rows between two marks of the index; 0: ClickHouse's default
}

// Expressions over a record.
const (
	isEnd = "type = 'connection' AND ifNull(phase, 'end') = 'end'"
	// weight is how many connections a record stands for: --sample 1/N writes N into it.
	weight = "toUInt64(ifNull(sampled, 1))"
	// tsNs is the key time in nanoseconds since 1970.
	tsNs = "toUInt64(toDateTime(replaceOne(substring(time, 1, 19), 'T', ' '), 'UTC')) * 1000000000 + toUInt64(substring(time, 21, 9))"
	// openedNs is the key opened in nanoseconds since 1970; 0 if it is absent. ClickHouse evaluates both branches of if,
	// so the second one needs a valid time in this case, too.
	openedNs = "if(isNull(opened), toUInt64(0), toUInt64(toDateTime(replaceOne(substring(ifNull(opened, '1970-01-01T00:00:00.000000000Z'), 1, 19), 'T', ' '), 'UTC')) * 1000000000" +
		" + toUInt64(substring(ifNull(opened, '1970-01-01T00:00:00.000000000Z'), 21, 9)))"
	dayOf    = "toDate(substring(time, 1, 10))"
	minuteOf = "toDateTime(replaceOne(concat(substring(time, 1, 16), ':00'), 'T', ' '), 'UTC')"
	hourOf   = "toDateTime(replaceOne(concat(substring(time, 1, 13), ':00:00'), 'T', ' '), 'UTC')"
	// serviceOf is the name of the service, as alerts have it: of the systemd unit, else of the container, else of the
	// process. A unit whose name a user may have chosen does not replace a container's name.
	serviceOf = `if(ifNull(unit, '') != '' AND NOT match(ifNull(unit, ''), '^(session-|user@)')` +
		` AND (isNull(unit_claimed) OR isNull(container_name) OR isNotNull(container_claimed)),` +
		` replaceRegexpOne(ifNull(unit, ''), '\\.[a-z]+$', ''), ifNull(container_name, ifNull(comm, '')))`
	// servedPort is the port of the service: the peer's port for a client, the local port for a server.
	servedPort = "if(ifNull(role, '') = 'client', ifNull(peer_port, 0), ifNull(local_port, 0))"
	// hasFailed is a connect() that never reached ESTABLISHED.
	hasFailed = "ifNull(role, '') = 'client' AND ifNull(established_ns, 1) = 0"
)

func orEmpty(name string) column {
	return column{name, word, fmt.Sprintf("ifNull(%s, '')", name), ""}
}

var (
	day     = column{"day", "Date", dayOf, ""}
	ts      = column{"ts_ns", "UInt64", tsNs, "Delta, ZSTD(1)"}
	minute  = column{"minute", "DateTime('UTC')", minuteOf, "Delta, ZSTD(1)"}
	host    = column{"host", word, "host", ""}
	bootID  = column{"boot_id", word, "boot_id", ""}
	service = column{"service", word, serviceOf, ""}
	netns   = column{"netns", "UInt32", "ifNull(netns, 0)", ""}
	port    = column{"port", "UInt16", servedPort, ""}
)

// sum is a column that a SummingMergeTree adds up: the sum of value over the records that meet a condition.
func sum(name, value, condition string) column {
	if condition != "" {
		value = fmt.Sprintf("if(%s, %s, 0)", condition, value)
	}
	return column{name, "UInt64", "sum(" + value + ")", packed}
}

var views = []table{
	{
		name: "connection", answers: "Every connection record, as it is.",
		engine: "ReplacingMergeTree()", order: "boot_id, ts_ns, seq", days: 30, where: "type = 'connection'",
		columns: append([]column{day, ts, {"opened_ns", "UInt64", openedNs, packed}}, columnsOf(inConnection)...),
	},
	{
		name: "alert", answers: "Every alert record, as it is: what runs out, and what is wrong now.",
		engine: "ReplacingMergeTree()", order: "boot_id, ts_ns, seq", days: 400, where: "type = 'alert'",
		columns: append([]column{day, ts}, columnsOf(inAlert)...),
	},
	{
		name: "loss", answers: "What is missing from the other tables.",
		engine: "ReplacingMergeTree()", order: "boot_id, ts_ns, seq", days: 400, where: "type = 'loss'",
		columns: append([]column{day, ts}, columnsOf(inLoss)...),
	},
	{
		name: "time_wait", answers: "Who makes the most TIME_WAITs, for which destinations.",
		engine: "SummingMergeTree()", order: "day, minute, host, netns, service, role, local_addr, peer_addr, port", days: 400,
		where:   isEnd + " AND ifNull(final_state, '') = 'TIME_WAIT'",
		grouped: true,
		columns: []column{
			day, minute, host, netns, service, orEmpty("role"), orEmpty("local_addr"),
			{"peer_addr", text, "if(ifNull(role, '') = 'client', ifNull(peer_addr, ''), '')", packed}, port,
			sum("time_waits", weight, ""),
		},
	},
	{
		name: "connect_failure", answers: "Where connects fail, and why.",
		engine: "SummingMergeTree()", order: "day, minute, host, service, peer_addr, peer_port, why", days: 400,
		where:   isEnd + " AND " + hasFailed,
		grouped: true,
		columns: []column{
			day, minute, host, service, {"peer_addr", text, "ifNull(peer_addr, '')", packed},
			{"peer_port", "UInt16", "ifNull(peer_port, 0)", ""},
			{"why", word, "ifNull(closed_by, ifNull(error, 'not known'))", ""},
			sum("failures", weight, ""),
		},
	},
	{
		name: "close_wait", answers: "Which sockets stay in CLOSE_WAIT, from updates.",
		engine: "AggregatingMergeTree()", order: "day, host, boot_id, service, role, port, conn", days: 30,
		where:   "type = 'connection' AND ifNull(state, '') = 'CLOSE_WAIT'",
		grouped: true,
		columns: []column{
			day, host, bootID, service, orEmpty("role"), port,
			{"conn", text, "ifNull(conn, '')", packed},
			{"first_ns", "AggregateFunction(min, UInt64)", "minState(" + tsNs + ")", ""},
			{"last_ns", "AggregateFunction(max, UInt64)", "maxState(" + tsNs + ")", ""},
		},
	},
	{
		name: "endpoint", answers: "The ends of connections, found by their addresses and ports.",
		engine: "MergeTree()", order: "local_addr, local_port, peer_addr, peer_port, ts_ns", days: 30, granularity: 1024,
		where: isEnd + " AND isNotNull(local_port) AND isNotNull(peer_port)",
		columns: []column{
			day, {"ts_ns", "UInt64", tsNs, packed}, {"opened_ns", "UInt64", openedNs, packed},
			{"local_addr", text, "ifNull(local_addr, '')", packed}, {"local_port", "UInt16", "ifNull(local_port, 0)", packed},
			{"peer_addr", text, "ifNull(peer_addr, '')", packed}, {"peer_port", "UInt16", "ifNull(peer_port, 0)", packed},
			host, bootID, netns, {"conn", text, "ifNull(conn, '')", packed}, service, orEmpty("role"), orEmpty("closed_by"),
		},
	},
	{
		name: "service_hour", answers: "What each service does in an hour, to compare with yesterday.",
		engine: "SummingMergeTree()", order: "hour, host, service, role, port", month: true, days: 400,
		where:   isEnd,
		grouped: true,
		columns: []column{
			day, {"hour", "DateTime('UTC')", hourOf, ""}, host, service, orEmpty("role"), port,
			sum("connections", weight, ""),
			sum("failures", weight, hasFailed),
			sum("resets", weight, "ifNull(closed_by, '') IN ('reset_sent', 'reset_received')"),
			sum("time_waits", weight, "ifNull(final_state, '') = 'TIME_WAIT'"),
			sum("sent_bytes", weight+" * ifNull(sent_bytes, 0)", ""),
			sum("received_bytes", weight+" * ifNull(received_bytes, 0)", ""),
			sum("retransmits", weight+" * ifNull(retransmits, 0)", ""),
		},
	},
}

// columnsOf returns the keys of a table as columns.
func columnsOf(in tables) (columns []column) {
	for _, k := range keys {
		if k.in&in != 0 {
			columns = append(columns, column{k.name, k.dataType, k.name, k.codec})
		}
	}
	return columns
}
