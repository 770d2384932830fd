package workload

import (
	"fmt"
	"time"

	"github.com/tcpshift/tcpshift/internal/cgroup"
)

// onceLimit bounds the time of all look-ups of a [Once], so that slow files do not keep back what is not named.
const onceLimit = 10 * time.Second

// Once finds names in the goroutine of the caller, for a program that describes one moment and ends. It reads
// files once for each container or pod, and not again for one that no file names. It must be used by one goroutine
// at a time. A file system that hangs stops the caller.
type Once struct {
	lookup  func(Key) (cgroup.Names, bool)
	known   map[Key]cgroup.Names // at most maxKnown; the zero value: no file has names
	spent   time.Duration        // on all look-ups
	leftOut string               // why a container or pod was not looked up; empty: each was
}

// NewOnce returns a Once that reads the node's files.
func NewOnce() *Once { return newOnce(Files{Root: "/"}.Lookup) }

func newOnce(lookup func(Key) (cgroup.Names, bool)) *Once {
	return &Once{lookup: lookup, known: make(map[Key]cgroup.Names)}
}

// Names returns the names of what runs in a cgroup, and whether there are any. It looks nothing up where
// [Resolver.Request] asks nothing, nor beyond 4096 containers and pods, or after 10 s of look-ups: see [Once.Err].
func (o *Once) Names(info *cgroup.Info) (n cgroup.Names, found bool) {
	key, ok := keyOf(info)
	if !ok {
		return n, false
	}
	n, isKnown := o.known[key]
	switch {
	case isKnown:
	case len(o.known) >= maxKnown:
		o.leftOut = fmt.Sprintf("there are more than %d", maxKnown)
	case o.spent >= onceLimit:
		o.leftOut = fmt.Sprintf("reading their files takes more than %v", onceLimit)
	default:
		began := time.Now()
		n, _ = o.lookup(key)
		o.spent += time.Since(began)
		o.known[key] = n
	}
	return n, n != cgroup.Names{}
}

// Err returns an error if containers or pods have no names because they were not looked up.
func (o *Once) Err() error {
	if o.leftOut == "" {
		return nil
	}
	return fmt.Errorf("the names of some containers and pods were not looked up: %s", o.leftOut)
}
