package recording

import (
	"errors"
	"time"
)

// Record is one line of the native schema, with the keys that readers of recordings use. A key that the line does
// not have is the zero value, or nil where zero is a value. docs/output.md says which record has which key.
type Record struct {
	Type string `json:"type"`
	Time Time   `json:"time"`
	Seq  uint64 `json:"seq"`

	Host   string `json:"host"`
	BootID string `json:"boot_id"`

	Version  string         `json:"version"` // of start
	Schema   string         `json:"schema"`
	Kernel   string         `json:"kernel"`
	Arch     string         `json:"arch"`
	Features map[string]any `json:"features"` // true, or the reason why it is off
	Changed  string         `json:"changed"`  // of reload

	Socket
	Owner
	Step
	Connection
	Alert
	Counts
}

// Socket has the keys of a socket, and of what an alert is about.
type Socket struct {
	Conn      string `json:"conn"`
	Netns     uint64 `json:"netns"`
	Family    string `json:"family"`
	LocalAddr string `json:"local_addr"`
	LocalPort uint16 `json:"local_port"`
	PeerAddr  string `json:"peer_addr"`
	PeerPort  uint16 `json:"peer_port"`
	Mapped    bool   `json:"mapped"`
	Role      string `json:"role"`
	Error     string `json:"error"`
	Sampled   uint64 `json:"sampled"`
}

// Owner has the keys of the process that owns a socket. PID is 0, and UID nil, if it is not known.
type Owner struct {
	PID              uint32  `json:"pid"`
	Comm             string  `json:"comm"`
	UID              *uint32 `json:"uid"`
	PIDSource        string  `json:"pid_source"`
	Cgroup           string  `json:"cgroup"`
	Container        string  `json:"container"`
	ContainerRuntime string  `json:"container_runtime"`
	PodUID           string  `json:"pod_uid"`
	ContainerName    string  `json:"container_name"`
	ContainerClaimed bool    `json:"container_claimed"`
	Pod              string  `json:"pod"`
	Namespace        string  `json:"namespace"`
	Unit             string  `json:"unit"`
	UnitClaimed      bool    `json:"unit_claimed"`
}

// Step has the keys of a transition.
type Step struct {
	OldState    string `json:"old_state"`
	NewState    string `json:"new_state"`
	Substate    string `json:"time_wait_substate"`
	TimeWaitEnd string `json:"time_wait_end"`
	// TimeWaitUnknown is true if it is not known whether the socket left a TIME_WAIT. In stats it is a number.
	TimeWaitUnknown any    `json:"time_wait_unknown"`
	InState         *int64 `json:"in_state_ns"`
	Self            bool   `json:"self"`
}

// Connection has the keys of a connection record. Opened is zero, and Duration nil, if the connection is older than
// the tracer.
type Connection struct {
	Phase       string `json:"phase"` // also of an alert
	Opened      Time   `json:"opened"`
	Duration    *int64 `json:"duration_ns"`
	Sent        uint64 `json:"sent_bytes"`
	Received    uint64 `json:"received_bytes"`
	Retransmits uint64 `json:"retransmits"`
	RTT         int64  `json:"rtt_ns"`
	Established int64  `json:"established_ns"`
	Cwnd        uint32 `json:"cwnd"`
	State       string `json:"state"`
	FinalState  string `json:"final_state"`
	ClosedBy    string `json:"closed_by"`
	ResetReason string `json:"reset_reason"`
	Partial     bool   `json:"partial"`
}

// Alert has the keys of an alert.
type Alert struct {
	Kind         string   `json:"kind"`
	ID           string   `json:"alert"`
	Severity     string   `json:"severity"`
	Service      string   `json:"service"`
	Share        float64  `json:"share"`
	NextService  string   `json:"next_service"`
	NextShare    float64  `json:"next_share"`
	Rate         float64  `json:"rate_per_s"`
	Occupancy    *uint64  `json:"occupancy"`
	Capacity     uint64   `json:"capacity"`
	CapacityKind string   `json:"capacity_kind"`
	ExhaustionIn *float64 `json:"exhaustion_in_s"`
	Failures     uint64   `json:"failures"`
	Lasted       int64    `json:"lasted_ns"`
	CloseReason  string   `json:"close_reason"`
	Confidence   string   `json:"confidence"`
	Cause        string   `json:"cause"`
	Advice       string   `json:"advice"`
}

// Counts has the keys of loss, stats and stop. Lost is also a key of an alert.
type Counts struct {
	Lost            uint64 `json:"lost"`
	Stage           string `json:"stage"`
	LostConnections uint64 `json:"lost_connections"`
	LostAlerts      uint64 `json:"lost_alerts"`

	Reason        string `json:"reason"` // of stop
	Seen          uint64 `json:"seen"`
	Filtered      uint64 `json:"filtered"`
	Dropped       uint64 `json:"dropped"`
	LostRingFull  uint64 `json:"lost_ring_full"`
	LostRingBusy  uint64 `json:"lost_ring_busy"`
	LostReentry   uint64 `json:"lost_reentry"`
	LostQueueFull uint64 `json:"lost_queue_full"`
}

// Time is the wall-clock time of a record in nanoseconds since 1970, in UTC. Zero is absent.
type Time int64

// earliest and latest bound the times that fit into Time, with room for arithmetic. Zero means absent, so the earliest
// time is 1 ns.
var (
	earliest = time.Date(1970, 1, 1, 0, 0, 0, 1, time.UTC)
	latest   = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)
)

var errTime = errors.New("the time is not in RFC 3339, or not from 1970 to 2199")

// UnmarshalJSON reads a time in the format of RFC 3339. It fails for another format, and for a time before 1970 or after
// 2199.
func (t *Time) UnmarshalJSON(b []byte) error {
	if len(b) < 2 || b[0] != '"' {
		return errTime
	}
	parsed, err := time.Parse(time.RFC3339Nano, string(b[1:len(b)-1]))
	if err != nil || parsed.Before(earliest) || parsed.After(latest) {
		return errTime
	}
	*t = Time(parsed.UnixNano())
	return nil
}

// Std returns t as a [time.Time] in UTC.
func (t Time) Std() time.Time { return time.Unix(0, int64(t)).UTC() }
