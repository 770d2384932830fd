package trace

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/activity"
	"github.com/tcpshift/tcpshift/internal/boottime"
	"github.com/tcpshift/tcpshift/internal/cputime"
	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/metrics"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// engineMonitor is detection without a host that answers its questions.
type engineMonitor struct {
	*detect.Engine
	now time.Duration
}

func (m *engineMonitor) AddLost(count uint64)  { m.Engine.AddLost(m.now, count) }
func (m *engineMonitor) Usage() []detect.Usage { return m.Engine.Usage(m.now) }
func (m *engineMonitor) HasOpenAlerts() bool   { return false }

func (m *engineMonitor) NotifyAnswers(func()) {}

func (m *engineMonitor) Alerts() []detect.Alert { return m.Tick(m.now) }
func (m *engineMonitor) Finish() []detect.Alert { return nil }

// wantedEvents is for what the programs emit events.
type wantedEvents int

const (
	forTransitions wantedEvents = iota // all
	forAlerts                          // what detection needs
	forConnections                     // the ends of sockets
	forTop                             // what detection needs, and the ends
)

// connectionEvents are the ten events of a connection over loopback, of both ends, as
// in a storm of test/tcplab, or those of them that are wanted.
func connectionEvents(n uint64, at time.Duration, wanted wantedEvents) (all [][]byte) {
	for _, e := range []struct {
		old, next tcp.State
		role      tcp.Role
		alerts    bool
	}{
		{tcp.Close, tcp.SynSent, tcp.RoleClient, true},
		{tcp.Listen, tcp.SynRecv, tcp.RoleServer, false},
		{tcp.SynRecv, tcp.Established, tcp.RoleServer, false},
		{tcp.SynSent, tcp.Established, tcp.RoleClient, false},
		{tcp.Established, tcp.FinWait1, tcp.RoleClient, false},
		{tcp.Established, tcp.CloseWait, tcp.RoleServer, true},
		{tcp.FinWait1, tcp.FinWait2, tcp.RoleClient, false},
		{tcp.CloseWait, tcp.LastAck, tcp.RoleServer, true},
		{tcp.FinWait2, tcp.Close, tcp.RoleClient, true},
		{tcp.LastAck, tcp.Close, tcp.RoleServer, false},
	} {
		end := e.next == tcp.Close
		if wanted == forAlerts && !e.alerts || wanted == forConnections && !end || wanted == forTop && !e.alerts && !end {
			continue
		}
		size, kind := 112, byte(1)
		if e.next == tcp.Close {
			size, kind = 152, 2
		}
		b := event(size, kind, 2*n+uint64(e.role), e.old, e.next)
		binary.NativeEndian.PutUint64(b[0:], uint64(at))
		binary.NativeEndian.PutUint64(b[16:], 7) // its cgroup
		binary.NativeEndian.PutUint64(b[24:], 12345+n)
		b[104], b[105], b[106] = 0, byte(e.role), byte(tcp.PIDTask)
		b[108] = 1 // timed
		if e.old == tcp.FinWait2 {
			b[104] = byte(tcp.TimeWait)
		}
		copy(b[32:], []byte{127, 0, 1, byte(1 + n%64)})
		copy(b[48:], []byte{127, 0, 1, byte(1 + n%64)})
		copy(b[64:], "storm")
		binary.NativeEndian.PutUint32(b[88:], 1000)
		ephemeral, service := b[96:], b[98:]
		if e.role == tcp.RoleServer {
			ephemeral, service = service, ephemeral
		}
		binary.NativeEndian.PutUint16(service, 7000)
		if e.next != tcp.SynSent {
			binary.NativeEndian.PutUint16(ephemeral, uint16(32768+n))
		}
		all = append(all, b)
	}
	return all
}

// benchmarkLoop takes the events of one connection after another through all of the
// loop except reading and writing.
func benchmarkLoop(b *testing.B, only []string, wanted wantedEvents) {
	now := boottime.Now()
	m := &engineMonitor{Engine: detect.New(detect.Config{}, now), now: now}
	cfg := Config{Source: &fakeSource{}, Outputs: []Output{{Sink: &discard{}, Encoder: record.NewNative(nil), Only: only}}}
	if wanted != forConnections {
		cfg.Monitor = m
	}
	if wanted == forTop {
		cfg.Metrics = screen{activity.New(activity.Config{Destinations: func(limit int) []detect.DestinationUsage { return m.Destinations(m.now, limit) }}, time.Unix(0, 0))}
	}
	l := newLoop(cfg)
	l.cgroups.Put(7, "/system.slice/storm.service", 0)
	m.Update(now, 0, nil)
	m.SeedingDone(now)
	var events [4096][][]byte
	for n := range events {
		events[n] = connectionEvents(uint64(n), now, wanted)
	}
	b.ReportAllocs()
	const perSecond = 10000
	timer, operations := cputime.Start(), 0
	defer func() {
		b.ReportMetric(timer.Elapsed().Seconds()/float64(operations)*perSecond*100, "%core@10k/s")
	}()
	for n := 0; b.Loop(); n++ {
		operations++
		m.now = now + time.Duration(n)*15*time.Microsecond
		for _, e := range events[n%len(events)] {
			binary.NativeEndian.PutUint64(e, uint64(m.now))
			if err := l.handle(e); err != nil {
				b.Fatal(err)
			}
		}
		if wanted == forTop && n%perSecond == 0 {
			cfg.Metrics.Publish(time.Unix(int64(n/perSecond), 0), nil)
		}
		if n%2000 == 0 {
			l.writeAlerts(m.Alerts())
			out := l.outs.writers[0].stream
			out.Lines = out.Lines[:0]
		}
	}
}

// BenchmarkTrace is a full stream: one operation is the ten events of a connection.
// 'make profile' gives its profile to the compiler.
func BenchmarkTrace(b *testing.B) { benchmarkLoop(b, nil, forTransitions) }

// BenchmarkAlerts is a stream of alerts alone: one operation is the four events of a
// connection that detection needs.
func BenchmarkAlerts(b *testing.B) { benchmarkLoop(b, []string{"alert"}, forAlerts) }

// BenchmarkConnections is a stream of connection records alone: one operation is the two ends of a
// connection.
func BenchmarkConnections(b *testing.B) { benchmarkLoop(b, []string{"connection"}, forConnections) }

// screen is the activity of top in the place of metrics.
type screen struct{ *activity.Activity }

func (s screen) Publish(now time.Time, _ []metrics.Counts) { s.Activity.Publish(now, 0) }

// BenchmarkTop is what the loop does for the screen of top: one operation is the five events of a connection that
// detection and connection records need, with a snapshot after each 10,000.
func BenchmarkTop(b *testing.B) { benchmarkLoop(b, []string{"alert"}, forTop) }
