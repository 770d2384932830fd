package main

// key is a key of the records, with its type in ClickHouse.
type key struct {
	name, dataType string
	in             tables
	codec          string // of the modern schema; "": ClickHouse's default
}

// tables says which tables have the key as a column. The table records has all keys.
type tables uint8

const (
	inConnection tables = 1 << iota
	inAlert
	inLoss
	inBoth = inConnection | inAlert
)

// The types of keys. A key that may be absent is Nullable: an absent value is not a 0.
const (
	text         = "String"
	word         = "LowCardinality(String)" // few values among many rows
	optionalText = "Nullable(String)"
	optionalWord = "LowCardinality(Nullable(String))"
	flag         = "Nullable(UInt8)"
	u16          = "Nullable(UInt16)"
	u32          = "Nullable(UInt32)"
	u64          = "Nullable(UInt64)"
	float        = "Nullable(Float64)"
)

// packed is the codec of columns that it makes much smaller than the default codec does.
const packed = "ZSTD(1)"

// keys are the keys of connection, alert and loss records, in the order of the records. time and opened become
// nanoseconds in the tables.
var keys = []key{
	{"type", word, 0, ""},
	{"time", text, 0, ""},
	{"host", word, inBoth | inLoss, ""},
	{"boot_id", word, inBoth | inLoss, ""},
	{"seq", "UInt64", inBoth | inLoss, "Delta, ZSTD(1)"},
	{"kind", optionalWord, inAlert, ""},
	{"phase", optionalWord, inBoth, ""},
	{"alert", optionalText, inAlert, ""},
	{"severity", optionalWord, inAlert, ""},
	{"service", optionalWord, inAlert, ""},
	{"service_claimed", flag, inAlert, ""},
	{"share", float, inAlert, ""},
	{"processes", u32, inAlert, ""},
	{"conn", optionalText, inConnection, packed},
	{"netns", u32, inBoth, packed},
	{"family", optionalWord, inConnection, ""},
	{"mapped", flag, inConnection, ""},
	{"local_addr", optionalText, inBoth, packed},
	{"local_port", u16, inBoth, packed},
	{"peer_addr", optionalText, inBoth, packed},
	{"peer_port", u16, inBoth, packed},
	{"role", optionalWord, inBoth, ""},
	{"pid", u32, inBoth, packed},
	{"pid_share", float, inAlert, ""},
	{"comm", optionalWord, inBoth, ""},
	{"uid", u32, inConnection, packed},
	{"pid_source", optionalWord, inConnection, ""},
	{"cgroup", optionalWord, inBoth, ""},
	{"container", optionalWord, inBoth, ""},
	{"container_runtime", optionalWord, inBoth, ""},
	{"pod_uid", optionalWord, inBoth, ""},
	{"container_claimed", flag, inBoth, ""},
	{"pod", optionalWord, inBoth, ""},
	{"namespace", optionalWord, inBoth, ""},
	{"container_name", optionalWord, inBoth, ""},
	{"unit", optionalWord, inBoth, ""},
	{"unit_claimed", flag, inBoth, ""},
	{"next_service", optionalWord, inAlert, ""},
	{"next_share", float, inAlert, ""},
	{"opened", optionalText, 0, ""},
	{"duration_ns", u64, inConnection, packed},
	{"established_ns", u64, inConnection, packed},
	{"sent_bytes", u64, inConnection, packed},
	{"received_bytes", u64, inConnection, packed},
	{"retransmits", u32, inConnection, packed},
	{"rtt_ns", u64, inConnection, packed},
	{"cwnd", u32, inConnection, packed},
	{"state", optionalWord, inConnection, ""},
	{"final_state", optionalWord, inConnection, ""},
	{"closed_by", optionalWord, inConnection, ""},
	{"error", optionalWord, inConnection, ""},
	{"reset_reason", optionalWord, inConnection, ""},
	{"partial", flag, inConnection, ""},
	{"sampled", u32, inConnection, ""},
	{"rate_per_s", float, inAlert, ""},
	{"occupancy", u64, inAlert, ""},
	{"occupancy_source", optionalWord, inAlert, ""},
	{"capacity", u64, inAlert, ""},
	{"capacity_kind", optionalWord, inAlert, ""},
	{"projected_occupancy", u64, inAlert, ""},
	{"exhaustion_in_s", float, inAlert, ""},
	{"drops", u64, inAlert, ""},
	{"overflows", u64, inAlert, ""},
	{"failures", u64, inAlert, ""},
	{"lasted_ns", u64, inAlert, ""},
	{"close_reason", optionalWord, inAlert, ""},
	{"confidence", optionalWord, inAlert, ""},
	{"lost", u64, inAlert | inLoss, ""},
	{"approximate", flag, inAlert, ""},
	{"cause", optionalText, inAlert | inLoss, ""},
	{"advice", optionalText, inAlert, ""},
	{"stage", optionalWord, inLoss, ""},
	{"lost_connections", u64, inLoss, ""},
	{"lost_alerts", u64, inLoss, ""},
	{"lost_updates", u64, inLoss, ""},
}
