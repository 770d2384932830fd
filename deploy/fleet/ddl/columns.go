package main

// key is a key of the records that come in, with its type in ClickHouse.
type key struct {
	name, kind string
	in         tables
	codec      string // of the modern schema; "": ClickHouse's default
}

// tables says which tables have the key as a column. All of them come in.
type tables uint8

const (
	inConnection tables = 1 << iota
	inAlert
	inLoss
	inBoth = inConnection | inAlert
)

// The types of keys. A key that may be absent is Nullable: an absent value is not a 0.
const (
	text     = "String"
	word     = "LowCardinality(String)" // few values among many rows
	maybe    = "Nullable(String)"
	wordless = "LowCardinality(Nullable(String))"
	flag     = "Nullable(UInt8)"
	u16      = "Nullable(UInt16)"
	u32      = "Nullable(UInt32)"
	u64      = "Nullable(UInt64)"
	float    = "Nullable(Float64)"
)

// packed is the codec of what compresses well beyond the default.
const packed = "ZSTD(1)"

// keys are the keys of connection, alert and loss records, in their order. time and opened become
// nanoseconds in the tables.
var keys = []key{
	{"type", word, 0, ""},
	{"time", text, 0, ""},
	{"host", word, inBoth | inLoss, ""},
	{"boot_id", word, inBoth | inLoss, ""},
	{"seq", "UInt64", inBoth | inLoss, "Delta, ZSTD(1)"},
	{"kind", wordless, inAlert, ""},
	{"phase", wordless, inBoth, ""},
	{"alert", maybe, inAlert, ""},
	{"severity", wordless, inAlert, ""},
	{"service", wordless, inAlert, ""},
	{"service_claimed", flag, inAlert, ""},
	{"share", float, inAlert, ""},
	{"processes", u32, inAlert, ""},
	{"conn", maybe, inConnection, packed},
	{"netns", u32, inBoth, packed},
	{"family", wordless, inConnection, ""},
	{"mapped", flag, inConnection, ""},
	{"local_addr", maybe, inBoth, packed},
	{"local_port", u16, inBoth, packed},
	{"peer_addr", maybe, inBoth, packed},
	{"peer_port", u16, inBoth, packed},
	{"role", wordless, inBoth, ""},
	{"pid", u32, inBoth, packed},
	{"pid_share", float, inAlert, ""},
	{"comm", wordless, inBoth, ""},
	{"uid", u32, inConnection, packed},
	{"pid_source", wordless, inConnection, ""},
	{"cgroup", wordless, inBoth, ""},
	{"container", wordless, inBoth, ""},
	{"container_runtime", wordless, inBoth, ""},
	{"pod_uid", wordless, inBoth, ""},
	{"container_claimed", flag, inBoth, ""},
	{"pod", wordless, inBoth, ""},
	{"namespace", wordless, inBoth, ""},
	{"container_name", wordless, inBoth, ""},
	{"unit", wordless, inBoth, ""},
	{"unit_claimed", flag, inBoth, ""},
	{"next_service", wordless, inAlert, ""},
	{"next_share", float, inAlert, ""},
	{"opened", maybe, 0, ""},
	{"duration_ns", u64, inConnection, packed},
	{"established_ns", u64, inConnection, packed},
	{"sent_bytes", u64, inConnection, packed},
	{"received_bytes", u64, inConnection, packed},
	{"retransmits", u32, inConnection, packed},
	{"rtt_ns", u64, inConnection, packed},
	{"cwnd", u32, inConnection, packed},
	{"state", wordless, inConnection, ""},
	{"final_state", wordless, inConnection, ""},
	{"closed_by", wordless, inConnection, ""},
	{"error", wordless, inConnection, ""},
	{"reset_reason", wordless, inConnection, ""},
	{"partial", flag, inConnection, ""},
	{"sampled", u32, inConnection, ""},
	{"rate_per_s", float, inAlert, ""},
	{"occupancy", u64, inAlert, ""},
	{"occupancy_source", wordless, inAlert, ""},
	{"capacity", u64, inAlert, ""},
	{"capacity_kind", wordless, inAlert, ""},
	{"projected_occupancy", u64, inAlert, ""},
	{"exhaustion_in_s", float, inAlert, ""},
	{"drops", u64, inAlert, ""},
	{"failures", u64, inAlert, ""},
	{"lasted_ns", u64, inAlert, ""},
	{"close_reason", wordless, inAlert, ""},
	{"confidence", wordless, inAlert, ""},
	{"lost", u64, inAlert | inLoss, ""},
	{"approximate", flag, inAlert, ""},
	{"cause", maybe, inAlert | inLoss, ""},
	{"advice", maybe, inAlert, ""},
	{"stage", wordless, inLoss, ""},
	{"lost_connections", u64, inLoss, ""},
	{"lost_alerts", u64, inLoss, ""},
	{"lost_updates", u64, inLoss, ""},
}
