package metrics

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// filled has 200 services in five ways to end, and 10,000 sockets of them.
func filled(b *testing.B) *Metrics {
	m := newTest(b, 1)
	m.Publish(m.began, manyCounts(1))
	var groups []tcp.OwnerSockets
	for i := range 200 {
		for _, by := range tcp.WaysToClose()[:5] {
			m.Add(ended(fmt.Sprintf("service-%d", i), tcp.RoleClient, by))
		}
		groups = append(groups, tcp.OwnerSockets{SocketOwner: tcp.SocketOwner{Comm: tcp.Comm{'s', byte('a' + i/20), byte('a' + i%20)}, State: tcp.Established}, Count: 50})
	}
	m.Sockets(&tcp.SocketCensus{Namespaces: []tcp.NetnsSockets{{Netns: 1, Groups: groups}}}, func(uint64) *tcp.Cgroup { return nil })
	return m
}

// A scrape with 200 services: series are made, encoded and compressed.
func BenchmarkMetrics_Scrape(b *testing.B) {
	m := filled(b)
	request := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	request.Header.Set("Accept-Encoding", "gzip")
	for b.Loop() {
		m.Handler().ServeHTTP(httptest.NewRecorder(), request) // a new Handler has no values of before
	}
}

// A connection of one of 100 services with series.
func BenchmarkMetrics_Add(b *testing.B) {
	m := filled(b)
	last, c := ended("service-7", tcp.RoleClient, tcp.ClosedByLocal)
	b.ReportAllocs()
	for b.Loop() {
		m.Add(last, c)
	}
}
