package detect

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// caused is the transition of a process in a cgroup, at a time.
func caused(pid uint32, comm string, cgroupID uint64, at time.Duration) *tcp.Transition {
	return &tcp.Transition{Owner: process(pid, comm), CgroupID: cgroupID, Monotonic: at}
}

// The number of processes is a lower bound, however often each of them comes back; it is
// exact for as many as the list has room for.
func TestProcesses_NeverMoreThanTruth(t *testing.T) {
	for _, tt := range []struct{ pids, atLeast int }{{1, 1}, {5, 5}, {12, 12}, {32, 32}, {40, 32}, {300, 32}, {5000, 32}} {
		t.Run(fmt.Sprintf("%d processes", tt.pids), func(t *testing.T) {
			var s topServices
			for n := range 20_000 {
				s.count(caused(uint32(1000+n%tt.pids), "worker", 1, time.Hour))
				if n%7000 == 6999 {
					s.decay()
				}
				if got := s.culprit(0).Processes; n%100 == 0 && got > tt.pids {
					t.Fatalf("after %d connections: %d processes", n+1, got)
				}
			}
			if got := s.culprit(0).Processes; got < tt.atLeast {
				t.Errorf("%d processes, want at least %d", got, tt.atLeast)
			}
		})
	}
}

// A process that has stopped to take part does not count, nor does one that is gone.
func TestProcesses_LivingThatTakePart(t *testing.T) {
	tr := newTracker(Config{Gone: func(p Process) bool { return p.PID == 3 && p.At == time.Hour }}.withDefaults())
	var s topServices
	for n := range 3000 {
		s.count(caused(uint32(1+n%3), "worker", 1, time.Hour))
	}
	living := func() Culprit {
		c := tr.culpritOf(&s)
		c.nameLiving(tr.Gone)
		return c
	}
	tr.now = time.Hour
	if c := living(); c.Processes != 2 {
		t.Errorf("two of three processes live: %+v", c)
	}
	for n := range 100 {
		s.count(caused(2, "worker", 1, time.Hour+time.Duration(n)*time.Second))
	}
	tr.now = time.Hour + 100*time.Second
	if c := living(); c.Processes != 1 || c.PID != 2 {
		t.Errorf("only process 2 has connected within a minute: %+v", c)
	}
}

// The two largest services are named, with the busiest process of the first that lives.
func TestCulprit_TwoLargestServices(t *testing.T) {
	var s topServices
	unit := &tcp.Cgroup{Path: "/system.slice/php8.2-fpm.service", Unit: "php8.2-fpm.service"}
	for n := range 1000 {
		switch at := n % 10; {
		case at < 4:
			s.count(&tcp.Transition{Owner: process(10, "php-fpm"), CgroupID: 1, Cgroup: unit, Monotonic: time.Hour})
		case at < 7:
			s.count(&tcp.Transition{Owner: process(uint32(11+at-4), "php-fpm"), CgroupID: 1, Cgroup: unit, Monotonic: time.Hour})
		case at < 9:
			s.count(caused(99, "python3", 2, time.Hour))
		default:
			s.count(&tcp.Transition{}) // the owner is not known
		}
	}
	c := s.culprit(0)
	want := Culprit{Service: "php8.2-fpm", Share: 0.7, Processes: 4, PID: 10, PIDShare: 0.4, NextService: "python3", NextShare: 0.2}
	if got := (Culprit{
		Service: c.Service, Share: c.Share, Processes: c.Processes, PID: c.PID, PIDShare: c.PIDShare,
		NextService: c.NextService, NextShare: c.NextShare,
	}); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	// The busiest ends: the alert names another one, or none.
	c.nameLiving(func(p Process) bool { return p.PID == 10 })
	if c.PID < 11 || c.PID > 13 || c.Processes != 3 || math.Abs(c.PIDShare-0.1) > 0.001 || c.Share != 0.7 {
		t.Errorf("after process 10 has ended: %+v", c)
	}
	c.nameLiving(func(Process) bool { return true })
	if c.PID != 0 || c.PIDShare != 0 || c.Processes != 0 || c.Service != "php8.2-fpm" {
		t.Errorf("after all have ended: %+v", c)
	}
}

// Processes of one name in two cgroups are two services; so are two programs in one cgroup,
// and a process that calls execve() counts anew.
func TestCulprit_CgroupAndName(t *testing.T) {
	var s topServices
	for n := range 100 {
		s.count(caused(1, "nginx", 1, time.Hour))
		if n%2 == 0 {
			s.count(caused(2, "nginx", 2, time.Hour))
			s.count(caused(3, "bash", 3, time.Hour))
		}
		if n%4 == 0 {
			s.count(caused(3, "curl", 3, time.Hour)) // the same process
		}
	}
	c := s.culprit(0)
	if c.Service != "nginx" || c.Processes != 1 || c.PID != 1 || math.Abs(c.Share-100./225) > 0.001 || math.Abs(c.NextShare-50./225) > 0.001 {
		t.Errorf("%+v", c)
	}
	total := uint64(0)
	for i := range s.services {
		total += s.services[i].count
	}
	if len(s.services) != 4 || total != s.total {
		t.Errorf("%d services with %d of %d", len(s.services), total, s.total)
	}
}

