package metrics

import (
	"fmt"
	"maps"
	"math"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// fakeQueue is a queue that stands still.
type fakeQueue struct{}

func (fakeQueue) Waiting() int            { return 3 }
func (fakeQueue) Written() uint64         { return 5 }
func (fakeQueue) Spooled() (uint64, bool) { return 7, true }
func (fakeQueue) Rejected() uint64        { return 11 }

func newTest(t testing.TB, outputs int) *Metrics {
	t.Helper()
	c := Config{Version: "test", AllTransitions: true, Alerts: true}
	for i := range outputs {
		c.Outputs = append(c.Outputs, Output{Name: fmt.Sprintf("file-%d", i+1), Limit: 100, Queue: fakeQueue{}})
	}
	m := New(c)
	t.Cleanup(m.Close)
	return m
}

// gather is a scrape.
func gather(t testing.TB, m *Metrics) map[string]*dto.MetricFamily {
	t.Helper()
	all, err := m.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	// The registry of client_golang finds what is twice, not valid, or of another type.
	checked := prometheus.Gatherers{prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) { return all, nil })}
	if _, err := checked.Gather(); err != nil {
		t.Error(err)
	}
	byName := make(map[string]*dto.MetricFamily)
	for _, f := range all {
		byName[f.GetName()] = f
	}
	return byName
}

// seriesOf counts as Prometheus does: each classic bucket is a series.
func seriesOf(all map[string]*dto.MetricFamily) (n int) {
	for _, f := range all {
		for _, each := range f.GetMetric() {
			if h := each.GetHistogram(); h != nil {
				n += len(h.GetBucket()) + 3 // +Inf, sum, count
			} else {
				n++
			}
		}
	}
	return n
}

// sum is the sum of a family over the series whose labels have these values.
func sum(f *dto.MetricFamily, labels map[string]string) (total float64) {
next:
	for _, each := range f.GetMetric() {
		found := make(map[string]string)
		for _, l := range each.GetLabel() {
			found[l.GetName()] = l.GetValue()
		}
		for name, value := range labels {
			if found[name] != value {
				continue next
			}
		}
		total += each.GetCounter().GetValue() + each.GetGauge().GetValue() + float64(each.GetHistogram().GetSampleCount())
	}
	return total
}

// ended is a connection of a service, whose socket had a role, that ended in a way.
func ended(service string, role tcp.Role, by tcp.ClosedBy) (*tcp.Transition, *tcp.Connection) {
	last := &tcp.Transition{
		Monotonic: time.Hour, Role: role, Old: tcp.FinWait2, New: tcp.TimeWait, Owner: tcp.Owner{PID: 1, Source: tcp.PIDTask},
		Cgroup: &tcp.Cgroup{Unit: service + ".service"},
	}
	if by != tcp.ClosedByLocal {
		last.New = tcp.Close
	}
	return last, &tcp.Connection{OpenedAt: time.Hour - time.Second, RTT: time.Millisecond, Sent: 10, Received: 20, Retransmits: 1, ClosedBy: by}
}

