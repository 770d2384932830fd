package trace

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/monotonic"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/storm"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// engineWatch is detection without a host to ask.
type engineWatch struct {
	*storm.Engine
	now time.Duration
}

func (w *engineWatch) Lost(count uint64)     { w.Engine.Lost(w.now, count) }
func (w *engineWatch) Alerts() []storm.Alert { return w.Tick(w.now) }
func (w *engineWatch) Finish() []storm.Alert { return nil }

// connectionEvents are the four events of a connection on a loopback that alerts ask for,
// between ends as a storm of the lab has them.
func connectionEvents(n uint64, at time.Duration) [4][]byte {
	var all [4][]byte
	for i, e := range []struct {
		old, next tcp.State
		role      tcp.Role
	}{
		{tcp.Close, tcp.SynSent, tcp.RoleClient}, {tcp.Established, tcp.CloseWait, tcp.RoleServer},
		{tcp.CloseWait, tcp.LastAck, tcp.RoleServer}, {tcp.FinWait2, tcp.Close, tcp.RoleClient},
	} {
		b := event(112, 1, 2*n+uint64(e.role), e.old, e.next)
		binary.NativeEndian.PutUint64(b[0:], uint64(at))
		b[104], b[105], b[106] = 0, byte(e.role), byte(tcp.PIDTask)
		if e.next == tcp.Close {
			b[104] = byte(tcp.TimeWait)
		}
		copy(b[32:], []byte{127, 0, 1, byte(1 + n%64)})
		copy(b[48:], []byte{127, 0, 1, byte(1 + n%64)})
		binary.NativeEndian.PutUint32(b[88:], 1000)
		ephemeral, service := b[96:], b[98:]
		if e.role == tcp.RoleServer {
			ephemeral, service = service, ephemeral
		}
		binary.NativeEndian.PutUint16(service, 7000)
		if e.next != tcp.SynSent {
			binary.NativeEndian.PutUint16(ephemeral, uint16(32768+n))
		}
		all[i] = b
	}
	return all
}

func BenchmarkAlerts(b *testing.B) {
	now := monotonic.Now()
	w := &engineWatch{Engine: storm.New(storm.Config{}, now), now: now}
	l := newLoop(Config{Sink: &discard{}, Encoder: record.NewNDJSON(nil), Watch: w, Only: []string{"alert"}})
	w.Learn(now, 0, nil)
	w.Seeded()
	var events [4096][4][]byte
	for n := range events {
		events[n] = connectionEvents(uint64(n), now)
	}
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		w.now = now + time.Duration(n)*15*time.Microsecond
		for _, e := range events[n%len(events)] {
			binary.NativeEndian.PutUint64(e, uint64(w.now))
			if err := l.handle(e); err != nil {
				b.Fatal(err)
			}
		}
		if n%2000 == 0 {
			l.alerts(w.Alerts())
			l.buf = l.buf[:0]
		}
	}
}
