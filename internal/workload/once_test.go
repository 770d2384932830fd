package workload

import (
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tcpshift/tcpshift/internal/cgroup"
)

// Files are read once for a container that has names, and once for one that has none.
func TestOnce_ReadsOnce(t *testing.T) {
	looks := 0
	o := newOnce(func(k Key) (cgroup.Names, bool) {
		looks++
		if k.Container == "unknown" {
			return cgroup.Names{}, false
		}
		return web, true
	})
	for range 3 {
		if n, found := o.Names(inContainer("a")); n != web || !found {
			t.Errorf("got %+v, %v, want %+v", n, found, web)
		}
		if n, found := o.Names(inContainer("unknown")); n != (cgroup.Names{}) || found {
			t.Errorf("got %+v, %v for an unknown container", n, found)
		}
	}
	if looks != 2 || o.Err() != nil {
		t.Errorf("%d looks, want 2, and the error %v", looks, o.Err())
	}
}

// No names are looked for where there is no container, or where its id may be a lie.
func TestOnce_NothingToAsk(t *testing.T) {
	o := newOnce(func(k Key) (cgroup.Names, bool) { t.Errorf("a look for %+v", k); return web, true })
	for _, info := range []*cgroup.Info{
		{Unit: "nginx.service"}, {Container: "a", ContainerClaimed: true}, {PodUID: podUID, ContainerClaimed: true},
	} {
		if n, found := o.Names(info); found {
			t.Errorf("%+v has the names %+v", info, n)
		}
	}
	if err := o.Err(); err != nil {
		t.Error(err)
	}
}

// The number of look-ups is bounded, and their time. What was found until then stays.
func TestOnce_Bounds(t *testing.T) {
	for _, tt := range []struct {
		name    string
		takes   time.Duration
		looks   int
		problem string
	}{
		{"many containers", 0, maxKnown, "more than 4096"},
		{"slow files", time.Second, 10, "more than 10s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				looks := 0
				o := newOnce(func(Key) (cgroup.Names, bool) {
					time.Sleep(tt.takes)
					looks++
					return web, true
				})
				named := 0
				for i := range 2 * maxKnown {
					if _, found := o.Names(inContainer(strconv.Itoa(i))); found {
						named++
					}
				}
				if looks != tt.looks || named != tt.looks || len(o.known) != tt.looks {
					t.Errorf("%d looks, %d named, %d kept, want %d", looks, named, len(o.known), tt.looks)
				}
				if n, found := o.Names(inContainer("0")); n != web || !found {
					t.Errorf("got %+v, %v for the first container", n, found)
				}
				if err := o.Err(); err == nil || !strings.Contains(err.Error(), tt.problem) {
					t.Errorf("the error is %v, want %q in it", err, tt.problem)
				}
			})
		})
	}
}