// However many processes and services there are, the lists are bounded, and what they say of
// the largest is true.
func TestCulprit_BoundedAndTrue(t *testing.T) {
	var s topServices
	for n := range 100_000 {
		if n%2 == 0 {
			s.count(caused(7, "storm", 1, time.Hour))
		} else {
			s.count(caused(uint32(1000+n), fmt.Sprint(n%777), uint64(n%99), time.Hour))
		}
		if len(s.pids) > maxProcesses || len(s.processes) != len(s.pids) || len(s.services) > maxServices {
			t.Fatalf("%d pids, %d processes, %d services", len(s.pids), len(s.processes), len(s.services))
		}
	}
	if c := s.culprit(0); c.Service != "storm" || c.PID != 7 || math.Abs(c.Share-0.5) > 0.01 || c.NextShare > 0.03 {
		t.Errorf("%+v", c)
	}
}

// A process whose sockets are gone does not count any more among those that a process still
// has.
func TestAttachedSockets_ProcessesOfPresentSockets(t *testing.T) {
	l := newAttachedSockets()
	key := waitingKey{netns: testNetns, role: tcp.RoleServer}
	for cookie := range uint64(100) {
		pid, name := uint32(1), "first"
		if cookie >= 60 {
			pid, name = 2, "second"
		}
		l.add(0, key, &tcp.Transition{Cookie: cookie + 1, Owner: process(pid, name)})
	}
	for cookie := range uint64(50) {
		l.remove(cookie + 1)
	}
	c := l.services(key).culprit(0)
	if c.Service != "second" || c.PID != 2 || c.Share != 0.8 || c.NextService != "first" || math.Abs(c.NextShare-0.2) > 1e-9 {
		t.Errorf("10 sockets of the first and 40 of the second process are left: %+v", c)
	}
	for cookie := range uint64(10) {
		l.remove(cookie + 51)
	}
	if c := l.services(key).culprit(0); c.Share != 1 || c.NextService != "" || c.Processes != 1 {
		t.Errorf("only those of the second process are left: %+v", c)
	}
}

// "Most of them" is written only of more than half.
func TestConnectFailures_MostOnlyWhereTrue(t *testing.T) {
	for _, refusedOf10 := range []int{4, 6} {
		h := newHost(t, 500, Config{})
		errors := []unix.Errno{unix.ETIMEDOUT, unix.EHOSTUNREACH}
		for n := range 300 {
			err := errors[n%2]
			if n%10 < refusedOf10 {
				err = unix.ECONNREFUSED
			}
			h.event(0, to(81), curl, tcp.Close, tcp.SynSent)
			h.event(0, to(81), curl, tcp.SynSent, tcp.Close, fails(err))
			h.pass(100 * time.Millisecond)
		}
		a := h.theOnly("connect_failures")
		if got := strings.Contains(a.Cause, "most of them"); got != (refusedOf10 > 5) || !strings.Contains(a.Cause, "refused") {
			t.Errorf("%d of 10 are refused: %s", refusedOf10, a.Cause)
		}
	}
}

// An alert names a service as having bound most ports only if it has bound more than half.
func TestPortExhaustion_MostOnlyWhereTrue(t *testing.T) {
	for _, services := range []int{1, 3} {
		tr := newTracker(Config{}.withDefaults())
		ns := &namespace{bindCount: 30}
		for n := range 30 {
			ns.bindServices.count(caused(uint32(1+n%services), fmt.Sprint("binder", n%services), 1, 0))
		}
		var f Finding
		tr.addBinds(ns, &f)
		if got := strings.Contains(f.Cause, "most of them by binder0"); got != (services == 1) {
			t.Errorf("%d services: %s", services, f.Cause)
		}
	}
}

