package detect

import (
	"fmt"
	"maps"
	"net/netip"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// The usage of a namespace is that of its fullest destination, and the kernel's count of TIME_WAITs. It is not known
// before the limits were read.
func TestUsage_FullestDestination(t *testing.T) {
	h := newHost(t, 500, Config{})
	key := destination{local: netip.MustParseAddr("192.0.2.1"), peer: netip.MustParseAddr("192.0.2.2"), netns: testNetns, peerPort: 80}
	emptier := key
	emptier.peerPort = 81
	h.limits.Reuse = 0
	if got := h.engine.Usage(h.now); len(got) != 0 {
		t.Errorf("before anything happened the usage is %+v", got)
	}
	for range 100 {
		h.connect(key, curl)
		h.close(key, curl, true)
	}
	for range 50 {
		h.connect(key, curl)
	}
	h.connect(emptier, curl)
	h.pass(12 * time.Second)
	got := h.engine.Usage(h.now)
	if len(got) != 1 {
		t.Fatalf("the usage is %+v, want that of one namespace", got)
	}
	u := got[0]
	if u.Netns != testNetns || u.Ports != 500 || u.PortsUsed < 145 || u.PortsUsed > 155 || u.MaxTimeWaits != 1<<17 || u.TimeWaits != 100 {
		t.Errorf("the usage is %+v, want 150 of 500 ports and 100 TIME_WAITs", u)
	}
	if share := u.PortsShare(); share < 0.29 || share > 0.31 || u.Share() != share {
		t.Errorf("the share is %v and %v, want 0.3", share, u.Share())
	}
}

// The use of accept queues is that of the fullest listener, of the namespace and of each service. A listener whose
// listen() was not observed has no service, and a namespace that cannot be read has no usage.
func TestUsage_ListenQueues(t *testing.T) {
	h := newHost(t, 500, Config{})
	half := h.listen(web, 9, webServer)
	quarter := h.listen(tcp.Endpoint{Addr: here, Port: 81}, 9, webServer)
	h.listen(tcp.Endpoint{Addr: here, Port: 82}, 9, process(100, "idle"))
	h.listen(tcp.Endpoint{Addr: here, Port: 83}, 9, tcp.Owner{}) // nothing is known of it
	if got := h.engine.Usage(h.now); len(got) != 0 {
		t.Errorf("before the listeners were read the usage is %+v", got)
	}
	h.arrive(half, 5)
	h.arrive(quarter, 2)
	h.pass(12 * time.Second)
	want := map[string]float64{"server": 0.5, "idle": 0}
	check := func(share float64) {
		t.Helper()
		got := h.engine.Usage(h.now)
		if len(got) != 1 || got[0].Netns != testNetns || !got[0].HasListeners || got[0].ListenQueueShare != share || got[0].Share() != share {
			t.Fatalf("the usage is %+v, want that of one namespace with a share of %v", got, share)
		}
		services := make(map[string]float64)
		for _, l := range got[0].Listeners {
			services[string(l.Owner.Comm.Bytes())] = l.Share
		}
		if !maps.Equal(services, want) {
			t.Errorf("the services are %v, want %v", services, want)
		}
	}
	check(0.5)
	unknown := h.listening.list[3]
	h.arrive(unknown, 20)
	want[""] = 1
	h.pass(12 * time.Second)
	check(1)
	unknown.accept(20)
	half.accept(1)
	want[""], want["server"] = 0, 0.4
	h.pass(12 * time.Second)
	check(0.4)
	h.listening.gone = true
	h.pass(12 * time.Second)
	for _, u := range h.engine.Usage(h.now) {
		if u.HasListeners {
			t.Errorf("listeners that cannot be read have a usage: %+v", u)
		}
	}
}

// However many services listen, the answer is bounded; what is more counts as not known.
func TestUsage_ManyServices(t *testing.T) {
	h := newHost(t, 500, Config{})
	const count = 4 * maxListenServices
	for i := range count {
		s := h.listen(tcp.Endpoint{Addr: here, Port: uint16(1000 + i)}, 9, process(uint32(1000+i), fmt.Sprint("s", i)))
		h.arrive(s, 10)
	}
	h.pass(12 * time.Second)
	got := h.engine.Usage(h.now)
	if len(got) != 1 || len(got[0].Listeners) != maxListenServices+1 {
		t.Fatalf("%d namespaces, %d services, want 1 and %d", len(got), len(got[0].Listeners), maxListenServices+1)
	}
	for _, l := range got[0].Listeners {
		if l.Share != 1 {
			t.Errorf("the share of %+v is %v", l.Owner, l.Share)
		}
	}
}
