package metrics

import (
	"runtime"
	"time"

	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// collect adds all metrics but the histograms.
func (m *Metrics) collect(out *samples) {
	m.collectConnections(out)
	m.collectTransitions(out)
	m.sockets.Load().collect(out)
	m.usage.Load().collect(out)
	m.collectAlerts(out)
	m.collectOutputs(out)
	m.collectSelf(out)
}

func (m *Metrics) collectConnections(out *samples) {
	for _, s := range m.services.all() {
		for role := range s.counts.ended {
			for way, name := range ways {
				if n := s.counts.ended[role][way].Load(); n > 0 {
					out.add(familyConnections, float64(n), s.label, tcp.Role(role).String(), name)
				}
			}
		}
		for cause, name := range causes {
			if n := s.counts.failed[cause].Load(); n > 0 {
				out.add(familyFailed, float64(n), s.label, name)
			}
		}
	}
	for i := range m.roles {
		r, role := &m.roles[i], tcp.Role(i)
		if !hasTimes(role) {
			continue
		}
		out.add(familySent, float64(r.sent.Load()), role.String())
		out.add(familyReceived, float64(r.received.Load()), role.String())
		out.add(familyRetransmits, float64(r.retransmits.Load()), role.String())
	}
}

func (m *Metrics) collectTransitions(out *samples) {
	for old := range m.transitions {
		for next := range m.transitions[old] {
			if n := m.transitions[old][next].Load(); n > 0 {
				out.add(familyTransitions, float64(n), stateName(old), stateName(next))
			}
		}
	}
}

// stateName names a state by its index.
func stateName(index int) string {
	if index == 0 {
		return other
	}
	return tcp.State(index).String()
}

func (m *Metrics) collectAlerts(out *samples) {
	if !m.config.Alerts {
		return
	}
	for _, kind := range m.alerts.kinds {
		k := m.alerts.byKind[kind]
		out.add(familyAlerts, float64(k.opened.Load()), kind)
		out.add(familyAlertsOpen, float64(k.warning.Load()), kind, "warning")
		out.add(familyAlertsOpen, float64(k.critical.Load()), kind, "critical")
	}
}

// typed are the records of each type that an output has written, dropped, or lost.
var typed = []struct {
	name                   string
	written, dropped, lost func(c *record.Counts) uint64 // nil: it has no such count
}{
	{"transition", func(c *record.Counts) uint64 { return c.Written }, func(c *record.Counts) uint64 { return c.Dropped }, func(c *record.Counts) uint64 { return c.LostQueueFull }},
	{"connection", func(c *record.Counts) uint64 { return c.Connections }, func(c *record.Counts) uint64 { return c.DroppedConnections }, func(c *record.Counts) uint64 { return c.LostConnections }},
	{"update", func(c *record.Counts) uint64 { return c.Updates }, func(c *record.Counts) uint64 { return c.DroppedUpdates }, func(c *record.Counts) uint64 { return c.LostUpdates }},
	{"time_wait_end", func(c *record.Counts) uint64 { return c.TimeWaitEnds }, nil, func(c *record.Counts) uint64 { return c.TimeWaitEndsLostQueueFull }},
	{"alert", nil, nil, func(c *record.Counts) uint64 { return c.LostAlerts }},
	{"summary", nil, nil, func(c *record.Counts) uint64 { return c.LostSummaries }},
}

func (m *Metrics) collectOutputs(out *samples) {
	published := m.published.Load()
	if published == nil { // the loop has not turned yet
		return
	}
	byName := make(map[string]*record.Counts)
	for i := range *published {
		c := &(*published)[i]
		byName[c.Output] = &c.Counts
		if i == 0 {
			m.collectKernel(out, &c.Counts)
		}
	}
	for _, o := range m.config.Outputs {
		m.collectQueue(out, &o)
		c := byName[o.Name]
		if c == nil {
			out.add(familyOutputUp, 0, o.Name)
			continue
		}
		out.add(familyOutputUp, 1, o.Name)
		for _, t := range typed {
			for _, each := range []struct {
				family *Family
				count  func(*record.Counts) uint64
			}{{familyOutputWritten, t.written}, {familyOutputDropped, t.dropped}, {familyOutputLost, t.lost}} {
				if each.count != nil {
					out.add(each.family, float64(each.count(c)), o.Name, t.name)
				}
			}
		}
	}
}

// collectQueue shows what an output's queue has now.
func (m *Metrics) collectQueue(out *samples, o *Output) {
	out.add(familyOutputBytes, float64(o.Queue.Written()), o.Name)
	out.add(familyOutputRejected, float64(o.Queue.Rejected()), o.Name)
	out.add(familyOutputQueue, float64(o.Queue.Waiting()), o.Name)
	out.add(familyOutputLimit, float64(o.Limit), o.Name)
	if bytes, has := o.Queue.Spooled(); has {
		out.add(familyOutputSpool, float64(bytes), o.Name)
	}
}

// collectKernel shows the counts that all outputs have in common.
func (m *Metrics) collectKernel(out *samples, c *record.Counts) {
	for _, each := range []struct {
		family *Family
		count  uint64
	}{
		{familyFirings, c.Fired}, {familyMissed, c.Missed}, {familyOtherProtocol, c.OtherProtocol}, {familyFiltered, c.Filtered},
		{familyRead, c.Read}, {familyDeferred, c.Deferred}, {familyResetsLost, c.LostResets}, {familyTimeWaitUnknown, c.TimeWaitUnknown},
		{familyTimeWaitMissed, c.TimeWaitEndsLostKernel}, {familyStateUnavailable, c.StateUnavailable}, {familyCgroupUnknown, c.CgroupUnknown},
		{familyMissedUpdates, c.MissedUpdates}, {familyLateUpdates, c.LateUpdates}, {familyRecorderFiles, c.RecorderFiles},
		{familyRecorderLost, c.LostRecorder},
	} {
		out.add(each.family, float64(each.count))
	}
	out.add(familyLost, float64(c.LostRingFull), string(record.CauseRingFull))
	out.add(familyLost, float64(c.LostRingBusy), string(record.CauseRingBusy))
	out.add(familyLost, float64(c.LostReentry), string(record.CauseReentry))
	if m.config.Alerts {
		out.add(familyAlertsSuppressed, float64(c.AlertsSuppressed))
		out.add(familyLeftOut, float64(c.DetectionLeftOut))
	}
}

func (m *Metrics) collectSelf(out *samples) {
	now := time.Now()
	out.add(familyBuild, 1, m.config.Version, record.SchemaVersion, runtime.Version())
	since, _ := m.isStuck(now)
	out.add(familyTurnAge, since.Seconds())
	m.process.collect(out)
}