// However many services, peers, ports and namespaces there are, the series and the memory stay bounded, each
// connection counts once, and a minute brings no more than 100 new services.
func TestMetrics_Bounded(t *testing.T) {
	m := newTest(t, 16)
	m.Publish(m.began, manyCounts(16))
	for old := range tcp.States() {
		for next := range tcp.States() {
			m.Observe(&tcp.Transition{Old: tcp.State(old + 1), New: tcp.State(next + 1), InState: time.Duration(1+old*next) * time.Millisecond})
		}
	}
	const services = 100_000
	all := append(tcp.WaysToClose(), "")
	drive := func(from, to int) {
		for i := from; i < to; i++ {
			for j := range 3 {
				last, c := ended(fmt.Sprintf("service-%d", i), tcp.Role((i+j)%4), all[(i/4+j)%len(all)])
				last.Netns, last.Peer.Port, last.UID, last.CgroupID = uint32(i), uint16(i), uint32(i%1000), uint64(i)
				if (i+j)%7 == 0 {
					last.Role, last.Old = tcp.RoleClient, tcp.SynSent
				}
				c.RTT, c.OpenedAt = time.Duration(1+i)*time.Microsecond, last.Monotonic-time.Duration(i)*time.Millisecond
				m.Add(last, c)
			}
			for j := range 10 { // of the services that stay
				m.Add(ended(fmt.Sprintf("steady-%d", (i*10+j)%maxUserNames), tcp.RoleServer, tcp.ClosedByPeer))
			}
			if i%100 == 0 {
				m.Publish(m.began.Add(time.Duration(i)*time.Second), manyCounts(16))
			}
		}
	}
	seen := make(map[string]bool)
	drive(0, services/10)
	before := heap()
	for part := 1; part < 10; part++ {
		drive(part*services/10, (part+1)*services/10)
		got := gather(t, m)
		if n := seriesOf(got); n > 5000 {
			t.Fatalf("%d series, want 5000 at most", n)
		}
		for _, each := range got["tcpshift_connections_total"].GetMetric() {
			seen[each.GetLabel()[2].GetValue()] = true
		}
	}
	if grown := int64(heap()) - int64(before); grown > 1<<20 {
		t.Errorf("%d services more take %d bytes, want 1 MiB at most", services*9/10, grown)
	}
	got := gather(t, m)
	for i := range maxUserNames {
		if name := fmt.Sprintf("steady-%d", i); !seen[name] {
			t.Errorf("%s had no series when they were scraped: services that come and go have taken its place", name)
		}
	}
	t.Logf("%d series, %d services had some", seriesOf(got), len(seen))
}

// The worst that there can be: each of the services that have series ends connections in all ways, in all roles.
func TestMetrics_MostSeries(t *testing.T) {
	m := newTest(t, 16)
	m.Publish(m.began, manyCounts(16))
	connections := 0
	for i := range 2 * maxNames {
		for role := range roleCount {
			for _, by := range append(tcp.WaysToClose(), "") {
				for _, old := range []tcp.State{tcp.SynSent, tcp.Established} {
					last, c := ended(fmt.Sprintf("service-%d", i), tcp.Role(role), by)
					last.Old = old
					m.Add(last, c)
					connections++
				}
			}
		}
	}
	for old := range maxStates {
		for next := range maxStates {
			m.Observe(&tcp.Transition{Old: tcp.State(old), New: tcp.State(next)})
		}
	}
	m.Sockets(mostSockets(), func(uint64) *tcp.Cgroup { return nil })
	m.Usage(mostUsage())
	got := gather(t, m)
	n := seriesOf(got)
	if n > 5000 {
		t.Errorf("%d series, want 5000 at most", n)
	}
	t.Logf("%d series", n)
	if n := sum(got["tcpshift_connections_total"], nil); n != float64(connections) {
		t.Errorf("%v connections, want %d", n, connections)
	}
}

// mostSockets has sockets in all states, of more namespaces and services than have series.
func mostSockets() *tcp.SocketCensus {
	c := &tcp.SocketCensus{At: time.Now()}
	for i := range uint32(2 * maxNames) {
		n := tcp.NetnsSockets{Netns: i + 1}
		for _, state := range tcp.States() {
			var comm tcp.Comm
			copy(comm[:], fmt.Sprint("s", i))
			n.Groups = append(n.Groups, tcp.OwnerSockets{SocketOwner: tcp.SocketOwner{Comm: comm, State: state}, Count: 1})
		}
		c.Namespaces = append(c.Namespaces, n)
	}
	return c
}

// mostUsage has all values, of more namespaces and services than have series.
func mostUsage() (all []detect.Usage) {
	for i := range uint32(2 * maxNames) {
		l := detect.ListenUsage{Owner: tcp.Owner{Source: tcp.PIDTask}, User: i}
		copy(l.Owner.Comm[:], fmt.Sprint("s", i))
		all = append(all, detect.Usage{
			Netns: i + 1, LimitsKnown: true, PortsUsed: 1, Ports: 2, TimeWaits: 1, MaxTimeWaits: 2, HasListeners: true, Listeners: []detect.ListenUsage{l},
		})
	}
	return all
}

func manyCounts(outputs int) (all []Counts) {
	for i := range outputs {
		all = append(all, Counts{Output: fmt.Sprintf("file-%d", i+1)})
	}
	return all
}

