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

// batchSize is the number of bytes that are gathered for one Write.
const batchSize = 64 << 10

// Take writes one line for every TCP socket of the namespaces that passes f, including TIME_WAITs
// and pending requests. f.NewStates selects sockets by the state that they are in. After a failure
// Take writes the sockets listed so far, nothing if there are none, and returns the error.
func Take(namespaces []netns.Namespace, f *filter.Filter, enc Encoder, out Writer) error {
	s := &snapshot{
		enc: enc, out: out, now: time.Now(),
		cgroups: cgroup.NewCache(cgroup.DefaultLimit), buf: enc.Header(nil),
	}
	err := probe.Snapshot(namespaces, f, s.handle)
	if err != nil && s.seq == 0 {
		return err // a header alone would be taken for a host without sockets
	}
	return errors.Join(err, s.flush())
}

type snapshot struct {
	enc     Encoder
	out     Writer
	cgroups *cgroup.Cache
	now     time.Time
	event   decode.Event
	buf     []byte
	seq     uint64
	counter *counter // nil: the sockets are listed, and not counted
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
	if info, known := s.cgroups.Get(socket.CgroupID); known {
		socket.Cgroup = (*tcp.Cgroup)(info)
	}
	if s.counter != nil {
		s.counter.add(&socket)
		return
	}
	s.seq++
	s.enc.SetSeq(s.seq)
	s.buf = s.enc.Socket(s.buf, &socket)
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
