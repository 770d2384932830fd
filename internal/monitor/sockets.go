package monitor

import (
	"errors"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/boottime"
	"github.com/tcpshift/tcpshift/internal/cputime"
	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/netns"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Pace bounds how often all sockets are counted, and how much CPU time that takes.
type Pace struct {
	Interval time.Duration // the least time between two counts
	Divisor  int           // counts take at most 1/Divisor of one CPU: they become less frequent if they cost more
}

var (
	// ForMetrics is how often sockets are counted for metrics.
	ForMetrics = Pace{Interval: 10 * time.Second, Divisor: budgetDivisor}
	// ForScreen is how often they are counted for a person who watches.
	ForScreen = Pace{Interval: 2 * time.Second, Divisor: 400}
)

const (
	// findInterval is the least time between two searches for all namespaces, which costs a system call for
	// each thread and open file of the host.
	findInterval = time.Minute
	// maxCounted bounds the namespaces whose sockets are counted.
	maxCounted = 16384
)

// CountSockets passes the sockets of the calling thread's network namespace to add, by owner; an owner may come
// several times.
type CountSockets func(add func(owner tcp.SocketOwner, count uint64)) error

// SocketCounter counts the sockets of all namespaces in the background. Its search for namespaces takes at most
// 1/budgetDivisor of one CPU: it becomes less frequent if it costs more.
type SocketCounter struct {
	count   CountSockets
	filter  filter.Filter
	pace    Pace
	warn    func(message string)
	wake    waker
	done    chan struct{}
	closing sync.Once
	answer  atomic.Pointer[tcp.SocketCensus]

	namespaces []netns.Namespace
	nextFind   time.Duration // when they are searched for again
	mayFind    time.Duration // when they may be, if one is gone
}

// NewSocketCounter starts to count. count is called from another goroutine, until some time after Close. warn gets
// at most one message for the operator: that sockets cannot be counted.
func NewSocketCounter(count CountSockets, f filter.Filter, p Pace, warn func(message string)) *SocketCounter {
	c := &SocketCounter{count: count, filter: f, pace: p, warn: warn, done: make(chan struct{})}
	go c.run()
	return c
}

// Close ends the counting, and does not wait for that. It may be called several times, from any goroutine.
func (c *SocketCounter) Close() { c.closing.Do(func() { close(c.done) }) }

// NotifyAnswers sets a function that is called from another goroutine when Answer has something new.
func (c *SocketCounter) NotifyAnswers(wake func()) { c.wake.f.Store(&wake) }

// Answer returns the newest count, once; nil: there is none since the last call.
func (c *SocketCounter) Answer() *tcp.SocketCensus { return c.answer.Swap(nil) }

func (c *SocketCounter) run() {
	for {
		began := boottime.Now()
		cost, err := c.countAll()
		if err != nil {
			if !c.isClosed() {
				c.warn(fmt.Sprintf("there are no metrics of sockets: %v", err))
			}
			return
		}
		pause := c.pace.after(cost) - (boottime.Now() - began)
		select {
		case <-c.done:
			return
		case <-time.After(pause):
		}
	}
}

// after is the time from the beginning of a count that has cost so much CPU time to that of the next one.
func (p Pace) after(cost time.Duration) time.Duration {
	return max(p.Interval, time.Duration(p.Divisor)*cost)
}

func (c *SocketCounter) isClosed() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// countAll makes one count, and returns its CPU time. An error means that nothing can be counted.
func (c *SocketCounter) countAll() (cost time.Duration, err error) {
	c.find()
	taken := newCensus()
	for _, n := range c.namespaces {
		if c.isClosed() {
			return cost, nil
		}
		failed := enter(n, func() error {
			timer := cputime.Start()
			err := c.count(func(owner tcp.SocketOwner, count uint64) { taken.add(n.Inode, owner, count) })
			cost += timer.Elapsed()
			return err
		})
		switch {
		case failed == nil:
		case errors.Is(failed, netns.ErrGone): // it may be elsewhere: what led to it was a process that has ended
			c.nextFind = c.mayFind
		case n.Inode == ownNetns() && !errors.Is(failed, unix.EMFILE) && !errors.Is(failed, unix.ENFILE):
			return cost, failed
		}
	}
	c.answer.Store(taken.answer(time.Now()))
	c.wake.call()
	return cost, nil
}

// find finds the namespaces if that is due.
func (c *SocketCounter) find() {
	now := boottime.Now()
	if now < c.nextFind && len(c.namespaces) > 0 {
		return
	}
	timer := cputime.Start()
	c.namespaces = passing(netns.All, &c.filter)
	c.mayFind = now + budgetDivisor*timer.Elapsed()
	c.nextFind = max(now+findInterval, c.mayFind)
}

// passing returns the namespaces that a filter passes, maxCounted at most. It ends the search with the last one that
// the filter names, because the rest of the search costs most.
func passing(all iter.Seq[netns.Namespace], f *filter.Filter) (found []netns.Namespace) {
	limit := maxCounted
	if named := len(f.Netns); named > 0 {
		limit = min(limit, named)
	}
	for n := range all {
		if f.MatchesNetns(n.Inode) {
			found = append(found, n)
		}
		if len(found) == limit {
			break
		}
	}
	return found
}