func heap() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

// A connection counts by service, role and end; what it sent and how long it took, by role.
func TestMetrics_Connections(t *testing.T) {
	m := newTest(t, 0)
	add := func(count int, service string, role tcp.Role, by tcp.ClosedBy, change func(*tcp.Transition)) {
		for range count {
			last, c := ended(service, role, by)
			if change != nil {
				change(last)
			}
			m.Add(last, c)
		}
	}
	failed := func(last *tcp.Transition) { last.Old = tcp.SynSent }
	add(3, "a", tcp.RoleClient, tcp.ClosedByLocal, nil)
	add(2, "a", tcp.RoleServer, tcp.ClosedByPeer, nil)
	add(5, "b", tcp.RoleClient, tcp.ClosedByRefused, failed)
	add(7, "b", tcp.RoleClient, "", func(last *tcp.Transition) { last.Old, last.Error = tcp.SynSent, 113 })
	add(1, "", tcp.RoleServer, "", func(last *tcp.Transition) { last.Owner = tcp.Owner{} })
	add(1, "", tcp.RoleServer, tcp.ClosedByPeer, func(last *tcp.Transition) { last.Cgroup, last.Owner.Comm = nil, tcp.Comm{'n', 0xff, 'x'} })
	add(1, "other", tcp.RoleServer, tcp.ClosedByPeer, nil)
	m.Observe(&tcp.Transition{Old: tcp.SynSent, New: tcp.Established, InState: 3 * time.Millisecond})
	got := gather(t, m)
	for _, want := range []struct {
		family string
		labels map[string]string
		n      float64
	}{
		{"tcpshift_connections_total", map[string]string{"service": "a", "role": "client", "closed_by": "local"}, 3},
		{"tcpshift_connections_total", map[string]string{"service": "a", "role": "server", "closed_by": "peer"}, 2},
		{"tcpshift_connections_total", map[string]string{"service": "b", "role": "client"}, 12},
		{"tcpshift_connections_total", map[string]string{"service": "", "role": "server"}, 1},
		{"tcpshift_connections_total", map[string]string{"service": `n\xffx`}, 1},
		{"tcpshift_connections_total", map[string]string{"service": "other"}, 1},
		{"tcpshift_failed_connects_total", map[string]string{"service": "b", "cause": "refused"}, 5},
		{"tcpshift_failed_connects_total", map[string]string{"service": "b", "cause": "unreachable"}, 7},
		{"tcpshift_failed_connects_total", nil, 12},
		{"tcpshift_sent_bytes_total", map[string]string{"role": "client"}, 150},
		{"tcpshift_received_bytes_total", map[string]string{"role": "server"}, 100},
		{"tcpshift_retransmitted_segments_total", map[string]string{"role": "server"}, 5},
		{"tcpshift_connection_duration_seconds", map[string]string{"role": "client"}, 3},
		{"tcpshift_rtt_seconds", map[string]string{"role": "server"}, 5},
		{"tcpshift_handshake_duration_seconds", nil, 1},
		{"tcpshift_transitions_total", map[string]string{"old_state": "SYN_SENT", "new_state": "ESTABLISHED"}, 1},
	} {
		if n := sum(got[want.family], want.labels); n != want.n {
			t.Errorf("%s%v is %v, want %v", want.family, want.labels, n, want.n)
		}
	}
	h := got["tcpshift_handshake_duration_seconds"].GetMetric()[0].GetHistogram()
	if len(h.GetPositiveSpan()) == 0 || len(h.GetBucket()) == 0 || math.Abs(h.GetSampleSum()-.003) > 1e-9 {
		t.Errorf("the histogram has not native and classic buckets: %v", h)
	}
}

