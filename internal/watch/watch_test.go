package watch

import (
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/limits"
	"github.com/tcpshift/tcpshift/internal/monotonic"
	"github.com/tcpshift/tcpshift/internal/storm"
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
func noPort(w *Watch, netns uint32) {
	t := tcp.Transition{
		Monotonic: monotonic.Now(), Netns: netns, Role: tcp.RoleClient, Old: tcp.Close, New: tcp.SynSent,
		Local: tcp.Endpoint{Addr: netip.MustParseAddr("192.0.2.1")}, Peer: tcp.Endpoint{Addr: netip.MustParseAddr("192.0.2.2"), Port: 80},
	}
	w.Observe(&t)
	t.Old, t.New, t.Locked, t.Unsent = tcp.SynSent, tcp.Close, true, true
	w.Observe(&t)
}

func TestTheEngineIsToldWhatItWantsToKnow(t *testing.T) {
	w := New(storm.Config{})
	defer w.Close()
	want, err := limits.Here()
	if err == nil {
		want.Bound, err = limits.BoundHere()
	}
	if err != nil {
		t.Fatal(err)
	}
	noPort(w, ownNetns(t))
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		alerts := append(w.Alerts(), w.Finish()...) // what is closed can be opened again
		if len(alerts) > 0 && alerts[0].Capacity > 0 {
			if a := alerts[0]; a.Kind != "port_exhaustion" || a.Phase != storm.Open || a.Capacity != uint64(want.Ports()) {
				t.Errorf("%+v, want a capacity of %d", a, want.Ports())
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the capacity never becomes known")
		}
		noPort(w, ownNetns(t))
	}
}

func TestANamespaceThatIsNotThereIsAssumedToBeAsByDefault(t *testing.T) {
	w := New(storm.Config{})
	defer w.Close()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		noPort(w, 7)
		alerts := append(w.Alerts(), w.Finish()...)
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
	w := New(storm.Config{})
	for range 10 * pending {
		noPort(w, ownNetns(t))
	}
	w.Close()
	if closed := w.Finish(); len(closed) == 0 {
		t.Error("there was an alert, and it is not closed")
	}
}
