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

// ownNetns is this process's, which anybody may read.
func ownNetns(t *testing.T) uint32 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat("/proc/self/ns/net", &st); err != nil {
		t.Fatal(err)
	}
	return uint32(st.Ino)
}

// noPort is a connect() that fails for want of a port, to a peer that nobody has.
func noPort(m *Monitor, netns uint32) {
	t := tcp.Transition{
		Monotonic: monotonic.Now(), Netns: netns, Role: tcp.RoleClient, Old: tcp.Close, New: tcp.SynSent,
		Local: tcp.Endpoint{Addr: netip.MustParseAddr("192.0.2.1")}, Peer: tcp.Endpoint{Addr: netip.MustParseAddr("192.0.2.2"), Port: 80},
	}
	m.Observe(&t)
	t.Old, t.New, t.Locked, t.Unsent = tcp.SynSent, tcp.Close, true, true
	m.Observe(&t)
}

func TestTheEngineIsToldWhatItWantsToKnow(t *testing.T) {
	m := New(detect.Config{})
	defer m.Close()
	want, err := limits.Here()
	if err == nil {
		want.Bound, err = limits.BoundHere()
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
			t.Fatal("the capacity never becomes known")
		}
		noPort(m, ownNetns(t))
	}
}

func TestANamespaceThatIsNotThereIsAssumedToBeAsByDefault(t *testing.T) {
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
	t.Error("the capacity is never assumed")
}

func TestWhoClosesIsNotHeldUp(t *testing.T) {
	m := New(detect.Config{})
	for range 10 * pending {
		noPort(m, ownNetns(t))
	}
	m.Close()
	if closed := m.Finish(); len(closed) == 0 {
		t.Error("there was an alert, and it is not closed")
	}
}
