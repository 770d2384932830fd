package detection_test

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/limits"
	"github.com/tcpshift/tcpshift/internal/tcp"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// portsInUse is how many ports the kernel's table has for a destination, as ss counts them.
func portsInUse(t *testing.T, n *tcplab.Netns, peer string, port int) int {
	t.Helper()
	ss, err := exec.LookPath("ss")
	if err != nil {
		tcplab.SkipUnlessCI(t, "needs ss: make install-deps")
	}
	var out []byte
	n.Do(func() {
		out, err = exec.Command(ss, "-Htan", "dst", peer, "and", "dport", "=", ":"+strconv.Itoa(port)).CombinedOutput()
	})
	if err != nil {
		t.Fatalf("ss: %v: %s", err, out)
	}
	return strings.Count(string(out), "\n")
}

// awaitStorm waits for the first alert of a storm in the client's namespace.
func (s *hostPair) awaitStorm(tr *tracer, phase string) alert {
	s.t.Helper()
	for deadline := time.Now().Add(waitLimit); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if found := pick(tr.of(s.client.Inode()), "time_wait_storm", phase); len(found) > 0 {
			return found[0]
		}
	}
	s.t.Fatalf("no alert of a storm: %+v", tr.of(s.client.Inode()))
	return alert{}
}

// A storm opens with the number that the kernel's table has: what ss counts at that moment,
// less what has moved until ss has counted.
func TestVerification_NumberOfTheKernel(t *testing.T) {
	tcplab.RequireRoot(t)
	t.Parallel()
	tr := startTracer(t, "alerts")
	s := newHostPair(t, tr, 1000)
	s.serve(80, afterPeer)
	ended := s.run(workload{To: s.port(80), UntilNoPort: true, Phases: []phase{{PerSecond: 50, For: waitLimit}}})
	a := s.awaitStorm(tr, "open")
	inUse := portsInUse(t, s.client, s.to.String(), 80)
	moved := 50*time.Since(a.Time).Seconds() + 5
	t.Logf("the alert has %d ports, ss %d, %v later", a.Occupancy, inUse, time.Since(a.Time))
	if a.OccupancySource != "kernel" || a.Confidence != "full" || float64(inUse-a.Occupancy) > moved || inUse < a.Occupancy {
		t.Errorf("source %s, confidence %s: %d ports, ss counts %d after %.0f have moved", a.OccupancySource, a.Confidence, a.Occupancy, inUse, moved)
	}
	<-ended
	s.checkFailureAlert(tr, "time_wait_storm", time.Now())
}

// TIME_WAITs that ss -K has killed without a transition make no storm.
func TestVerification_PhantomTimewaits(t *testing.T) {
	tcplab.RequireRoot(t)
	t.Parallel()
	tr := startTracer(t, "alerts")
	s := newHostPair(t, tr, 500)
	s.sysctl("net.ipv4.tcp_tw_reuse", 0)
	s.serve(80, afterPeer)
	stop := make(chan struct{})
	killed := make(chan error, 1)
	go func() { // 25 a second, of which half a second's remain
		for {
			select {
			case <-stop:
				close(killed)
				return
			case <-time.After(500 * time.Millisecond):
			}
			var out []byte
			var err error
			s.client.Do(func() { out, err = exec.Command("ss", "-K", "-Htan", "state", "time-wait").CombinedOutput() })
			if err != nil {
				killed <- fmt.Errorf("%w: %s", err, out)
				return
			}
		}
	}()
	a := <-s.run(workload{To: s.port(80), Phases: []phase{{PerSecond: 25, For: 40 * time.Second}}})
	left := portsInUse(t, s.client, s.to.String(), 80)
	close(stop)
	if err := <-killed; err != nil || left > 100 {
		t.Skipf("ss -K kills no TIME_WAIT here: %d are left, %v", left, err)
	}
	if found := tr.of(s.client.Inode()); len(found) > 0 || a.Made < 900 {
		t.Errorf("%d connections, of which %d have a port: %+v", a.Made, left, found)
	}
}

// Connections whose ends the tracer loses, more than fit, raise no alert once the kernel can
// be asked, and none at all if it has time to ask.
func TestVerification_PhantomConnections(t *testing.T) {
	tcplab.RequireRoot(t)
	t.Parallel()
	n := tcplab.NewNetns(t)
	n.Sysctl("net.ipv4.ip_local_port_range", "40000 40499")
	n.Sysctl("net.ipv4.tcp_tw_reuse", "0")
	tr := startTracer(t, "alerts", "--netns", fmt.Sprint(n.Inode()), "--buffer-size", "64KiB")
	at := tcplab.V4.At
	listener := n.Listen(at(80))
	for range 130 { // TIME_WAITs, so that it looks like a storm
		dialAndClose(n, listener, at(80))
	}
	loseEnds(t, tr, n, listener, 130)
	for range 100 { // 260 count, 130 are there; with these 360 and 230 of 500
		dialAndClose(n, listener, at(80))
		time.Sleep(50 * time.Millisecond)
	}
	time.Sleep(2 * time.Second)
	if found := pick(tr.of(n.Inode()), "time_wait_storm", "open"); len(found) > 0 {
		t.Errorf("%+v", found)
	}
	listener.Close()
}

