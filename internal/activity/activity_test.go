package activity

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

var began = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

func comm(name string) (c tcp.Comm) {
	copy(c[:], name)
	return c
}

// ended is the end of a client's connection to a port.
func ended(name string, port uint16, by tcp.ClosedBy) (*tcp.Transition, *tcp.Connection) {
	t := &tcp.Transition{
		Role: tcp.RoleClient, Old: tcp.FinWait2, New: tcp.TimeWait, CgroupID: 7,
		Owner: tcp.Owner{PID: 1, Comm: comm(name), Source: tcp.PIDTask},
		Peer:  tcp.Endpoint{Addr: netip.MustParseAddr("192.0.2.1"), Port: port},
	}
	return t, &tcp.Connection{ClosedBy: by, Sent: 10, Received: 100, Retransmits: 1}
}

func find(t *testing.T, s *Snapshot, name string) Service {
	t.Helper()
	for _, each := range s.Services {
		if each.Name == name {
			return each
		}
	}
	t.Fatalf("there is no service %q in %+v", name, s.Services)
	return Service{}
}

// Connections count for their service, listeners do not, and rates are those of the last seconds.
func TestActivity_ServicesAndRates(t *testing.T) {
	a := New(Config{}, began)
	for second := range 10 {
		for range 20 {
			a.Add(ended("curl", 80, tcp.ClosedByLocal))
		}
		for range second {
			a.Add(ended("wget", 81, tcp.ClosedByRefused))
		}
		last, c := ended("nginx", 0, tcp.ClosedByLocal)
		last.Role = tcp.RoleListener
		a.Add(last, c)
		now := began.Add(time.Duration(second+1) * time.Second)
		if !a.Due(now) {
			t.Fatal("a second after the last snapshot none is due")
		}
		a.Publish(now, 3)
		if a.Due(now.Add(Interval / 2)) {
			t.Fatal("a snapshot is due before its time")
		}
	}
	s := a.Snapshot()
	if s.Total.Connections != 245 || s.Total.Failures() != 45 || s.Total.Retransmits != 245 || s.Lost != 3 || len(s.Services) != 2 || len(s.Details) != 2 {
		t.Errorf("the snapshot is %+v", s)
	}
	curl, wget := find(t, s, "curl"), find(t, s, "wget")
	if curl.Connections != 200 || curl.Failures() != 0 || curl.Rate != 20 || curl.RetransmitRate != 20 || curl.FailedRate != 0 {
		t.Errorf("curl: %+v", curl)
	}
	if wget.Connections != 45 || wget.Failures() != 45 || wget.Rate != 7 || wget.FailedRate != 7 { // 5 to 9 in the last five seconds
		t.Errorf("wget: %+v", wget)
	}
	if s.Total.Rate != 27 {
		t.Errorf("the rate of all is %v", s.Total.Rate)
	}
}

// The first snapshot has rates since the beginning.
func TestActivity_FirstRate(t *testing.T) {
	a := New(Config{}, began)
	for range 30 {
		a.Add(ended("curl", 80, tcp.ClosedByLocal))
	}
	a.Publish(began.Add(2*time.Second), 0)
	if got := a.Snapshot().Total.Rate; got != 15 {
		t.Errorf("30 connections in 2 s are %v/s", got)
	}
}

// Beyond maxServices a service takes the place of another one, whose connections count as those of others.
func TestActivity_ManyServices(t *testing.T) {
	a := New(Config{}, began)
	const count = 3 * maxServices
	for i := range count {
		last, c := ended(fmt.Sprint("worker-", i), 80, tcp.ClosedByTimeout)
		a.Add(last, c)
		a.Add(last, c)
	}
	a.Publish(began.Add(time.Second), 0)
	s := a.Snapshot()
	var sum, others uint64
	for _, each := range s.Services {
		sum += each.Connections
		if each.Other {
			others = each.Connections
		}
	}
	if len(s.Services) != maxServices+1 || sum != 2*count || others != 2*(count-maxServices) || s.Total.Connections != 2*count {
		t.Errorf("%d services with %d connections, %d of others", len(s.Services), sum, others)
	}
}

func group(cgroup uint64, name string, state tcp.State, count uint64) tcp.OwnerSockets {
	return tcp.OwnerSockets{SocketOwner: tcp.SocketOwner{CgroupID: cgroup, Comm: comm(name), State: state}, Count: count}
}

