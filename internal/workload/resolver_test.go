package workload

import (
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tcpshift/tcpshift/internal/cgroup"
)

var web = cgroup.Names{Pod: "web", Namespace: "shop"}

func inContainer(id string) *cgroup.Info { return &cgroup.Info{Container: id, PodUID: podUID} }

// fakeNode is a node whose files have the names from a moment on.
type fakeNode struct {
	lookups atomic.Int64
	from    time.Time
	gone    atomic.Bool
}

func (n *fakeNode) lookup(Key) (cgroup.Names, bool) {
	n.lookups.Add(1)
	if n.gone.Load() || time.Now().Before(n.from) {
		return cgroup.Names{}, false
	}
	return web, true
}

func (n *fakeNode) resolver(t *testing.T) *Resolver {
	r := newResolver(n.lookup, retryAfter)
	t.Cleanup(r.Close)
	return r
}

// The names come as soon as a file has them.
func TestResolver_FileThatComesLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := fakeNode{from: time.Now().Add(4 * time.Second)}
		r := node.resolver(t)
		r.Request(7, inContainer("a"))
		time.Sleep(2 * time.Second)
		if got := r.Answers(); got != nil {
			t.Errorf("before the file is there: %+v", got)
		}
		time.Sleep(5 * time.Second)
		want := Answer{7, Key{"a", podUID, ""}, web}
		if got := r.Answers(); len(got) != 1 || got[0] != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if got := r.Answers(); got != nil {
			t.Errorf("the answer comes twice: %+v", got)
		}
	})
}

// A request does not wait for the retry of another.
func TestResolver_RetryDelaysNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newResolver(func(k Key) (cgroup.Names, bool) { return web, k.Container == "known" }, retryAfter)
		defer r.Close()
		r.Request(1, inContainer("unknown"))
		time.Sleep(2 * time.Second)
		r.Request(2, inContainer("known"))
		synctest.Wait()
		if got := r.Answers(); len(got) != 1 || got[0].CgroupID != 2 {
			t.Errorf("got %+v, want the answer for cgroup 2", got)
		}
	})
}

// What is known stays known without another look, after the container is gone, too.
func TestResolver_ContainerThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var node fakeNode
		r := node.resolver(t)
		r.Request(1, inContainer("a"))
		synctest.Wait()
		node.gone.Store(true)
		r.Request(2, inContainer("a"))
		synctest.Wait()
		if got := r.Answers(); len(got) != 2 || got[1].CgroupID != 2 || got[1].Names != web {
			t.Errorf("got %+v, want the names for both cgroups", got)
		}
		if looks := node.lookups.Load(); looks != 1 {
			t.Errorf("%d looks, want 1", looks)
		}
	})
}

// After the last retry nothing is read for ten minutes.
func TestResolver_UnknownIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var node fakeNode
		node.gone.Store(true)
		r := node.resolver(t)
		r.Request(1, inContainer("a"))
		time.Sleep(time.Minute)
		looks := node.lookups.Load()
		if want := int64(len(retryAfter) + 1); looks != want {
			t.Errorf("%d looks, want %d", looks, want)
		}
		r.Request(2, inContainer("a"))
		time.Sleep(time.Minute)
		if got := node.lookups.Load(); got != looks {
			t.Errorf("%d more looks within ten minutes", got-looks)
		}
		time.Sleep(unknownFor)
		node.gone.Store(false)
		r.Request(3, inContainer("a"))
		synctest.Wait()
		if got := r.Answers(); len(got) != 1 || got[0].CgroupID != 3 {
			t.Errorf("got %+v, want the answer for cgroup 3", got)
		}
	})
}

// No names are looked for where there is no container, or where its id may be a lie.
func TestResolver_NothingToAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var node fakeNode
		r := node.resolver(t)
		r.Request(1, &cgroup.Info{Path: "/system.slice/ssh.service"})
		r.Request(2, &cgroup.Info{Container: "a", ContainerClaimed: true})
		synctest.Wait()
		if got := r.Answers(); got != nil || node.lookups.Load() != 0 {
			t.Errorf("got %+v after %d looks", got, node.lookups.Load())
		}
	})
}

// What waits and what is kept is bounded.
func TestResolver_Bounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		r := newResolver(func(Key) (cgroup.Names, bool) { <-hang; return web, true }, nil)
		for i := range 10 * maxWaiting {
			r.Request(uint64(i), inContainer(strconv.Itoa(i)))
		}
		synctest.Wait()
		if len(r.waiting) > maxWaiting {
			t.Errorf("%d requests wait, want %d at most", len(r.waiting), maxWaiting)
		}
		close(hang)
		for i := range 3 * maxKnown {
			r.Request(uint64(i), inContainer("x"+strconv.Itoa(i)))
			synctest.Wait()
		}
		if len(r.young) > maxKnown || len(r.aged) > maxKnown {
			t.Errorf("%d and %d answers are kept", len(r.young), len(r.aged))
		}
		r.Close()
	})
}

// Requests within the ten minutes do not prolong them: a container with many cgroups gets its names.
func TestResolver_UnknownForTenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var node fakeNode
		node.gone.Store(true)
		r := node.resolver(t)
		r.Request(1, inContainer("a"))
		time.Sleep(time.Minute)
		node.gone.Store(false)
		for id := uint64(2); id < 14; id++ {
			r.Request(id, inContainer("a"))
			time.Sleep(time.Minute)
		}
		if got := r.Answers(); len(got) == 0 {
			t.Error("no answer after eleven minutes with a request in each")
		}
	})
}
