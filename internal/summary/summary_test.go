package summary

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

var noon = time.Date(2026, time.March, 4, 12, 0, 0, 0, time.UTC)

// ended is a client's connection that ended at a time, after a duration.
func ended(at time.Time, peer netip.Addr, lasted time.Duration, by tcp.ClosedBy) (*tcp.Transition, *tcp.Connection) {
	t := &tcp.Transition{
		Time: at, Monotonic: time.Hour, Role: tcp.RoleClient, Old: tcp.FinWait2, New: tcp.TimeWait, CgroupID: 7, UID: 33,
		Local: tcp.Endpoint{Addr: netip.MustParseAddr("192.0.2.1"), Port: 40000}, Peer: tcp.Endpoint{Addr: peer, Port: 443},
		Owner: tcp.Owner{PID: 1, Source: tcp.PIDTask, Comm: tcp.Comm{'c', 'u', 'r', 'l'}},
	}
	if by != tcp.ClosedByLocal {
		t.New = tcp.Close
	}
	return t, &tcp.Connection{OpenedAt: time.Hour - lasted, Sent: 100, Received: 20, Retransmits: 1, RTT: lasted / 10, ClosedBy: by}
}

func peerAt(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
}

// A connection counts in the window in which it ended, and a window is written once it is over. Windows
// end at multiples of their length. One that is late, or ended after the clock was set, counts as well.
func TestSummary_Windows(t *testing.T) {
	s := New(10*time.Second, noon.Add(3*time.Second))
	add := func(after time.Duration) { s.Add(ended(noon.Add(after), peerAt(1), time.Second, tcp.ClosedByLocal)) }
	want := func(at time.Duration, windows ...string) {
		t.Helper()
		var got []string
		for _, r := range s.Rows(noon.Add(at)) {
			got = append(got, fmt.Sprint(r.Start.Sub(noon), " to ", r.End.Sub(noon), ": ", r.Connections))
		}
		if !slices.Equal(got, windows) {
			t.Errorf("at %v: %q, want %q", at, got, windows)
		}
	}
	add(4 * time.Second)
	add(10*time.Second - 1)
	add(10 * time.Second)
	want(10*time.Second + lateness - 1)
	want(10*time.Second+lateness, "3s to 10s: 2")
	add(9 * time.Second) // late
	want(20*time.Second+lateness, "10s to 20s: 2")
	want(55 * time.Second)
	add(56 * time.Second)
	want(60*time.Second+lateness, "50s to 1m0s: 1")
	add(time.Hour) // the clock is set forward
	add(61 * time.Second)
	want(time.Hour+time.Second, "1m0s to 1m10s: 1")
	want(time.Minute, "1h0m0s to 1h0m10s: 1") // and back
	add(time.Minute + time.Second)
	if rows := s.Finish(noon.Add(time.Minute + 2*time.Second)); len(rows) != 1 || rows[0].End != noon.Add(62*time.Second) || rows[0].Start != noon.Add(time.Minute) {
		t.Errorf("the last rows are %+v", rows)
	}
}

// Owners, roles and ports each have a row of their own. The port is the peer's of clients, and the local one
// of servers.
func TestSummary_Rows(t *testing.T) {
	s := New(time.Minute, noon)
	add := func(change func(l *tcp.Transition, c *tcp.Connection)) {
		l, c := ended(noon, peerAt(1), time.Second, tcp.ClosedByTimeout)
		change(l, c)
		s.Add(l, c)
	}
	add(func(*tcp.Transition, *tcp.Connection) {})
	add(func(l *tcp.Transition, _ *tcp.Connection) { l.Local.Port++ })
	add(func(l *tcp.Transition, _ *tcp.Connection) { l.Owner.PID++ })
	add(func(l *tcp.Transition, _ *tcp.Connection) { l.Role = tcp.RoleServer })
	add(func(l *tcp.Transition, _ *tcp.Connection) { l.Role, l.Peer.Port = tcp.RoleServer, 1 })
	add(func(l *tcp.Transition, _ *tcp.Connection) {
		l.Owner = tcp.Owner{}
		l.Cgroup = &tcp.Cgroup{Unit: "a.service"}
	})
	for id := range uint64(3) { // records name no cgroup without an owner: one row
		add(func(l *tcp.Transition, _ *tcp.Connection) {
			l.Owner, l.CgroupID = tcp.Owner{}, 8+id
			l.Cgroup = &tcp.Cgroup{Unit: "a.service"}
		})
	}
	add(func(l *tcp.Transition, _ *tcp.Connection) {
		l.CgroupID = 8
		l.Cgroup = &tcp.Cgroup{Unit: "web.service"}
	})
	add(func(l *tcp.Transition, _ *tcp.Connection) { l.Peer.Port = 80 })
	add(func(_ *tcp.Transition, c *tcp.Connection) { c.OpenedAt, c.RTT, c.ClosedBy = 0, 0, tcp.ClosedByRefused })
	var got []string
	for _, r := range s.Finish(noon.Add(time.Second)) {
		got = append(got, fmt.Sprint(r.Role, " ", r.Service, " ", r.Peer, ":", r.Port, " ", r.Connections, " ", r.Failed, " ", r.Duration.Known))
	}
	want := []string{
		"client  10.0.0.1:443 4 [0 0 4 0 0 0 0] true",
		"client curl 10.0.0.1:443 4 [0 0 3 0 1 0 0] true",
		"client curl 10.0.0.1:80 1 [0 0 1 0 0 0 0] true",
		"client web 10.0.0.1:443 1 [0 0 1 0 0 0 0] true",
		"server curl 10.0.0.1:40000 2 [0 0 2 0 0 0 0] true",
	}
	if !slices.Equal(got, want) {
		t.Errorf("rows\n%q\nwant\n%q", got, want)
	}
}

