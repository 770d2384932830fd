package snapshot

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tcpshift/tcpshift/internal/cgroup"
	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/selection"
	"github.com/tcpshift/tcpshift/internal/tcp"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// The names of cgroups that are containers of Docker's.
var (
	webScope  = "docker-" + strings.Repeat("a", 64) + ".scope"
	shopScope = "docker-" + strings.Repeat("b", 64) + ".scope"
)

// fakeNames knows one container, web.
type fakeNames struct {
	asked []string
	err   error
}

func (f *fakeNames) Names(info *cgroup.Info) (n cgroup.Names, found bool) {
	f.asked = append(f.asked, info.Path)
	if !strings.Contains(info.Path, webScope) {
		return n, false
	}
	return cgroup.Names{Container: "web", Image: "nginx"}, true
}

func (f *fakeNames) Err() error { return f.err }

// feed hands samples to a snapshot of these sockets, and returns the lines.
func feed(t *testing.T, which *Sockets, samples ...[]byte) string {
	t.Helper()
	out := &sink{}
	s := newSnapshotTo(out, which)
	for _, sample := range samples {
		if err := s.handle(sample, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.flush(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func inCgroups() [][]byte {
	return [][]byte{
		cgroupPath(7, 0, webScope), cgroupPath(8, 0, shopScope), cgroupPath(9, 0, webScope+"x"),
		socket(1, 7, tcp.Listen, 0), socket(2, 7, tcp.Established, 0), socket(3, 8, tcp.Established, 0),
		socket(4, 0, tcp.Established, 0), socket(5, 7, tcp.TimeWait, 0),
	}
}

// A socket has the names of its container. They are looked up once, and only for cgroups with sockets.
func TestNames_OfSockets(t *testing.T) {
	names := &fakeNames{}
	got := feed(t, &Sockets{Names: names}, inCgroups()...)
	want := fmt.Sprintf("1 1 LISTEN 0s /%[1]sweb\n2 2 ESTABLISHED 0s /%[1]sweb\n3 3 ESTABLISHED 0s /%[2]s\n4 4 ESTABLISHED 0s -\n5 5 TIME_WAIT 0s /%[1]sweb\n", webScope, shopScope)
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if asked := strings.Join(names.asked, " "); asked != "/"+webScope+" /"+shopScope {
		t.Errorf("asked for %s, want web and shop once", asked)
	}
}

// A selection numbers what it leaves, and a TIME_WAIT belongs to no container.
func TestNames_Selection(t *testing.T) {
	for _, tt := range []struct {
		containers string
		want       string
	}{
		{"web", fmt.Sprintf("1 1 LISTEN 0s /%[1]sweb\n2 2 ESTABLISHED 0s /%[1]sweb\n", webScope)},
		{strings.Repeat("b", selection.MinContainerID), fmt.Sprintf("1 3 ESTABLISHED 0s /%s\n", shopScope)},
		{"other", ""},
	} {
		which := &Sockets{Names: &fakeNames{}, Selection: &selection.Selection{Containers: []string{tt.containers}}}
		if got := feed(t, which, inCgroups()...); got != tt.want {
			t.Errorf("--container %s: got\n%swant\n%s", tt.containers, got, tt.want)
		}
	}
}

// Sockets count by the names that are looked up, and only those that are selected.
func TestNames_Count(t *testing.T) {
	by := []tcp.SocketKey{tcp.KeyContainerName}
	s := newSnapshot(&Sockets{Names: &fakeNames{}})
	s.counter = newCounter(by)
	for _, sample := range inCgroups() {
		if err := s.handle(sample, 0); err != nil {
			t.Fatal(err)
		}
	}
	counts := s.counter.counts(s.now)
	if len(counts) != 2 || counts[0].ContainerName != "" || counts[0].Sockets != 3 || counts[1].ContainerName != "web" || counts[1].Sockets != 2 {
		t.Errorf("got %+v, want two of web and three of others", counts)
	}
}

// Names that were not looked up are an error, after all sockets are written.
func TestNames_LeftOut(t *testing.T) {
	n := tcplab.NewNetns(t)
	out := &sink{}
	which := &Sockets{Namespaces: find(t, n.Inode()), Filter: &filter.Filter{}, Names: &fakeNames{err: errBroken}}
	if err := Take(which, new(encoder), out); !errors.Is(err, errBroken) {
		t.Errorf("the error is %v, want %v", err, errBroken)
	}
}