// A storm that takes 400 ports in a third of a second opens before the kernel can be asked. It
// is confirmed within a second.
func TestVerification_NoTimeToAsk(t *testing.T) {
	tcplab.RequireRoot(t)
	t.Parallel()
	tr := startTracer(t, "alerts")
	s := newHostPair(t, tr, 400)
	s.serve(80, afterPeer)
	ended := s.run(workload{To: s.port(80), Phases: []phase{{PerSecond: 1200, For: 2 * time.Second}}})
	opened := s.awaitStorm(tr, "open")
	<-ended
	if opened.Confidence != "unverified" {
		t.Skipf("this machine was slow, and there was time to ask: %+v", opened)
	}
	confirmed := s.awaitStorm(tr, "update")
	for deadline := time.Now().Add(5 * time.Second); confirmed.Confidence == "unverified" && time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		updates := pick(tr.of(s.client.Inode()), "time_wait_storm", "update") // the first one may be about the first failure
		confirmed = updates[min(1, len(updates)-1)]
	}
	after := confirmed.Time.Sub(opened.Time)
	t.Logf("open at %d of 400, confirmed after %v with %d", opened.Occupancy, after, confirmed.Occupancy)
	if confirmed.Confidence != "full" || confirmed.OccupancySource != "kernel" || after > time.Second || confirmed.Occupancy < opened.Occupancy || confirmed.Occupancy > 400 {
		t.Errorf("confirmed after %v: %+v", after, confirmed)
	}
}

// Storms of every family are verified.
func TestVerification_Families(t *testing.T) {
	tcplab.RequireRoot(t)
	t.Parallel()
	for _, family := range tcplab.Families {
		t.Run(fmt.Sprint(family), func(t *testing.T) {
			t.Parallel()
			n := tcplab.NewNetns(t)
			n.Sysctl("net.ipv4.ip_local_port_range", "40000 40199")
			n.Sysctl("net.ipv4.tcp_tw_reuse", "0")
			tr := startTracer(t, "alerts", "--netns", fmt.Sprint(n.Inode()))
			at := family.At(80)
			if family == tcplab.Mapped {
				at = family.Anywhere(80)
			}
			listener := n.Listen(at)
			for deadline := time.Now().Add(waitLimit); time.Now().Before(deadline); time.Sleep(40 * time.Millisecond) {
				dialAndClose(n, listener, family.At(80))
				if opened := pick(tr.of(n.Inode()), "time_wait_storm", "open"); len(opened) > 0 {
					if a := opened[0]; a.Confidence != "full" || a.OccupancySource != "kernel" || a.Occupancy < 100 || a.Occupancy > 170 {
						t.Errorf("%+v", a)
					}
					return
				}
			}
			t.Error("no alert")
		})
	}
}

// A reading of the table that finds 30,000 TIME_WAITs of a suspect costs so little that ten
// of them, one for each update of an alert, take less than a second in a minute.
func TestVerification_CostOfAReading(t *testing.T) {
	tcplab.RequireRoot(t)
	s := newHostPair(t, nil, 20000)
	s.client.Sysctl("net.ipv4.ip_local_port_range", "20000 59999")
	s.client.Sysctl("net.ipv4.tcp_tw_reuse", "0")
	s.serve(80, afterPeer)
	a := <-s.run(workload{To: s.port(80), Phases: []phase{{PerSecond: 3000, For: 10500 * time.Millisecond}}})
	if a.Made < 25000 {
		t.Skipf("this machine made %d connections", a.Made)
	}
	peers := []tcp.Endpoint{{Addr: s.to, Port: 80}}
	cost := func(peers []tcp.Endpoint) (count int, took time.Duration) { // the least of three
		for i := range 3 {
			var err error
			began := time.Now()
			count = 0
			s.client.Do(func() { err = limits.EachWithPeer(peers, func(*tcp.Socket) { count++ }) })
			if err != nil {
				t.Fatal(err)
			}
			if once := time.Since(began); i == 0 || once < took {
				took = once
			}
		}
		return count, took
	}
	count, took := cost(peers)
	none, tookNone := cost([]tcp.Endpoint{{Addr: s.to, Port: 81}})
	t.Logf("%d sockets of a suspect: %v; the same table, and none of them: %v", count, took, tookNone)
	if of30000 := took * 30000 / time.Duration(max(1, count)); count < 10000 || none != 0 || of30000 > 100*time.Millisecond {
		t.Errorf("%d and %d sockets, in %v", count, none, took)
	}
}
