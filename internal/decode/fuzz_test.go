package decode

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// FuzzSample checks that Sample never panics, that it returns an error for exactly the
// samples that are not acceptable and then leaves the event unchanged, and that it
// decodes all others as the independent decoder does.
func FuzzSample(f *testing.F) {
	f.Add([]byte(nil))
	for kind, size := range sizes {
		f.Add(make([]byte, size))
		f.Add(make([]byte, size+1))
		if kind != kindCgroup && kind != kindReset {
			f.Add(typical().as(kind))
		}
	}
	f.Add(wireEvent{local: v6Local, peer: v6Peer, family: 6, old: 10, new: 3, flags: flagMapped}.bytes())
	f.Add(wireEvent{localPort: 80, family: 6, old: 7, new: 10}.bytes())
	f.Add(wireEvent{
		timestamp: 1<<64 - 1, inState: 1<<64 - 1, err: 1<<32 - 1, family: 4, old: 255, new: 255, substate: 255, role: 255,
		pidSource: 255, flags: 1<<32 - 1,
	}.as(kindEnd))
	f.Add(wireEndOf{typical(), 1, 2, 3, 4, 5, 6}.bytes())
	f.Add(wireUpdateOf{wireEndOf{typical(), 1, 2, 3, 4, 5, 6}, 7}.bytes())
	f.Add(wireSocketOf{wireEvent{family: 4, new: 6, substate: 5}, 1<<64 - 1, 75000, wireMeasures{}}.bytes())
	f.Add(wireSocketOf{wireEvent{family: 4, new: 8}, 0, 75000, wireMeasures{1, 2, 3, 4, 5, 6, 7}}.bytes())
	f.Add(wirePath{7, 2, 0, []string{"ssh.service", "system.slice"}, 0}.bytes())
	f.Add(wirePath{7, 13, 1, nil, 0}.bytes())
	f.Add(wireResetOf{7, v6Local, v6Peer, 1, 80, 50000, 6, 255}.bytes())
	f.Fuzz(func(t *testing.T, sample []byte) {
		got := leftover()
		err := Sample(sample, &got)
		_, want := acceptable(sample)
		if accepted := err == nil; accepted != want {
			t.Fatalf("the error is %v, want one: %v", err, !want)
		}
		if err != nil {
			if got != leftover() {
				t.Fatalf("with the error %q the event becomes %+v, want it unchanged", err, got)
			}
			return
		}
		if want := independent(sample); meaning(got) != want {
			t.Fatalf("got  %+v\nwant %+v", meaning(got), want)
		}
		if got.Kind == KindCgroup {
			checkPath(t, got.CgroupPath)
			return
		}
		if got.Kind == KindLateReset {
			return
		}
		checkValid(t, &got.Transition)
	})
}

func checkPath(t *testing.T, path string) {
	t.Helper()
	if path != "" && !strings.HasPrefix(path, "/") || strings.Contains(path, "\x00") {
		t.Errorf("%q is not a path", path)
	}
}

func checkValid(t *testing.T, got *tcp.Transition) {
	t.Helper()
	for _, addr := range []netip.Addr{got.Local.Addr, got.Peer.Addr} {
		if addr.IsValid() && addr.Is4() == got.IPv6 {
			t.Errorf("the address %v does not match IPv6=%v", addr, got.IPv6)
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
	if got.Substate != 0 && got.New != tcp.TimeWait {
		t.Errorf("there is a timewait socket in %v, and yet the new state is %v", got.Substate, got.New)
	}
	for _, name := range []string{got.Old.String(), got.New.String(), got.Error.String()} {
		if name == "" {
			t.Errorf("a state or error of %+v has no name", got)
		}
	}
	if !got.Time.IsZero() || got.Cgroup != nil {
		t.Errorf("the wall-clock time is %v, the cgroup %v, want none: decoding has no clock and no state", got.Time, got.Cgroup)
	}
}
