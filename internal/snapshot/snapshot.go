// Package snapshot lists the sockets of one moment. It joins the stages as package trace
// does for a stream: it reads, decodes, encodes and writes. It must not know how a
// stage does its work.
package snapshot

import (
	"errors"
	"time"

	"github.com/tcpshift/tcpshift/internal/cgroup"
	"github.com/tcpshift/tcpshift/internal/decode"
	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/netns"
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/selection"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Encoder appends lines to dst and returns the longer slice; record.Text is one.
type Encoder interface {
	// Header appends the header of the format, if it has one.
	Header(dst []byte) []byte
	// SetSeq sets the number of the next socket. The first one is 1.
	SetSeq(seq uint64)
	// Socket appends one socket as one line.
	Socket(dst []byte, s *tcp.Socket) []byte
}

// Writer takes whole lines; output.Output is one.
type Writer interface {
	Write(lines []byte) (written int, err error)
}

// Names finds the names of containers and pods; [*workload.Once] is one.
type Names interface {
	// Names returns the names of what runs in a cgroup, and whether there are any.
	Names(info *cgroup.Info) (n cgroup.Names, found bool)
	// Err returns an error if names are missing that could be had.
	Err() error
}

// Sockets says which sockets a snapshot has, and what it knows of them.
type Sockets struct {
	Namespaces []netns.Namespace
	Filter     *filter.Filter       // its NewStates select sockets by the state that they are in
	Selection  *selection.Selection // by containers and pods only; nil: all sockets
	Names      Names                // nil: containers and pods have no names
}

// batchSize is the number of bytes that are gathered for one Write.
const batchSize = 64 << 10

// Take writes one line for every TCP socket of these, including TIME_WAITs and pending requests. After a
// failure it writes the sockets listed so far, nothing if there are none, and returns the error. So it does if
// Names has an error.
func Take(which *Sockets, enc Encoder, out Writer) error {
	s := newSnapshot(which)
	s.enc, s.out, s.buf = enc, out, enc.Header(nil)
	err := s.take()
	if err != nil && s.seq == 0 {
		return err // a header alone would be taken for a host without sockets
	}
	return errors.Join(err, s.flush())
}

type snapshot struct {
	*Sockets
	enc     Encoder
	out     Writer
	cgroups *cgroup.Cache
	now     time.Time
	event   decode.Event
	buf     []byte
	seq     uint64
	counter *counter // nil: the sockets are listed, and not counted
}

func newSnapshot(which *Sockets) *snapshot {
	return &snapshot{Sockets: which, now: time.Now(), cgroups: cgroup.NewCache(cgroup.DefaultLimit)}
}

// take lists or counts the sockets.
func (s *snapshot) take() error {
	err := probe.Snapshot(s.Namespaces, s.Filter, s.handle)
	if s.Names != nil {
		err = errors.Join(err, s.Names.Err())
	}
	return err
}

func (s *snapshot) handle(sample []byte, keepalive time.Duration) error {
	e := &s.event
	if err := decode.Sample(sample, e); err != nil {
		return err
	}
	switch e.Kind {
	case decode.KindCgroup:
		if e.CgroupPath != "" {
			s.cgroups.Put(e.CgroupID, e.CgroupPath, e.ClaimedNames)
		}
		return nil
	case decode.KindSocket:
		s.socket(tcp.Socket{Transition: e.Transition, ExpiresIn: expiresIn(e, keepalive), Connection: e.Connection, Queues: e.Queues})
	}
	if len(s.buf) >= batchSize {
		return s.flush()
	}
	return nil
}

func (s *snapshot) socket(socket tcp.Socket) {
	socket.Time = s.now
	socket.Cgroup = s.cgroup(socket.CgroupID)
	if s.Selection != nil && !s.Selection.Socket(&socket) {
		return
	}
	if s.counter != nil {
		s.counter.add(&socket)
		return
	}
	s.seq++
	s.enc.SetSeq(s.seq)
	s.buf = s.enc.Socket(s.buf, &socket)
}

// cgroup returns what is known of a cgroup, or nil. It looks for the names only where a socket is in the cgroup.
func (s *snapshot) cgroup(id uint64) *tcp.Cgroup {
	info, known := s.cgroups.Get(id)
	if !known {
		return nil
	}
	if s.Names != nil && !isNamed(info) {
		if names, found := s.Names.Names(info); found {
			s.cgroups.SetNames(id, info.Container, info.PodUID, names)
			info, _ = s.cgroups.Get(id)
		}
	}
	return (*tcp.Cgroup)(info)
}

func isNamed(info *cgroup.Info) bool {
	return info.Pod != "" || info.Namespace != "" || info.ContainerName != "" || info.Image != ""
}

// expiresIn is the remaining time of a TIME_WAIT, or 0 if it is unknown or overdue. The
// kernel counts it in jiffies. keepalive is the namespace's tcp_keepalive_intvl, which
// the event has in jiffies.
func expiresIn(e *decode.Event, keepalive time.Duration) time.Duration {
	left := e.JiffiesLeft
	if e.Transition.New != tcp.TimeWait || left <= 0 || e.KeepaliveJiffies == 0 {
		return 0
	}
	jiffy := keepalive / time.Duration(e.KeepaliveJiffies)
	return time.Duration(left) * jiffy
}

func (s *snapshot) flush() error {
	if len(s.buf) == 0 {
		return nil
	}
	_, err := s.out.Write(s.buf)
	s.buf = s.buf[:0]
	return err
}
