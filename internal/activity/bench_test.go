package activity

import (
	"fmt"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// BenchmarkAdd is what one connection that ends costs the trace loop.
func BenchmarkAdd(b *testing.B) {
	for _, services := range []int{1, 100, 5000} {
		b.Run(fmt.Sprint("services=", services), func(b *testing.B) {
			a := New(Config{}, began)
			names := make([]string, services)
			for i := range names {
				names[i] = fmt.Sprint("worker-", i)
			}
			last, c := ended("", 80, tcp.ClosedByLocal)
			last.Monotonic, c.OpenedAt, c.RTT = time.Hour, time.Hour-time.Millisecond, time.Microsecond
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				last.Owner.Comm = comm(names[i%services])
				last.Peer.Port = uint16(i % 50)
				a.Add(last, c)
			}
		})
	}
}

// BenchmarkPublish is what one snapshot costs the trace loop, once a second, with full tables.
func BenchmarkPublish(b *testing.B) {
	a := New(Config{}, began)
	for i := range 20 * maxServices {
		last, c := ended(fmt.Sprint("worker-", i%maxServices), uint16(i%50), tcp.ClosedByLocal)
		last.Monotonic, c.OpenedAt, c.RTT = time.Hour, time.Hour-time.Millisecond*time.Duration(i%100+1), time.Microsecond*time.Duration(i%300+1)
		a.Add(last, c)
	}
	b.ReportAllocs()
	now := began
	for b.Loop() {
		now = now.Add(Interval)
		a.Publish(now, 0)
	}
}
