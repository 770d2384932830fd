package replay

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// The values of the key input.
const (
	inputRecording   = "recording" // the first line
	inputTransition  = "transition"
	inputReset       = "reset_decided"
	inputLost        = "lost"
	inputLeftOut     = "left_out"
	inputThresholds  = "thresholds"
	inputSeed        = "seed"
	inputSeedingDone = "seeding_done"
	inputLimits      = "limits"
	inputHalfClosed  = "half_closed"
	inputCloseWait   = "close_wait"
	inputOpen        = "open"
	inputSuspects    = "suspects"
	inputListeners   = "listeners"
	inputUsage       = "usage"
	inputRequests    = "requests"
	inputTick        = "tick"
	inputFinish      = "finish"

	inputCgroup = "cgroup" // gives a cgroup a number
	inputGone   = "gone"   // a process is gone, in the tick that follows
	inputWall   = "wall"   // of the alerts of the tick before
	inputNamed  = "named"  // what is known of a cgroup, for the alerts of the tick before
	inputGap    = "gap"    // lines are missing
)

// Header is the first line of a recording. Host, BootID, Kernel and Arch describe the host, as the start record does.
type Header struct {
	Input      string        `json:"input"`
	Version    int           `json:"version"`
	Program    string        `json:"tcpshift"` // its version
	Host       string        `json:"host,omitempty"`
	BootID     string        `json:"boot_id,omitempty"`
	Kernel     string        `json:"kernel,omitempty"`
	Arch       string        `json:"arch"`
	Began      time.Duration `json:"began_ns"` // when the engine was made, CLOCK_BOOTTIME
	Thresholds Thresholds    `json:"thresholds"`
}

// Thresholds has the thresholds of [detect.Config], by the same names and in the same units. 0 is the default.
type Thresholds struct {
	Threshold       float64       `json:"threshold,omitempty"`
	UpdateInterval  time.Duration `json:"update_interval_ns,omitempty"`
	CloseWaitAge    time.Duration `json:"close_wait_age_ns,omitempty"`
	CloseWaitCount  int           `json:"close_wait_count,omitempty"`
	ConnectFailures int           `json:"connect_failures,omitempty"`
	Resets          int           `json:"resets,omitempty"`
	HalfClosed      int           `json:"half_closed,omitempty"`
	MaxDestinations int           `json:"max_destinations,omitempty"`
}

func thresholdsOf(c detect.Config) Thresholds {
	return Thresholds{c.Threshold, c.UpdateInterval, c.CloseWaitAge, c.CloseWaitCount, c.ConnectFailures, c.Resets, c.HalfClosed, c.MaxDestinations}
}

// config returns the thresholds as a configuration. A threshold of over that is not zero takes the place of t's, except
// for MaxDestinations.
func (t *Thresholds) config(over detect.Config) detect.Config {
	c := detect.Config{
		Threshold: t.Threshold, UpdateInterval: t.UpdateInterval, CloseWaitAge: t.CloseWaitAge, CloseWaitCount: t.CloseWaitCount,
		ConnectFailures: t.ConnectFailures, Resets: t.Resets, HalfClosed: t.HalfClosed, MaxDestinations: t.MaxDestinations,
	}
	replace(&c.Threshold, over.Threshold)
	replace(&c.UpdateInterval, over.UpdateInterval)
	replace(&c.CloseWaitAge, over.CloseWaitAge)
	replace(&c.CloseWaitCount, over.CloseWaitCount)
	replace(&c.ConnectFailures, over.ConnectFailures)
	replace(&c.Resets, over.Resets)
	replace(&c.HalfClosed, over.HalfClosed)
	return c
}

// replace sets field to value, unless value is zero.
func replace[T comparable](field *T, value T) {
	var zero T
	if value != zero {
		*field = value
	}
}

