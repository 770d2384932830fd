package monitor

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Engine is detection. The contracts of the methods are those of [*detect.Engine]. [*replay.Recorder] is an engine that
// also records its inputs.
type Engine interface {
	Observe(t *tcp.Transition)
	ResetDecided(t *tcp.Transition)
	AddLost(now time.Duration, count uint64)
	AddLeftOut(sockets uint64)
	SetThresholds(c detect.Config)

	Seed(now time.Duration, netns uint32, s *tcp.Socket)
	SeedingDone(now time.Duration)
	Update(now time.Duration, netns uint32, l *tcp.Limits)
	UpdateHalfClosed(now, readAt time.Duration, netns uint32, sockets []tcp.Socket)
	UpdateCloseWait(now, readAt time.Duration, netns uint32, sockets []tcp.CloseWaitSocket)
	UpdateOpen(now, since time.Duration, netns uint32, o *detect.OpenSockets)
	UpdateSuspects(now time.Duration, c *detect.SuspectCounts)
	UpdateListeners(now time.Duration, netns uint32, t *detect.ListenTable)

	Requests(now time.Duration) []detect.Request
	Tick(now time.Duration) []detect.Alert
	Finish(now time.Duration) []detect.Alert

	HasOpenAlerts() bool
	SeededAfter() time.Duration
	Usage(now time.Duration) []detect.Usage
	Destinations(now time.Duration, limit int) []detect.DestinationUsage
	AlertsSuppressed() uint64
	LeftOut() detect.LeftOut
}
