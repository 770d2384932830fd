package decode

import (
	"net/netip"
	"testing"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// FuzzTransition: it never panics; it refuses exactly what it must and then
// changes nothing; what it accepts means what an independent reading says.
func FuzzTransition(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(make([]byte, eventSize))
	f.Add(make([]byte, eventSize+1))
	f.Add(typical().bytes())
	f.Add(wireEvent{local: v6Local, peer: v6Peer, kind: 1, family: 6, old: 10, new: 3, flags: flagMapped}.bytes())
	f.Add(wireEvent{localPort: 80, kind: 1, family: 6, old: 7, new: 10}.bytes())
	f.Add(wireEvent{timestamp: 1<<64 - 1, err: 1<<32 - 1, kind: 1, family: 4, old: 255, new: 255, role: 255, flags: 255}.bytes())
	f.Fuzz(func(t *testing.T, sample []byte) {
		got := leftover()
		err := Transition(sample, &got)
		acceptable := len(sample) == eventSize && sample[offsetKind] == 1 &&
			(sample[offsetFamily] == 4 || sample[offsetFamily] == 6)
		if accepted := err == nil; accepted != acceptable {
			t.Fatalf("the error is %v, want one: %v", err, !acceptable)
		}
		if err != nil {
			if got != leftover() {
				t.Fatalf("with the error %q the transition becomes %+v, want it unchanged", err, got)
			}
			return
		}
		if want := independent(sample); got != want {
			t.Fatalf("got  %+v\nwant %+v", got, want)
		}
		checkValid(t, &got)
	})
}

func checkValid(t *testing.T, got *tcp.Transition) {
	t.Helper()
	for _, addr := range []netip.Addr{got.Local.Addr, got.Peer.Addr} {
		if addr.IsValid() && addr.Is4() == got.IPv6 {
			t.Errorf("the address %v is not of the family that IPv6=%v says", addr, got.IPv6)
		}
		if addr.Zone() != "" {
			t.Errorf("the address %v has a zone, want none", addr)
		}
	}
	if got.Peer.Addr.IsValid() && got.Peer.Addr.IsUnspecified() {
		t.Errorf("the peer address is %v, want none", got.Peer.Addr)
	}
	listens := got.Old == tcp.Listen || got.New == tcp.Listen
	if got.Local.Addr.IsValid() && got.Local.Addr.IsUnspecified() && !listens {
		t.Errorf("the local address is %v on the way from %v to %v, want none", got.Local.Addr, got.Old, got.New)
	}
	if got.Owner.Source == tcp.PIDUnknown && got.Owner != (tcp.Owner{}) {
		t.Errorf("the owner is not known and yet %+v", got.Owner)
	}
	for _, name := range []string{got.Old.String(), got.New.String(), got.Error.String()} {
		if name == "" {
			t.Errorf("a state or error of %+v has no name", got)
		}
	}
	if !got.Time.IsZero() {
		t.Errorf("the wall-clock time is %v, want none: decoding has no clock", got.Time)
	}
}
