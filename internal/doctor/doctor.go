// Package doctor tells an operator what this host gives the tracer and what it
// does not. It tries each thing for real, leaves nothing behind, and mends nothing.
package doctor

import (
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/decode"
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Examine writes a line for each thing that the tracer wants: yes, or no with the
// reason and the remedy. It fails with the first thing without which there is no
// tracing, a [*probe.HostError] where the host lacks it.
func Examine(w io.Writer) error {
	r := report{w: w}
	for _, requirement := range probe.Requirements() {
		if !r.line(requirement.Name, requirement.Check()) {
			return r.err()
		}
	}
	if !r.line("programs load, attach and report a real transition", tryTracing()) {
		return r.err()
	}
	for _, f := range probe.DetectFeatures() {
		r.optional(f)
	}
	return r.writeErr
}

// report remembers the first failure of each kind.
type report struct {
	w        io.Writer
	failure  error
	writeErr error
}

func (r *report) line(name string, failure error) bool {
	if failure == nil {
		r.printf("yes  %s\n", name)
		return true
	}
	r.failure = failure
	r.printf("no   %s\n", name)
	var host *probe.HostError
	if errors.As(failure, &host) {
		r.printf("     reason: %s\n     remedy: %s\n", host.Problem, host.Remedy)
	} else {
		r.printf("     reason: %v\n", failure)
	}
	return false
}

// optional is for what the tracer works without.
func (r *report) optional(f probe.Feature) {
	if f.Err == nil {
		r.printf("yes  %s\n", f.Name)
		return
	}
	r.printf("no   %s\n     reason: %v\n     cost:   %s\n     remedy: %s\n", f.Name, f.Err, f.Cost, f.Remedy)
}

func (r *report) printf(format string, args ...any) {
	if _, err := fmt.Fprintf(r.w, format, args...); err != nil && r.writeErr == nil {
		r.writeErr = err
	}
}

func (r *report) err() error {
	return errors.Join(r.failure, r.writeErr)
}

var errSeen = errors.New("seen")

// tryTracing listens on a loopback port of its own and looks for that in the stream.
func tryTracing() error {
	p, err := probe.Open(probe.Options{BufferSize: 64 << 10})
	if err != nil {
		return err
	}
	defer p.Close()
	cookie, err := listenOnce()
	if err != nil {
		return fmt.Errorf("listen on a loopback port: %w", err)
	}
	var event decode.Event
	const patience = 2 * time.Second
	for began := time.Now(); time.Since(began) < patience; {
		err := p.Read(10*time.Millisecond, func(sample []byte) error {
			if err := decode.Sample(sample, &event); err != nil {
				return err
			}
			t := &event.Transition
			mine := event.Kind != decode.Cgroup && (t.Cookie == cookie || t.Cookie == 0)
			if mine && t.Old == tcp.Close && t.New == tcp.Listen {
				return errSeen
			}
			return nil
		})
		switch {
		case errors.Is(err, errSeen):
			return nil
		case err != nil:
			return err
		}
	}
	return fmt.Errorf("the programs are attached, but a socket that began to listen did not show within %v", patience)
}

// listenOnce makes one socket listen for a moment, and gives its cookie.
func listenOnce() (uint64, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		return 0, err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, err
	}
	return cookie, unix.Listen(fd, 1)
}
