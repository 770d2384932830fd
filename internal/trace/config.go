package trace

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/metrics"
	"github.com/tcpshift/tcpshift/internal/output"
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/summary"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Source is where events come from; [*probe.Probe] is one.
type Source interface {
	// ReadFor calls handle for each sample until wait is over and none is left, under load for at
	// most twice wait; handle must not keep the slice. If handle fails, ReadFor returns its error.
	ReadFor(wait time.Duration, handle func(sample []byte) error) error
	// Sleep waits until there is a sample, Wake is called, the wall clock is set, or limit is over.
	// It reports whether something other than limit ended it.
	Sleep(limit time.Duration) (woken bool, err error)
	// Wake ends the Sleep that is in progress, or else the next one. Any goroutine may call it.
	Wake()
	// Crowded reports whether the ring buffers may soon be too full for more events.
	Crowded() bool
	// Entered is the Entered of the primary program in Counters. Every firing of the tracepoint adds to it,
	// except one that interrupts another firing.
	Entered() (uint64, error)
	// Counters are the kernel's counts of events so far.
	Counters() (probe.Counters, error)
	// ListenPort returns the port of a socket that listens without having been bound, by
	// its cookie; 0: not known.
	ListenPort(cookie uint64) uint16
	// Detach stops the flow of events. What is in the ring buffers can still be read.
	Detach() error
}

// Observer receives all transitions and ends of TIME_WAITs from the loop's goroutine,
// including those that are not written. It must not wait. It may keep the transition's Cgroup, which never
// changes, and must not keep anything else of the values.
type Observer interface {
	// Observe takes a transition, complete with its wall-clock time and cgroup.
	Observe(t *tcp.Transition)
	// ResetDecided takes a transition to CLOSE with ResetAwaited a second time, once it is
	// decided whether this side sent a reset, or the loop gave up waiting for that.
	ResetDecided(t *tcp.Transition)
	// AddLost reports that count transitions were lost in the kernel.
	AddLost(count uint64)
}

// Monitor is an Observer that raises alerts; [*monitor.Monitor] is one.
type Monitor interface {
	Observer
	// Alerts returns the alerts raised since the last call. It is called once a turn.
	Alerts() []detect.Alert
	// HasOpenAlerts reports whether alerts are open.
	HasOpenAlerts() bool
	// NotifyAnswers sets wake, which is called when Alerts has something new to work with, from any
	// goroutine.
	NotifyAnswers(wake func())
	// SeededAfter is how long it took to read the sockets that existed at the start; 0: they
	// have not been read yet.
	SeededAfter() time.Duration
	// Usage is what the engine knows of the use of ports and timewait sockets.
	Usage() []detect.Usage
	// AlertsSuppressed is how many causes have had no alert because too many were open.
	AlertsSuppressed() uint64
	// LeftOut is what detection has left out because a table was full.
	LeftOut() detect.LeftOut
	// Finish returns the alerts since the last call and closes the open ones. It is called
	// once, at the end.
	Finish() []detect.Alert
}

// Summary sums up the connections that end; [*summary.Summary] is one.
type Summary interface {
	// Add takes a connection with its last transition, once it is decided how it ended. It may keep
	// last.Cgroup, which never changes, and must not keep anything else of the values.
	Add(last *tcp.Transition, c *tcp.Connection)
	// Due is when Rows may have something, unless the wall clock is set.
	Due() time.Time
	// Rows returns the rows of the windows that are over at now. It is called once a turn.
	Rows(now time.Time) []summary.Row
	// Finish returns the rows of all windows. It is called once, at the end.
	Finish(now time.Time) []summary.Row
}

// Updates makes the source emit updates of the connections that live; [*live.Walker] is one.
type Updates interface {
	// Stop returns when no update is emitted any more, or after half a second: a walk that waits in the kernel
	// then may emit updates later, which the loop may not read. It may be called several times.
	Stop()
	// Late is how many rounds of updates were left out because the one before took too long.
	Late() uint64
}

// Metrics counts what the loop sees, for scrapes; [*metrics.Metrics] is one. Its methods do not wait.
type Metrics interface {
	Observer
	// Add takes a connection with its last transition, once it is decided how it ended. It must not keep the values.
	Add(last *tcp.Transition, c *tcp.Connection)
	// Alert takes each phase of each alert.
	Alert(a *detect.Alert)
	// Sockets takes a count of all sockets. cgroupOf returns the cgroup with an id; nil: it is not known.
	Sockets(c *tcp.SocketCensus, cgroupOf func(id uint64) *tcp.Cgroup)
	// Usage takes what detection knows of the use of ports and timewait sockets. It may change the slice.
	Usage(all []detect.Usage)
	// Started is called once each output has its start record, Stopping when the run ends.
	Started()
	Stopping()
	// Due is called once a turn, and reports whether Publish is due.
	Due(now time.Time) bool
	// Publish takes the counts of the outputs that have not failed, and may keep the slice.
	Publish(now time.Time, counts []metrics.Counts)
}

// SocketCounts counts sockets in the background; [*monitor.SocketCounter] is one. Its methods do not wait.
type SocketCounts interface {
	// Answer returns the newest count, once; nil: there is none since the last call.
	Answer() *tcp.SocketCensus
	// NotifyAnswers sets wake, which is called when Answer has something new, from any goroutine.
	NotifyAnswers(wake func())
}

// Config is what Run needs.
type Config struct {
	Source  Source
	Outputs []Output // one at least
	Monitor Monitor  // nil: no alerts
	Summary Summary  // nil: no summary records
	Names   Names    // nil: no names of containers and pods
	Updates Updates  // nil: no updates of connections that live
	Metrics Metrics  // nil: no metrics
	// Flight keeps the last events in memory, and writes them to a file when an alert opens; nil: nothing does.
	Flight *Flight
	// Recording gets what the alerts of Monitor depend on; nil: nobody needs it.
	Recording Recording
	// SocketCounts are counts of all sockets, for Metrics; nil: there are none.
	SocketCounts SocketCounts
	// Processes is what process records come from; nil: there are none.
	Processes Processes
	Start     record.Start // Run sets its Time
	// Started is called once each output has its start record; an error ends the run. nil: nothing to do.
	Started func() error
	// Turned is called in each turn of the loop, every 5 s at least, and must not wait; nil: nothing to do.
	Turned func()
	// Notify gets messages for the operator, and must not wait; nil: none.
	Notify func(message string)
	// OwnSockets are the sockets of outputs, whose events nobody gets; nil: none.
	OwnSockets *output.OwnSockets
	// Reloads are changes of the run; nil: there are none. After sending one call Source.Wake.
	Reloads <-chan *Reload
	// ResetReasons are the kernel's names of the reasons to send a reset.
	ResetReasons map[tcp.ResetCode]string

	Duration      time.Duration // 0: no limit
	Count         uint64        // transitions, written or not; 0: no limit
	StatsInterval time.Duration // 0: no stats records
	// MaxWait is how long an event stays in the ring at most while the loop is awake and no ring is a quarter full;
	// 0: 40 ms, so that records come within 100 ms. Each turn of the loop has a cost of its own.
	MaxWait time.Duration
}
