package harness

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// observing is a [trace.Monitor] without alerts, which passes on the transitions: these have values that no record has.
type observing func(t *tcp.Transition)

func (o observing) Observe(t *tcp.Transition)    { o(t) }
func (observing) ResetDecided(*tcp.Transition)   {}
func (observing) AddLost(uint64)                 {}
func (observing) Alerts() []detect.Alert         { return nil }
func (observing) HasOpenAlerts() bool            { return false }
func (observing) NotifyAnswers(func())           {}
func (observing) SeededAfter() time.Duration     { return 0 }
func (observing) Usage() []detect.Usage          { return nil }
func (observing) AlertsSuppressed() uint64       { return 0 }
func (observing) LeftOut() (left detect.LeftOut) { return left }
func (observing) Finish() []detect.Alert         { return nil }
