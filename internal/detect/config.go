package detect

import "time"

// Config tunes detection. A field that is zero means its default: New fills it in.
type Config struct {
	// Threshold is a fraction of a capacity, 0 to 1, default 0.7: a storm whose exhaustion is at
	// most 16 s away opens an alert when this much is occupied. docs/detection.md has the other
	// conditions.
	Threshold float64
	// UpdateInterval is how often an open alert is reported again; default 10 s.
	UpdateInterval time.Duration
	// CloseWaitAge is how long a socket must have been in CLOSE_WAIT to count as leaked,
	// default 30 s. CloseWaitCount is how many such sockets of one process or endpoint open an
	// alert, default 32.
	CloseWaitAge   time.Duration
	CloseWaitCount int
	// ConnectFailures is how many connects to one peer must fail within ten seconds for
	// an alert, default 50. Resets is how many connections of one endpoint its peers must reset
	// within ten seconds, default 100.
	ConnectFailures, Resets int
	// HalfClosed is how many sockets of one destination or endpoint must have been in
	// FIN_WAIT2, waiting for the peer's FIN, for 5 s to open an alert; default 500.
	HalfClosed int

	// Gone reports whether a process has ended; nil: none is gone. It is called only for the
	// processes that an alert may name, when the alert opens, is updated or closes.
	Gone func(Process) bool

	// MaxDestinations bounds the destinations that are tracked at a time, default 4096.
	// The tables of servers, namespaces and endpoints are bounded in proportion to it; those of
	// single sockets and ports by constants. Each table is divided among the users of the host:
	// see quota and package topk.
	MaxDestinations int
}

func (c Config) withDefaults() Config {
	setDefault(&c.Threshold, 0.7)
	setDefault(&c.UpdateInterval, 10*time.Second)
	setDefault(&c.CloseWaitAge, 30*time.Second)
	setDefault(&c.CloseWaitCount, 32)
	setDefault(&c.ConnectFailures, 50)
	setDefault(&c.Resets, 100)
	setDefault(&c.HalfClosed, 500)
	setDefault(&c.MaxDestinations, 4096)
	return c
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
