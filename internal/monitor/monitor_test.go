package monitor

import (
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/limits"
	"github.com/tcpshift/tcpshift/internal/monotonic"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// ownNetns is that of this process, which any user may read.
func ownNetns(t *testing.T) uint32 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat("/proc/self/ns/net", &st); err != nil {
		t.Fatal(err)
	}
	return uint32(st.Ino)
}

// noPort is a connect() that fails without a free local port, to a peer that does not exist.
func noPort(m *Monitor, netns uint32) {
	t := tcp.Transition{
		Monotonic: monotonic.Now(), Netns: netns, Role: tcp.RoleClient, Old: tcp.Close, New: tcp.SynSent,
		Local: tcp.Endpoint{Addr: netip.MustParseAddr("192.0.2.1")}, Peer: tcp.Endpoint{Addr: netip.MustParseAddr("192.0.2.2"), Port: 80},
	}
	m.Observe(&t)
	t.Old, t.New, t.Locked, t.NoPort = tcp.SynSent, tcp.Close, true, true
	m.Observe(&t)
}

// The engine gets the limits that it has requested.
func TestMonitor_AnswersRequests(t *testing.T) {
	m := New(detect.Config{})
	defer m.Close()
	want, err := limits.Read()
	if err == nil {
		want.Bound, err = limits.ReadBoundPorts()
	}
	if err != nil {
		t.Fatal(err)
	}
	noPort(m, ownNetns(t))
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		alerts := append(m.Alerts(), m.Finish()...) // what is closed can be opened again
		if len(alerts) > 0 && alerts[0].Capacity > 0 {
			if a := alerts[0]; a.Kind != "port_exhaustion" || a.Phase != detect.Open || a.Capacity != uint64(want.Ports()) {
				t.Errorf("%+v, want a capacity of %d", a, want.Ports())
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the engine never gets the capacity")
		}
		noPort(m, ownNetns(t))
	}
}

// A namespace that cannot be found gets the kernel's default limits.
func TestMonitor_MissingNamespace(t *testing.T) {
	m := New(detect.Config{})
	defer m.Close()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		noPort(m, 7)
		alerts := append(m.Alerts(), m.Finish()...)
		if len(alerts) > 0 && alerts[0].Capacity > 0 {
			if a := alerts[0]; a.Capacity != 28232 || !a.Approximate {
				t.Errorf("%+v", a)
			}
			return
		}
	}
	t.Error("the engine never assumes a capacity")
}

// Close does not block while requests are pending, and Finish closes the alerts.
func TestMonitor_CloseDoesNotBlock(t *testing.T) {
	m := New(detect.Config{})
	for range 10 * queueSize {
		noPort(m, ownNetns(t))
	}
	m.Close()
	if closed := m.Finish(); len(closed) == 0 {
		t.Error("there was an alert, and it is not closed")
	}
}