// A service that is busier than one with series gets its place within a minute, and an idle one loses it after an
// hour. Between two rankings nothing changes.
func TestMetrics_BusiestServices(t *testing.T) {
	m := newTest(t, 0)
	now := m.began
	add := func(service string, count int) {
		for range count {
			m.Add(ended(service, tcp.RoleClient, tcp.ClosedByLocal))
		}
	}
	services := func() []string {
		found := make(map[string]bool)
		for _, each := range gather(t, m)["tcpshift_connections_total"].GetMetric() {
			found[each.GetLabel()[2].GetValue()] = true
		}
		return slices.Sorted(maps.Keys(found))
	}
	for i := range maxNames {
		add(fmt.Sprintf("first-%02d", i), 10+i)
	}
	add("busy", 21)
	add("idle", 20)
	if all := services(); len(all) != maxNames+1 || slices.Contains(all, "busy") {
		t.Fatalf("%d services have series at first: %q", len(all), all)
	}
	now = now.Add(rankEvery)
	m.Publish(now, nil)
	add("busy", 1)
	if all := services(); len(all) != maxNames+1 || !slices.Contains(all, "busy") || slices.Contains(all, "first-00") || slices.Contains(all, "idle") {
		t.Errorf("the services after a minute: %q", all)
	}
	for now.Before(m.began.Add(2 * idleAfter)) {
		now = now.Add(rankEvery)
		m.Publish(now, nil)
		add("first-50", 1)
	}
	if all := services(); !slices.Equal(all, []string{"first-50", "other"}) {
		t.Errorf("the services after two hours: %q", all)
	}
}

// A user who makes processes of many names, each busy, whose connections end in all ways, does not keep the
// services of others out of the series, nor push them out.
func TestMetrics_NamesOfOneUserBounded(t *testing.T) {
	var m *Metrics
	add := func(uid uint32, service string, count int) {
		for range count {
			last, c := ended(service, tcp.RoleClient, tcp.ClosedByLocal)
			last.UID = uid
			m.Add(last, c)
		}
	}
	const first = 1<<20 + 1<<15 // a range of subordinate uids is one user
	flood := func(by func(i int) uint32) {
		for i := range 3 * maxNames {
			add(by(i), fmt.Sprintf("flood-%d", i), 1000)
			for role := range roleCount {
				for _, way := range tcp.WaysToClose() {
					last, c := ended(fmt.Sprintf("flood-%d", i), tcp.Role(role), way)
					last.UID = by(i)
					m.Add(last, c)
				}
			}
		}
	}
	missing := func() (names []string) {
		found := make(map[string]bool)
		for _, each := range gather(t, m)["tcpshift_connections_total"].GetMetric() {
			found[each.GetLabel()[2].GetValue()] = true
		}
		for i := range minNames {
			if name := fmt.Sprintf("service-%d", i); !found[name] {
				names = append(names, name)
			}
		}
		return names
	}
	for _, by := range []func(i int) uint32{
		func(int) uint32 { return 65534 },
		func(i int) uint32 { return first + uint32(i) },
		func(i int) uint32 { return []uint32{65534, 1 << 20, 1<<20 + 1<<16}[i%3] }, // an own uid, and a range in two blocks
	} {
		m = newTest(t, 0)
		now := m.began
		flood(by)
		for range 5 {
			for range 2 { // the connections after a ranking are the first that count in series
				for i := range minNames {
					add(0, fmt.Sprintf("service-%d", i), 1)
				}
				now = now.Add(rankEvery)
				m.Publish(now, nil)
			}
			if names := missing(); names != nil {
				t.Fatalf("%q have no series beside a flood of another user", names)
			}
			flood(by)
		}
	}
}

// Alerts count by kind and severity, and one that has closed is not open.
func TestMetrics_Alerts(t *testing.T) {
	m := newTest(t, 0)
	alert := func(id string, phase detect.Phase, severity detect.Severity) {
		m.Alert(&detect.Alert{ID: id, Kind: "time_wait_storm", Phase: phase, Finding: detect.Finding{Severity: severity}})
	}
	alert("1", detect.Open, detect.Warning)
	alert("2", detect.Open, detect.Warning)
	alert("3", detect.Open, detect.Critical)
	alert("2", detect.Update, detect.Critical)
	alert("3", detect.Close, detect.Critical)
	got := gather(t, m)
	for severity, want := range map[string]float64{"warning": 1, "critical": 1} {
		if n := sum(got["tcpshift_alerts_open"], map[string]string{"kind": "time_wait_storm", "severity": severity}); n != want {
			t.Errorf("%v %s alerts are open, want %v", n, severity, want)
		}
	}
	if n := sum(got["tcpshift_alerts_total"], nil); n != 3 {
		t.Errorf("%v alerts, want 3", n)
	}
	if n := len(got["tcpshift_alerts_open"].GetMetric()); n != 2*len(detect.Kinds()) {
		t.Errorf("%d series of open alerts, want all kinds", n)
	}
}

