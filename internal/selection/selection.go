// Package selection decides, by the values of an event, whether an output writes its record. It
// must not count, write or do I/O: internal/trace does that. Filters decide in the kernel what
// exists for everybody (internal/filter); a selection decides later what is written, so detection
// never notices it.
package selection

import (
	"slices"
	"strings"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Selection decides which records an output writes, of the types that it has. Each field that is not
// empty must match; a record whose value is not known does not match. A field lets records of other
// types pass.
type Selection struct {
	ClosedBy    []tcp.ClosedBy // of connections
	MinDuration time.Duration  // of connections; 0: any
	MinBytes    uint64         // of connections, sent and received together; 0: any
	Errors      []tcp.Errno    // of transitions and connections

	// Sample is the N of a sample of 1/N: the transitions and the connection of one socket in N, on
	// average, are written; 0 or 1: those of all sockets. See [inSample].
	Sample uint64

	// Of transitions, connections and sockets by their owner, of alerts by their service.
	Containers []string // see matchesContainer
	Pods       []string // see matchesPod
}

// OrNil returns nil if s selects everything, so that the caller need not ask it.
func (s *Selection) OrNil() *Selection {
	if s.ofConnections() || len(s.Errors) > 0 || s.Sample > 1 || s.ByNames() {
		return s
	}
	return nil
}

func (s *Selection) ofConnections() bool {
	return len(s.ClosedBy) > 0 || s.MinDuration > 0 || s.MinBytes > 0
}

// ByNames reports whether s selects by containers or pods.
func (s *Selection) ByNames() bool { return len(s.Containers) > 0 || len(s.Pods) > 0 }

// Transition reports whether a transition, or the end of a TIME_WAIT, is written.
func (s *Selection) Transition(t *tcp.Transition) bool {
	return (s.Sample <= 1 || !t.SampleApplies() || inSample(t.Cookie, s.Sample)) &&
		(len(s.Errors) == 0 || slices.Contains(s.Errors, t.Error)) && s.matchesNames(t.Cgroup)
}

// Connection reports whether a connection is written. It takes the last transition as well.
func (s *Selection) Connection(last *tcp.Transition, c *tcp.Connection) bool {
	switch {
	case len(s.ClosedBy) > 0 && !slices.Contains(s.ClosedBy, c.ClosedBy):
	case s.MinDuration > 0 && (c.OpenedAt == 0 || last.Monotonic-c.OpenedAt < s.MinDuration):
	case c.Received < s.MinBytes && c.Sent < s.MinBytes-c.Received:
	default:
		return s.Transition(last)
	}
	return false
}

// Socket reports whether a socket of a snapshot is written. A TIME_WAIT has no owner.
func (s *Selection) Socket(k *tcp.Socket) bool {
	return !s.ByNames() || k.New != tcp.TimeWait && s.matchesNames(k.Cgroup)
}

// Alert reports whether an alert is written, by the service that it names.
func (s *Selection) Alert(a *detect.Alert) bool { return s.matchesNames(a.Culprit.Cgroup) }

func (s *Selection) matchesNames(c *tcp.Cgroup) bool {
	if !s.ByNames() {
		return true
	}
	return c != nil && matchesContainer(s.Containers, c) && matchesPod(s.Pods, c)
}

// MinContainerID is the least number of digits of a container's id that select the container: as
// many as engines show.
const MinContainerID = 12

// matchesContainer reports whether a word is the container's name, or begins its id with
// MinContainerID digits or more. No word matches every container.
func matchesContainer(words []string, c *tcp.Cgroup) bool {
	return len(words) == 0 || slices.ContainsFunc(words, func(word string) bool {
		return word == c.ContainerName || len(word) >= MinContainerID && strings.HasPrefix(c.Container, word)
	})
}

// matchesPod reports whether a word is the pod's name, its namespace and name with a slash between,
// or its uid. No word matches every pod.
func matchesPod(words []string, c *tcp.Cgroup) bool {
	return len(words) == 0 || slices.ContainsFunc(words, func(word string) bool {
		if word == c.Pod || word == c.PodUID {
			return true
		}
		namespace, pod, both := strings.Cut(word, "/")
		return both && namespace == c.Namespace && pod == c.Pod
	})
}
