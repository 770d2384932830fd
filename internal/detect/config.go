package detect

import "time"

// Config has what may be tuned. The zero value of each field stands for its default.
type Config struct {
	// Threshold is a part of a capacity, 0 to 1, default 0.7. An alert about exhaustion
	// opens at the latest when that part is taken, if the rest is going to be taken as well.
	Threshold float64
	// UpdateInterval is how often an open alert is reported again; default 10 s.
	UpdateInterval time.Duration
	// CloseWaitAge is how long a socket is in CLOSE_WAIT before it counts as left there,
	// default 30 s; CloseWaitCount is how many of them make a leak, default 32.
	CloseWaitAge   time.Duration
	CloseWaitCount int
	// ConnectFailures is how many connects to one peer must fail within ten seconds for
	// an alert, default 50; Resets is how many connections of one end must be reset
	// within ten seconds, default 100.
	ConnectFailures, Resets int
	// HalfClosed is how many closed connections must wait for the peer's FIN for an
	// alert; default 500.
	HalfClosed int

	// MaxDestinations is how many destinations are tracked at a time, default 4096. The
	// other tables have a part of that.
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