// 100,000 peers take bounded memory. The busy ones have rows of their own, and with the row of the others all
// sums are exact.
func TestSummary_Bounded(t *testing.T) {
	const peers, busy, each = 100_000, 50, 200
	order := rand.New(rand.NewPCG(1, 2))
	all := make([]int, 0, peers+busy*each)
	for n := range peers {
		all = append(all, n)
	}
	for n := range busy * each {
		all = append(all, peers+n%busy)
	}
	order.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	before := heap()
	s := New(time.Minute, noon)
	var want Totals
	for i, n := range all {
		by := Failures[i%len(Failures)]
		if i%3 == 0 {
			by = tcp.ClosedByLocal
		}
		last, c := ended(noon.Add(time.Second), peerAt(n), time.Duration(1+i)*time.Microsecond, by)
		want.Add(last, c)
		s.Add(last, c)
	}
	const limit = 24 << 20
	if used := int64(heap()) - int64(before); used < 1<<10 || used > limit {
		t.Errorf("%d peers take %d bytes, at most %d are allowed", peers, used, limit)
	}
	runtime.KeepAlive(all)
	rows := s.Finish(noon.Add(time.Minute))
	var got Totals
	own, others := 0, 0
	for _, r := range rows {
		got.Merge(&r.Totals)
		if r.Other {
			others++
			if middle := float64(r.Duration.P50) / float64(len(all)*500); middle < 0.97 || middle > 1.03 {
				t.Errorf("the median of the others is %v", r.Duration.P50)
			}
		}
		if !r.Other && r.Connections > each/2 {
			own++
		}
	}
	if got != want {
		t.Errorf("the sums are %+v, want %+v", got, want)
	}
	if len(rows) != maxRows+1 || others != 1 || own != busy {
		t.Errorf("%d rows, %d of others, and %d of busy peers", len(rows), others, own)
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// A quantile differs by 1 % from the true one at most, with few values and with many, and after a merge.
func TestDistribution_Accuracy(t *testing.T) {
	for _, count := range []int{1, maxExact, maxExact + 1, 10_000} {
		var one, two, merged distribution
		for i := range count {
			d := &one
			if i%2 == 0 {
				d = &two
			}
			d.add(time.Duration(i+1) * time.Microsecond)
		}
		merged.merge(&one)
		merged.merge(&two)
		got := merged.quantiles()
		for _, q := range []struct {
			of  float64
			got time.Duration
		}{{0.5, got.P50}, {0.99, got.P99}} {
			exact := float64(1+int(q.of*float64(count-1))) * float64(time.Microsecond)
			if off := float64(q.got)/exact - 1; !got.Known || off < -accuracy*1.01 || off > accuracy*1.01 {
				t.Errorf("%d values: quantile %v is %v, want %v", count, q.of, q.got, time.Duration(exact))
			}
		}
	}
	if (&distribution{}).quantiles().Known {
		t.Error("the quantiles of nothing are known")
	}
}

// A service that is restarted has a new cgroup with the same path: its connections are one row, of the newest cgroup. A
// service whose cgroup has another path, or whose path is not known, is another one, and so is another main thread.
func TestTable_RestartedService(t *testing.T) {
	table := NewTable()
	add := func(id uint64, path, comm string, count int) {
		for range count {
			last, c := ended(noon, peerAt(1), time.Second, tcp.ClosedByRefused)
			last.CgroupID, last.Owner.Comm = id, tcp.Comm([]byte(comm+strings.Repeat("\x00", 16-len(comm))))
			if path != "" {
				last.Cgroup = &tcp.Cgroup{Path: path, Pod: fmt.Sprint("pod of ", id)}
			}
			table.Add(last, c)
		}
	}
	add(7, "/web.service", "web", 3)
	add(8, "/web.service", "web", 4)
	add(9, "/web.service", "helper", 1)
	add(10, "/other.service", "web", 2)
	add(11, "", "web", 5)
	add(12, "", "web", 6)
	var got []string
	for _, r := range table.Rows() {
		path, pod := "", ""
		if r.Cgroup != nil {
			path, pod = r.Cgroup.Path, r.Cgroup.Pod
		}
		if r.Sent != 100*r.Connections || r.Failed[4] != r.Connections {
			t.Errorf("%+v: the sums do not fit", r.Totals)
		}
		got = append(got, fmt.Sprintf("%s %s %s %d: %d", path, r.Comm.Bytes(), pod, r.CgroupID, r.Connections))
	}
	want := []string{
		"/web.service web pod of 8 8: 7", " web  12: 6", " web  11: 5", "/other.service web pod of 10 10: 2", "/web.service helper pod of 9 9: 1",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
