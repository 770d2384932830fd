package metrics

import (
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Describe implements [prometheus.Collector].
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range families {
		ch <- f.desc
	}
}

// Collect implements [prometheus.Collector].
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	m.collectConnections(ch)
	m.collectTransitions(ch)
	m.sockets.Load().collect(ch)
	m.usage.Load().collect(ch)
	m.collectAlerts(ch)
	m.collectOutputs(ch)
	m.collectSelf(ch)
}

func (m *Metrics) collectConnections(ch chan<- prometheus.Metric) {
	for _, s := range m.services.all() {
		for role := range s.counts.ended {
			for way, name := range ways {
				if n := s.counts.ended[role][way].Load(); n > 0 {
					ch <- familyConnections.value(float64(n), s.label, tcp.Role(role).String(), name)
				}
			}
		}
		for cause, name := range causes {
			if n := s.counts.failed[cause].Load(); n > 0 {
				ch <- familyFailed.value(float64(n), s.label, name)
			}
		}
	}
	for i := range m.roles {
		r, role := &m.roles[i], tcp.Role(i)
		if !hasTimes(role) {
			continue
		}
		ch <- familySent.value(float64(r.sent.Load()), role.String())
		ch <- familyReceived.value(float64(r.received.Load()), role.String())
		ch <- familyRetransmits.value(float64(r.retransmits.Load()), role.String())
	}
	for _, vec := range m.histograms {
		vec.Collect(ch)
	}
}

func (m *Metrics) collectTransitions(ch chan<- prometheus.Metric) {
	for old := range m.transitions {
		for next := range m.transitions[old] {
			if n := m.transitions[old][next].Load(); n > 0 {
				ch <- familyTransitions.value(float64(n), stateName(old), stateName(next))
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

func (m *Metrics) collectAlerts(ch chan<- prometheus.Metric) {
	if !m.config.Alerts {
		return
	}
	for _, kind := range m.alerts.kinds {
		k := m.alerts.byKind[kind]
		ch <- familyAlerts.value(float64(k.opened.Load()), kind)
		ch <- familyAlertsOpen.value(float64(k.warning.Load()), kind, "warning")
		ch <- familyAlertsOpen.value(float64(k.critical.Load()), kind, "critical")
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

func (m *Metrics) collectOutputs(ch chan<- prometheus.Metric) {
	published := m.published.Load()
	if published == nil { // the loop has not turned yet
		return
	}
	byName := make(map[string]*record.Counts)
	for i := range *published {
		c := &(*published)[i]
		byName[c.Output] = &c.Counts
		if i == 0 {
			m.collectKernel(ch, &c.Counts)
		}
	}
	for _, o := range m.config.Outputs {
		m.collectQueue(ch, &o)
		c := byName[o.Name]
		if c == nil {
			ch <- familyOutputUp.value(0, o.Name)
			continue
		}
		ch <- familyOutputUp.value(1, o.Name)
		for _, t := range typed {
			for _, each := range []struct {
				family *Family
				count  func(*record.Counts) uint64
			}{{familyOutputWritten, t.written}, {familyOutputDropped, t.dropped}, {familyOutputLost, t.lost}} {
				if each.count != nil {
					ch <- each.family.value(float64(each.count(c)), o.Name, t.name)
				}
			}
		}
	}
}

// collectQueue shows what an output's queue has now.
func (m *Metrics) collectQueue(ch chan<- prometheus.Metric, o *Output) {
	ch <- familyOutputBytes.value(float64(o.Queue.Written()), o.Name)
	ch <- familyOutputRejected.value(float64(o.Queue.Rejected()), o.Name)
	ch <- familyOutputQueue.value(float64(o.Queue.Waiting()), o.Name)
	ch <- familyOutputLimit.value(float64(o.Limit), o.Name)
	if bytes, has := o.Queue.Spooled(); has {
		ch <- familyOutputSpool.value(float64(bytes), o.Name)
	}
}

// collectKernel shows the counts that all outputs have in common.
func (m *Metrics) collectKernel(ch chan<- prometheus.Metric, c *record.Counts) {
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
		ch <- each.family.value(float64(each.count))
	}
	ch <- familyLost.value(float64(c.LostRingFull), string(record.CauseRingFull))
	ch <- familyLost.value(float64(c.LostRingBusy), string(record.CauseRingBusy))
	ch <- familyLost.value(float64(c.LostReentry), string(record.CauseReentry))
	if m.config.Alerts {
		ch <- familyAlertsSuppressed.value(float64(c.AlertsSuppressed))
		ch <- familyLeftOut.value(float64(c.DetectionLeftOut))
	}
}

func (m *Metrics) collectSelf(ch chan<- prometheus.Metric) {
	now := time.Now()
	ch <- familyBuild.value(1, m.config.Version, record.SchemaVersion, runtime.Version())
	since, _ := m.isStuck(now)
	ch <- familyTurnAge.value(since.Seconds())
	m.process.collect(ch)
}
