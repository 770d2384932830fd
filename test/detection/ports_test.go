package detection_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// Alerts agree with the kernel about what holds a port: TIME_WAITs that connect() takes
// over, and those that it does not; ports that bind() took; a socket's own range.
func TestAlert_WhatHoldsAPort(t *testing.T) {
	tcplab.RequireRoot(t)
	tr := startTracer(t, "alerts")
	t.Run("ports", func(t *testing.T) {
		t.Run("two thirds of the ports within the delay of reuse", func(t *testing.T) { t.Parallel(); reuseOnLoopback(t, tr) })
		t.Run("reuse, and a peer without timestamps", func(t *testing.T) { t.Parallel(); reuseWithoutTimestamps(t, tr) })
		t.Run("bound by another process", func(t *testing.T) { t.Parallel(); boundByAnother(t, tr) })
		t.Run("a socket's own range", func(t *testing.T) { t.Parallel(); ownRange(t, tr) })
	})
	tr.stop()
	everyAlertCloses(t, tr)
}

func reuseOnLoopback(t *testing.T, tr *tracer) {
	s := newHostPair(t, tr, 300)
	loopback := netip.MustParseAddr("127.0.0.1")
	s.serveIn(s.client, loopback, 80, afterPeer)
	a := <-s.run(workload{To: netip.AddrPortFrom(loopback, 80), Phases: []phase{{PerSecond: 150, For: 15 * time.Second}}})
	if a.NoPort > 0 {
		t.Skipf("this machine stalled: %d connects failed, the greatest delay was %v", a.NoPort, a.Late)
	}
	if found := tr.of(s.client.Inode()); len(found) > 0 {
		t.Errorf("no connect() failed, and there are alerts: %+v", found)
	}
}

func reuseWithoutTimestamps(t *testing.T, tr *tracer) {
	s := newHostPair(t, tr, 100)
	s.sysctl("net.ipv4.tcp_tw_reuse", 1)
	s.server.Sysctl("net.ipv4.tcp_timestamps", "0")
	s.serve(80, afterPeer)
	a := <-s.run(workload{To: s.port(80), UntilNoPort: true, Phases: []phase{{PerSecond: 8, For: waitLimit}}})
	x := s.checkFailureAlert(tr, "time_wait_storm", a.FirstNoPort)
	alerts := tr.of(s.client.Inode())
	if opened := pick(alerts, "time_wait_storm", "open"); len(opened) != 1 || !opened[0].came.Before(a.FirstNoPort) {
		t.Errorf("want one alert before the first failure: %+v", opened)
	}
	if x.Occupancy != 100 || x.Capacity != 100 {
		t.Errorf("%d of %d, want 100 of 100", x.Occupancy, x.Capacity)
	}
}

func boundByAnother(t *testing.T, tr *tracer) {
	s := newHostPair(t, tr, 20)
	s.serve(80, afterPeer)
	s.serve(81, afterPeer)
	s.client.Do(func() {
		for range 20 {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: s.at.AsSlice()}} // bind() to port 0 takes a port
			c, err := d.Dial("tcp4", s.port(80).String())
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { c.Close() })
		}
	})
	a := <-s.run(workload{To: s.port(81), Phases: []phase{{PerSecond: 5, For: 15 * time.Second}}})
	s.checkFailureAlert(tr, "port_exhaustion", a.FirstNoPort)
	// On a slow machine the alert opens before the last bind(); a later phase has them all.
	x := s.awaitPhase(tr, "port_exhaustion", func(a alert) bool { return a.Capacity > 0 && a.Occupancy == a.Capacity })
	// Either the binds were known first, and their process is named, or the failure was.
	named := x.PeerPort == 0 && x.PID == os.Getpid() || x.PeerPort == 81 && x.PID == a.PID
	if !named || !strings.Contains(x.Cause, "bound before connect()") {
		t.Errorf("pid %d (this is %d), %d of %d: %s", x.PID, os.Getpid(), x.Occupancy, x.Capacity, x.Cause)
	}
}

// awaitPhase returns the first phase of an alert for which matches is true. The first failure may
// come before the limits of the namespace have been read; the next phase is 10 s later.
func (s *hostPair) awaitPhase(tr *tracer, kind string, matches func(a alert) bool) alert {
	s.t.Helper()
	for deadline := time.Now().Add(waitLimit); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		for _, a := range tr.of(s.client.Inode()) {
			if a.Kind == kind && matches(a) {
				return a
			}
		}
	}
	s.t.Fatalf("no phase of %s is as awaited: %+v", kind, tr.of(s.client.Inode()))
	return alert{}
}