// A count of the kernel shows sockets by state, those of a service without a connection that has ended, and pending
// requests as SYN_RECV.
func TestActivity_CountedSockets(t *testing.T) {
	a := New(Config{}, began)
	a.Add(ended("curl", 80, tcp.ClosedByLocal))
	cgroup := &tcp.Cgroup{Unit: "leaky.service"}
	a.Sockets(&tcp.SocketCensus{At: began, Namespaces: []tcp.NetnsSockets{
		{Netns: 1, Groups: []tcp.OwnerSockets{
			group(7, "curl", tcp.Established, 3),
			group(9, "java", tcp.CloseWait, 40),
			group(9, "java", tcp.Listen, 1),
			group(0, "", tcp.TimeWait, 500), group(0, "", tcp.NewSynRecv, 2),
			{SocketOwner: tcp.SocketOwner{State: tcp.Established}, Other: true, Count: 70},
		}},
		{Netns: 2, Groups: []tcp.OwnerSockets{group(9, "java", tcp.CloseWait, 2)}},
	}}, func(id uint64) *tcp.Cgroup {
		if id == 9 {
			return cgroup
		}
		return nil
	})
	a.Publish(began.Add(time.Second), 0)
	s := a.Snapshot()
	want := [maxStates]uint64{tcp.Established: 73, tcp.CloseWait: 42, tcp.Listen: 1, tcp.TimeWait: 500, tcp.SynRecv: 2}
	if !s.SocketsKnown || !s.SocketsAt.Equal(began) || s.Sockets != want {
		t.Errorf("the sockets are %v", s.Sockets)
	}
	if curl := find(t, s, "curl"); curl.Open != 3 || curl.CloseWait != 0 {
		t.Errorf("curl: %+v", curl)
	}
	if others := s.Services[slices.IndexFunc(s.Services, func(o Service) bool { return o.Other })]; others.Open != 70 {
		t.Errorf("others: %+v", others)
	}
	if leaky := find(t, s, "leaky"); leaky.Open != 42 || leaky.CloseWait != 42 || leaky.Connections != 0 {
		t.Errorf("leaky: %+v", leaky)
	}
}

// Transitions count sockets, too: what began before the first one does not count, and a TIME_WAIT lasts for a minute.
func TestActivity_SocketsFromEvents(t *testing.T) {
	a := New(Config{FromEvents: true}, began)
	at := func(d time.Duration, old, next tcp.State, in time.Duration) {
		a.Observe(&tcp.Transition{Monotonic: time.Hour + d, Old: old, New: next, InState: in, Owner: tcp.Owner{PID: 1, Comm: comm("curl"), Source: tcp.PIDTask}})
	}
	at(0, tcp.Established, tcp.CloseWait, time.Minute) // it is older than the recording
	at(time.Second, tcp.Close, tcp.SynSent, 0)
	at(2*time.Second, tcp.SynSent, tcp.Established, time.Second)
	at(3*time.Second, tcp.Listen, tcp.SynRecv, time.Millisecond)
	at(4*time.Second, tcp.Established, tcp.FinWait1, 2*time.Second)
	at(5*time.Second, tcp.FinWait1, tcp.TimeWait, time.Second)
	for _, c := range []struct {
		after     time.Duration
		timeWaits uint64
	}{{0, 1}, {59 * time.Second, 1}, {61 * time.Second, 0}} {
		at(5*time.Second+c.after, tcp.Established, tcp.Established, 0)
		a.Publish(began.Add(c.after), 0)
		s := a.Snapshot()
		want := [maxStates]uint64{tcp.CloseWait: 1, tcp.SynRecv: 1, tcp.TimeWait: c.timeWaits}
		if s.Sockets != want || !s.SocketsAt.IsZero() {
			t.Errorf("after %v the sockets are %v", c.after, s.Sockets)
		}
		if curl := find(t, s, "curl"); curl.Open != 2 || curl.CloseWait != 1 {
			t.Errorf("curl: %+v", curl)
		}
	}
}

// An alert is there from its opening to its close, a critical one first.
func TestActivity_Alerts(t *testing.T) {
	a := New(Config{}, began)
	alert := func(id string, phase detect.Phase, severity detect.Severity) {
		a.Alert(&detect.Alert{ID: id, Phase: phase, Finding: detect.Finding{Severity: severity}})
	}
	alert("1", detect.Open, detect.Warning)
	alert("2", detect.Open, detect.Warning)
	alert("2", detect.Update, detect.Critical)
	alert("3", detect.Open, detect.Critical)
	alert("3", detect.Close, detect.Critical)
	a.Publish(began.Add(time.Second), 0)
	s := a.Snapshot()
	if len(s.Alerts) != 2 || s.Alerts[0].ID != "2" || s.Alerts[1].ID != "1" || s.AlertsOpened != 3 {
		t.Errorf("the alerts are %+v, %d opened", s.Alerts, s.AlertsOpened)
	}
}

// The sockets of services for which there is no room are those of the others: the sum stays right.
func TestActivity_SocketsOfManyServices(t *testing.T) {
	const count = maxSocketServices + 100
	var groups []tcp.OwnerSockets
	events := New(Config{FromEvents: true}, began)
	for i := range uint64(count) {
		groups = append(groups, group(i+1, "many", tcp.CloseWait, 2))
		last, _ := ended("many", 80, "")
		last.Old, last.New, last.CgroupID = tcp.Established, tcp.CloseWait, i+1
		events.Observe(last)
	}
	counted := New(Config{}, began)
	counted.Sockets(&tcp.SocketCensus{At: began, Namespaces: []tcp.NetnsSockets{{Netns: 1, Groups: groups}}}, func(uint64) *tcp.Cgroup { return nil })
	for a, want := range map[*Activity]uint64{events: count, counted: 2 * count} {
		a.Publish(began.Add(time.Second), 0)
		var open, closeWait uint64
		for _, s := range a.Snapshot().Services {
			open += s.Open
			closeWait += s.CloseWait
		}
		if open != want || closeWait != want {
			t.Errorf("%d open and %d in CLOSE_WAIT, want %d", open, closeWait, want)
		}
	}
}
