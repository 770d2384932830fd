package detect

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Phase is where an alert is in its life. Each has one open and one close.
type Phase string

// The phases of an alert.
const (
	Open   Phase = "open"
	Update Phase = "update"
	Close  Phase = "close"
)

// Severity is how soon it hurts.
type Severity string

// The severities: a warning leaves time to think, what is critical does not, or
// hurts already.
const (
	Warning  Severity = "warning"
	Critical Severity = "critical"
)

// Source says where an occupancy comes from.
type Source string

// The sources of an occupancy.
const (
	FromEvents Source = "events"     // counted from what was seen
	Reconciled Source = "reconciled" // the same, and held against the kernel's own count
)

// Alert is one phase of one alert.
type Alert struct {
	Time      time.Time     // wall clock; set by whoever knows the clock's offset
	Monotonic time.Duration // CLOCK_MONOTONIC
	ID        string        // joins the phases
	Kind      string
	Phase     Phase
	Lasted    time.Duration // since it was opened
	Finding
}

// Finding is what an alert says: who, where, how much, why, and what to do.
// A field that is zero is not known, or does not apply.
type Finding struct {
	Severity Severity
	Who      Who

	Netns       uint32
	Role        tcp.Role
	Local, Peer tcp.Endpoint

	Counted         string  // what Rate is of, in words
	Rate            float64 // per second
	Occupancy       uint64
	OccupancySource Source // "": there is no occupancy
	Capacity        uint64
	CapacityKind    string
	Projected       uint64        // occupancy if the rate stays
	ExhaustionIn    time.Duration // only where Exhausts
	Exhausts        bool
	Failures        uint64 // of connect(), since the alert was opened or within the detector's window

	Lost        uint64 // transitions lost lately, that may be missing from the numbers
	Approximate bool   // the table was full: what came before this key had a place in it is missing

	Cause, Advice string
}

// What a capacity is of.
const (
	EphemeralPorts  = "ephemeral_ports"
	TimeWaitBuckets = "time_wait_buckets"
)