func ownRange(t *testing.T, tr *tracer) {
	s := newHostPair(t, tr, 5000)
	s.serve(80, afterPeer)
	a := <-s.run(workload{To: s.port(80), PortRange: [2]uint16{40100, 40129}, UntilNoPort: true, Phases: []phase{{PerSecond: 10, For: 10 * time.Second}}})
	if strings.Contains(a.Other, unix.ENOPROTOOPT.Error()) {
		t.Skip("IP_LOCAL_PORT_RANGE needs Linux 6.3")
	}
	s.checkFailureAlert(tr, "port_exhaustion", a.FirstNoPort)
	x := pick(tr.of(s.client.Inode()), "port_exhaustion", "open")[0]
	if x.Capacity != 0 || x.Occupancy != 30 || !strings.Contains(x.Advice, "IP_LOCAL_PORT_RANGE") {
		t.Errorf("%d of %d: %s", x.Occupancy, x.Capacity, x.Advice)
	}
}

// Ports that bind() took before the tracer started are free for nobody, nor are those of the
// children of listeners that have closed: the capacity is what connect() really finds.
func TestAlert_PortsBoundBeforeStart(t *testing.T) {
	tcplab.RequireRoot(t)
	t.Parallel()
	s := newHostPair(t, nil, 40)
	s.serve(80, afterPeer)
	s.serve(81, afterPeer)
	for range 10 {
		c := s.client.Socket(s.at)
		c.Bind(netip.AddrPortFrom(s.at, 0))
		c.Connect(s.port(80))
		listener := s.client.Listen(netip.AddrPortFrom(s.at, 0))
		peer := s.server.Socket(s.to)
		peer.Connect(listener.Addr())
		listener.Accept()
		listener.Close()
	}
	tr := startTracer(t, "alerts")
	tr.keepInodes(s.client, s.server)
	// The connections stay open until the tracer has found the namespace.
	running := s.run(workload{To: s.port(81), Open: time.Hour, UntilNoPort: true, Phases: []phase{{PerSecond: 2, For: waitLimit}, {For: 10 * time.Second}}})
	x := s.awaitPhase(tr, "port_exhaustion", func(a alert) bool { return a.Capacity > 0 })
	a := <-running
	t.Logf("%d connects succeeded: %s", a.Made, x.Cause)
	if a.Made != 20 || x.Capacity != 20 || x.Occupancy != 20 || !strings.Contains(x.Cause, "(20 by sockets that are older") {
		t.Errorf("%d connects succeeded, the alert has %d of %d: %s", a.Made, x.Occupancy, x.Capacity, x.Cause)
	}
}

// A program that binds its sockets to port 0 before connect(), to many destinations, uses up one
// pool of ports, and bind() is what fails. The alert comes before that, with the kernel's number.
func TestAlert_BindExhaustion(t *testing.T) {
	tcplab.RequireRoot(t)
	t.Parallel()
	tr := startTracer(t, "alerts")
	s := newHostPair(t, tr, 200)
	const destinations = 8
	for n := range uint16(destinations) {
		s.serve(80+n, afterPeer)
	}
	time.Sleep(3 * time.Second) // only a file refers to the namespaces: the search for them takes a while
	var failed time.Time
	made := 0
	for deadline := time.Now().Add(waitLimit); failed.IsZero() && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		s.client.Do(func() {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: s.at.AsSlice()}}
			c, err := d.Dial("tcp4", s.port(uint16(80+made%destinations)).String())
			if errors.Is(err, unix.EADDRINUSE) {
				failed = time.Now()
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			made++
			c.Close()
		})
	}
	opened := pick(tr.of(s.client.Inode()), "port_exhaustion", "open")
	if failed.IsZero() || len(opened) != 1 {
		t.Fatalf("%d connections, and want one alert: %+v", made, opened)
	}
	a := opened[0]
	t.Logf("bind() failed after %d connections, %v after: %s", made, failed.Sub(a.came), a.Cause)
	if !a.came.Before(failed) || a.PID != os.Getpid() || a.Capacity != 200 || a.Occupancy >= 200 || a.PeerPort != 0 || a.ExhaustionIn == nil || a.Confidence != "full" {
		t.Errorf("%+v", a)
	}
}
