package metrics

import (
	"sync/atomic"

	"github.com/tcpshift/tcpshift/internal/detect"
)

// alertCounts are the alerts of a run by kind. add is for the goroutine of the loop.
type alertCounts struct {
	kinds  []string // as detect.Kinds
	byKind map[string]*kindCounts
	open   map[string]*atomic.Int64 // by id: the count that has the alert
}

type kindCounts struct {
	opened            atomic.Uint64
	warning, critical atomic.Int64 // open now
}

func (c *alertCounts) init() {
	c.kinds, c.byKind, c.open = detect.Kinds(), make(map[string]*kindCounts), make(map[string]*atomic.Int64)
	for _, kind := range c.kinds {
		c.byKind[kind] = new(kindCounts)
	}
}

func (c *alertCounts) add(a *detect.Alert) {
	k := c.byKind[a.Kind]
	if k == nil {
		return
	}
	if a.Phase == detect.Open {
		k.opened.Add(1)
	}
	if before, known := c.open[a.ID]; known {
		before.Add(-1)
		delete(c.open, a.ID)
	}
	if a.Phase == detect.Close {
		return
	}
	severity := &k.warning
	if a.Severity == detect.Critical {
		severity = &k.critical
	}
	severity.Add(1)
	c.open[a.ID] = severity
}
