package detect

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Phase is the stage that an alert is in. Each alert is reported as Open once, as
// Update any number of times, and as Close once.
type Phase string

// The phases of an alert.
const (
	Open   Phase = "open"
	Update Phase = "update"
	Close  Phase = "close"
)

// Severity is the urgency of an alert.
type Severity string

// The severities. Critical: connect() or bind() finds no free local port, or will find none within
// 20 s; or a listener drops the segments of clients (listen_queue_full).
const (
	Warning  Severity = "warning"
	Critical Severity = "critical"
)

// CloseReason is why an alert was closed.
type CloseReason string

// The reasons for closing an alert.
const (
	Resolved CloseReason = "resolved" // its cause has been gone for 10 s, or an alert of another kind reports it now
	Refuted  CloseReason = "refuted"  // the kernel's table of sockets shows that it was wrong
	Stopped  CloseReason = "stopped"  // the tracer ended before the alert was closed
	// Unverified: the alert was marked as unverified until its end, and no reading of the kernel's tables has shown whether it
	// was right.
	Unverified CloseReason = "unverified"
)

// Source is what an occupancy was counted from.
type Source string

// The sources of an occupancy.
const (
	FromEvents Source = "events" // counted from transitions
	FromKernel Source = "kernel" // counted by the kernel, corrected by the transitions since
)

// Alert is one phase of one alert.
type Alert struct {
	Time      time.Time     // wall clock; the engine leaves it zero, the trace loop sets it
	Monotonic time.Duration // the same moment on CLOCK_BOOTTIME
	ID        string        // the same in all phases of an alert; unique within a run
	Kind      string        // one of Kinds
	Phase     Phase
	Lasted    time.Duration // since it was opened
	Reason    CloseReason   // in phase Close; else ""
	Finding
}

// Finding is what an alert reports: which service, where, how much, why, and what to
// do. A field that is zero is not known, or does not apply.
type Finding struct {
	Severity Severity
	Culprit  Culprit

	Netns       uint32 // inode number
	Role        tcp.Role
	Local, Peer tcp.Endpoint

	RateUnit        string        // what Rate counts per second, in words, such as "connections"
	Rate            float64       // per second
	Occupancy       uint64        // ports, TIME_WAITs or sockets, see CapacityKind and Kind
	OccupancySource Source        // "": there is no occupancy
	Capacity        uint64        // upper limit of Occupancy
	CapacityKind    string        // EphemeralPorts, TimeWaitBuckets or AcceptQueue; "": there is no capacity
	Projected       uint64        // occupancy at this rate after one hold time, see rate.TimeWaitModel
	Exhausts        bool          // the capacity is exhausted, or will be within one hold time
	ExhaustionIn    time.Duration // only where Exhausts; 0: it is exhausted
	Drops           uint64        // segments that a listener has dropped since the alert's cause began
	Overflows       uint64        // connections that the kernel has closed without a TIME_WAIT since the alert opened
	Failures        uint64        // failed connects since the alert's cause began; of connect_failures within 10 s

	Lost        uint64 // transitions lost within the last minute, which may be missing from the numbers
	Unverified  bool   // the kernel's own counts have not confirmed the numbers, or not yet
	Approximate bool   // a table was full or ends were lost, so that the numbers may be wrong; or not all limits could be read

	complete bool // nothing that was lost is missing from the numbers: the engine leaves Lost at 0

	Cause, Advice string // sentences for people, without a full stop at the end
}

// The kinds of capacity.
const (
	EphemeralPorts  = "ephemeral_ports"
	TimeWaitBuckets = "time_wait_buckets"
	AcceptQueue     = "accept_queue"
)