// Every count of an output is shown.
func TestMetrics_EveryCount(t *testing.T) {
	m := newTest(t, 1)
	var c record.Counts
	hidden := map[string]string{
		"Entered": "fired less missed", "WrittenBytes": "of the queue", "Spooled": "of the queue", "SeededAfter": "no count",
	}
	want := make(map[float64]string)
	v := reflect.ValueOf(&c).Elem()
	for i := range v.NumField() {
		if name := v.Type().Field(i).Name; v.Field(i).Kind() == reflect.Uint64 && hidden[name] == "" {
			v.Field(i).SetUint(uint64(1000 + i))
			want[float64(1000+i)] = name
		}
	}
	m.Publish(m.began, []Counts{{"file-1", c}})
	for _, f := range gather(t, m) {
		for _, each := range f.GetMetric() {
			delete(want, each.GetCounter().GetValue()+each.GetGauge().GetValue())
		}
	}
	if len(want) > 0 {
		t.Errorf("not shown: %v", want)
	}
	got := gather(t, m)
	for family, n := range map[string]float64{"tcpshift_output_queue_bytes": 3, "tcpshift_output_written_bytes_total": 5, "tcpshift_output_spool_bytes": 7, "tcpshift_output_records_rejected_total": 11, "tcpshift_output_up": 1} {
		if have := sum(got[family], map[string]string{"output": "file-1"}); have != n {
			t.Errorf("%s is %v, want %v", family, have, n)
		}
	}
	m.Publish(m.began, nil)
	if up := sum(gather(t, m)["tcpshift_output_up"], nil); up != 0 {
		t.Errorf("an output that has failed is up: %v", up)
	}
}

// No linter of Prometheus complains, and docs/metrics.md has every metric as it is exposed.
func TestMetrics_Documented(t *testing.T) {
	m := newTest(t, 1)
	m.Publish(m.began, manyCounts(1))
	m.Add(ended("a", tcp.RoleClient, tcp.ClosedByLocal))
	last, c := ended("a", tcp.RoleClient, tcp.ClosedByRefused)
	last.Old = tcp.SynSent
	m.Add(last, c)
	m.Observe(last)
	m.Sockets(&tcp.SocketCensus{At: time.Now(), Namespaces: []tcp.NetnsSockets{{Netns: 1, Groups: []tcp.OwnerSockets{{SocketOwner: tcp.SocketOwner{State: tcp.Listen}, Count: 1}}}}},
		func(uint64) *tcp.Cgroup { return nil })
	m.Usage([]detect.Usage{{
		Netns: 1, LimitsKnown: true, PortsUsed: 1, Ports: 2, TimeWaits: 1, MaxTimeWaits: 2,
		HasListeners: true, Listeners: []detect.ListenUsage{{}},
	}})
	got := gather(t, m)
	problems, err := promlint.NewWithMetricFamilies(slices.Collect(maps.Values(got))).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("the linter: %v %v", problems, err)
	}
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range Families() {
		labels := "–"
		if len(f.Labels) > 0 {
			labels = "`" + strings.Join(f.Labels, "`, `") + "`"
		}
		unit, same := f.Unit, f.OpenTelemetry
		if unit == "" {
			unit = "1"
		}
		if same != "" {
			same = "`" + same + "`"
		} else {
			same = "–"
		}
		row := fmt.Sprintf("| %#q | %s | %s | %s | %s |\n", f.Name, f.Type, unit, labels, same)
		if !strings.Contains(string(text), row) {
			t.Errorf("docs/metrics.md has no row %s", row)
		}
		if got[f.Name] == nil {
			t.Errorf("%s is not exposed", f.Name)
		}
	}
	if rows := strings.Count(string(text), "\n| `tcpshift_") + strings.Count(string(text), "\n| `process_"); rows != len(Families()) {
		t.Errorf("docs/metrics.md has %d metrics, want %d", rows, len(Families()))
	}
}