type (
	timeInput struct {
		Input string        `json:"input"`
		Now   time.Duration `json:"now_ns"`
	}
	countInput struct {
		Input string        `json:"input"`
		Now   time.Duration `json:"now_ns,omitempty"`
		Count uint64        `json:"count"`
	}
	thresholdsInput struct {
		Input      string     `json:"input"`
		Thresholds Thresholds `json:"thresholds"`
	}
	seedInput struct {
		Input  string        `json:"input"`
		Now    time.Duration `json:"now_ns"`
		Netns  uint32        `json:"netns"`
		Socket socketJSON    `json:"socket"`
	}
	limitsInput struct {
		Input  string        `json:"input"`
		Now    time.Duration `json:"now_ns"`
		Netns  uint32        `json:"netns"`
		Limits *limitsJSON   `json:"limits"` // null: the namespace could not be read
	}
	socketsInput struct {
		Input   string        `json:"input"`
		Now     time.Duration `json:"now_ns"`
		ReadAt  time.Duration `json:"read_at_ns"`
		Netns   uint32        `json:"netns"`
		Sockets []socketJSON  `json:"sockets"`
	}
	closeWaitInput struct {
		Input   string                `json:"input"`
		Now     time.Duration         `json:"now_ns"`
		ReadAt  time.Duration         `json:"read_at_ns"`
		Netns   uint32                `json:"netns"`
		Sockets []tcp.CloseWaitSocket `json:"sockets"`
	}
	openInput struct {
		Input string              `json:"input"`
		Now   time.Duration       `json:"now_ns"`
		Since time.Duration       `json:"since_ns"`
		Netns uint32              `json:"netns"`
		Open  *detect.OpenSockets `json:"open"`
	}
	suspectsInput struct {
		Input  string                `json:"input"`
		Now    time.Duration         `json:"now_ns"`
		Counts *detect.SuspectCounts `json:"counts"`
	}
	listenersInput struct {
		Input string              `json:"input"`
		Now   time.Duration       `json:"now_ns"`
		Netns uint32              `json:"netns"`
		Table *detect.ListenTable `json:"table"` // null: it could not be read
	}
	cgroupInput struct {
		Input  string     `json:"input"`
		Number int        `json:"number"` // from 1; a number may be given again
		Cgroup tcp.Cgroup `json:"cgroup"`
	}
	goneInput struct {
		Input string        `json:"input"`
		PID   uint32        `json:"pid"`
		At    time.Duration `json:"at_ns"`
	}
	wallInput struct {
		Input  string        `json:"input"`
		Offset time.Duration `json:"offset_ns"`
	}
	namedInput struct {
		Input  string `json:"input"`
		ID     uint64 `json:"id"`
		Number int    `json:"number"` // of a cgroup; 0: nothing is known
	}
	gapInput struct {
		Input string `json:"input"`
		Lines uint64 `json:"lines"`
	}
)

// limitsJSON has limits with their sets of ports as text.
type limitsJSON struct {
	tcp.Limits
	Reserved, Bound, BindBuckets *portsJSON

	TimeWaitOverflows *int64 // nil: in recordings of before it was read
}

func limitsOf(l *tcp.Limits) *limitsJSON {
	if l == nil {
		return nil
	}
	return &limitsJSON{
		Limits: *l, Reserved: (*portsJSON)(l.Reserved), Bound: (*portsJSON)(l.Bound), BindBuckets: (*portsJSON)(l.BindBuckets),
		TimeWaitOverflows: &l.TimeWaitOverflows,
	}
}

func (j *limitsJSON) value() *tcp.Limits {
	if j == nil {
		return nil
	}
	l := j.Limits
	l.Reserved, l.Bound, l.BindBuckets = (*tcp.PortSet)(j.Reserved), (*tcp.PortSet)(j.Bound), (*tcp.PortSet)(j.BindBuckets)
	if l.TimeWaitOverflows = -1; j.TimeWaitOverflows != nil {
		l.TimeWaitOverflows = *j.TimeWaitOverflows
	}
	return &l
}

// portsJSON is a set of ports that is encoded as text such as "22,8000-8999". A nil set is encoded as null.
type portsJSON tcp.PortSet

// MarshalJSON encodes the set.
func (p *portsJSON) MarshalJSON() ([]byte, error) {
	b := []byte{'"'}
	first, last := -1, -2 // of the range so far
	flush := func() {
		if first < 0 {
			return
		}
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, int64(first), 10)
		if last > first {
			b = strconv.AppendInt(append(b, '-'), int64(last), 10)
		}
	}
	for port := range (*tcp.PortSet)(p).Within(0, 65535) {
		if int(port) != last+1 {
			flush()
			first = int(port)
		}
		last = int(port)
	}
	flush()
	return append(b, '"'), nil
}

// UnmarshalJSON decodes what MarshalJSON has encoded.
func (p *portsJSON) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return err
	}
	*p = portsJSON{}
	if text == "" {
		return nil
	}
	for part := range strings.SplitSeq(text, ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		low, err := strconv.ParseUint(from, 10, 16)
		high, err2 := strconv.ParseUint(to, 10, 16)
		if err != nil || err2 != nil {
			return fmt.Errorf("%q is not a port or a range of ports", part)
		}
		for port := low; port <= high; port++ {
			(*tcp.PortSet)(p).Add(uint16(port))
		}
	}
	return nil
}