// A pid that is gone is not named: not when an alert opens, nor later, nor when it closes.
func TestStorm_BusiestProcessEnds(t *testing.T) {
	gone := make(map[uint32]bool)
	h := newHost(t, 500, Config{Gone: func(p Process) bool { return gone[p.PID] }})
	by := []tcp.Owner{process(1, "job"), process(1, "job"), process(1, "job"), process(2, "job"), process(3, "other")}
	h.run(load{key: to(80), by: by, rate: constant(15)}, 20*time.Second, true)
	if c := h.theOnly("time_wait_storm").Culprit; c.PID != 1 || c.Processes != 2 || math.Abs(c.Share-0.8) > 0.05 || math.Abs(c.PIDShare-0.6) > 0.05 || c.NextService != "other" {
		t.Errorf("the storm is of %+v", c)
	}
	gone[1] = true
	h.run(load{key: to(80), by: by[3:4], rate: constant(15)}, 20*time.Second, true)
	gone[2], gone[3] = true, true
	updates := only(h.finish(), "time_wait_storm", Update)
	if len(updates) == 0 {
		t.Error("there was no update")
	}
	for _, a := range updates {
		if a.Culprit.PID != 2 || a.Culprit.Processes != 1 {
			t.Errorf("the update is about %+v", a.Culprit)
		}
	}
	for _, a := range only(h.alerts, "time_wait_storm", Close) {
		if a.Culprit.PID != 0 || a.Culprit.Processes != 0 || a.Culprit.Service != "job" {
			t.Errorf("the close is about %+v", a.Culprit)
		}
	}
}

// Sockets of processes for which the list had no room are taken back when they end: the alert
// names the service that still has sockets, however many short workers of another one, or of
// many others, had some before.
func TestCulprit_AfterShortWorkers(t *testing.T) {
	for _, services := range []int{1, 5, 40} {
		t.Run(fmt.Sprintf("%d services", services), func(t *testing.T) {
			h := newHost(t, 500, Config{CloseWaitCount: 20, CloseWaitAge: time.Second})
			l := newAttachedSockets()
			key := waitingKey{netns: testNetns, role: tcp.RoleServer}
			cookie, pid := uint64(0), uint32(1000)
			workers := func(count, sockets int, name string) (cookies []uint64) {
				for n := range count {
					pid++
					by := process(pid, name)
					if services > 1 {
						by = process(pid, fmt.Sprint(name, n%services))
					}
					for range sockets {
						cookie++
						cookies = append(cookies, cookie)
						h.event(cookie, to(80), by, tcp.Established, tcp.CloseWait, served)
						l.add(0, key, &tcp.Transition{Cookie: cookie, Owner: by})
					}
				}
				return cookies
			}
			h.event(1<<40, to(80), process(1, "keeper"), tcp.Established, tcp.CloseWait, served)
			l.add(0, key, &tcp.Transition{Cookie: 1 << 40, Owner: process(1, "keeper")})
			for range 4 {
				ended := workers(100, 3, "old")
				h.pass(400 * time.Millisecond)
				for _, c := range ended {
					h.event(c, to(80), tcp.Owner{}, tcp.CloseWait, tcp.LastAck, served)
					l.remove(c)
				}
			}
			services = 1
			for range 30 {
				workers(1, 1, "new")
				h.pass(time.Second)
			}
			for what, c := range map[string]Culprit{
				"close_wait_leak": h.theOnly("close_wait_leak").Culprit, "fin_wait2_pileup": l.services(key).culprit(0),
			} {
				if c.Service != "new" || c.Share < 0.9 || c.NextService != "" && c.NextService != "keeper" || c.Processes > 30 {
					t.Errorf("%s: the new service has all sockets but one: %+v", what, c)
				}
			}
		})
	}
}

// A user whose short processes take the name of another user's service, in the same cgroup, does not have
// that service's process named for what they cause, nor its user's quota used.
func TestCulprit_NameOfAnotherUsersProcess(t *testing.T) {
	const service, attacker = 33, 65534
	var s topServices
	for n := range 3000 {
		one := caused(uint32(1000+n), "nginx", 1, time.Hour)
		one.UID = attacker
		if n%20 == 0 {
			one = caused(7, "nginx", 1, time.Hour)
			one.UID = service
		}
		s.count(one)
	}
	c := s.culprit(0)
	c.nameLiving(func(p Process) bool { return p.PID != 7 })
	if c.Processes != 1 || c.PID != 0 || c.user != attacker {
		t.Errorf("%d processes live, pid %d is named, on the account of user %d; want the one process, not named, and user %d", c.Processes, c.PID, c.user, attacker)
	}
	for n := range 9000 { // now most is of the service
		one := caused(7, "nginx", 1, time.Hour)
		one.UID = service
		if n%9 == 0 {
			one = caused(uint32(9000+n), "nginx", 1, time.Hour)
			one.UID = attacker
		}
		s.count(one)
	}
	c = s.culprit(0)
	c.nameLiving(func(p Process) bool { return p.PID != 7 })
	if c.PID != 7 || c.user != service {
		t.Errorf("pid %d is named, on the account of user %d; want 7 and %d", c.PID, c.user, service)
	}
}
