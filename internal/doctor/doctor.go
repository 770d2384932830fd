// Package doctor reports which features this host has for tcpshift, and for those
// missing the reason and the remedy. It tries each feature for real. It must not change
// the host, and it removes everything it has loaded.
package doctor

import (
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/decode"
	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/sandbox"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Examine writes a line to w for every requirement and every optional feature: yes, or no
// followed by reason and remedy, and for a feature by its cost too. An error that is not a
// [*probe.HostError] has no remedy. It stops at the first requirement that is not met
// and returns its error, a [*probe.HostError] if the host is the cause. It also returns
// the first error of writing to w. It takes up to a few seconds.
func Examine(w io.Writer) error {
	r := report{w: w}
	for _, requirement := range probe.Requirements() {
		if !r.requirement(requirement.Name, requirement.Check()) {
			return r.err()
		}
	}
	if !r.requirement("programs load, attach and report a real transition", tryTracing()) {
		return r.err()
	}
	for _, f := range probe.DetectFeatures() {
		r.feature(f)
	}
	for _, f := range probe.DetectProcessFeatures() {
		r.feature(f)
	}
	for _, f := range probe.DetectMetricsFeatures() {
		r.feature(f)
	}
	for _, part := range sandbox.Available() {
		r.feature(probe.Feature{Name: part.Name, Err: part.Err, Cost: "--sandbox runs without it", Remedy: remedyOf[part.Name]})
	}
	return r.writeErr
}

// remedyOf is what the operator can do about a part of the sandbox that is missing.
var remedyOf = map[string]string{
	sandbox.Seccomp:  "use a kernel built with CONFIG_SECCOMP_FILTER=y",
	sandbox.Landlock: "use Linux 5.13 or later with CONFIG_SECURITY_LANDLOCK=y, and landlock in the boot parameter lsm=",
}

// report writes the lines.
type report struct {
	w        io.Writer
	failure  error // the requirement that is not met
	writeErr error // the first error of w
}

// requirement writes the lines of a requirement, and returns whether it is met.
func (r *report) requirement(name string, failure error) bool {
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

// feature writes the lines of an optional feature: tcpshift works without it, at a cost.
func (r *report) feature(f probe.Feature) {
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

// errSeen ends a ReadFor after the expected transition.
var errSeen = errors.New("seen")

// tryTracing traces for a moment, and fails unless the programs report that a socket of
// this process began to listen. On a busy host its small ring buffer has room only because the
// filter leaves out the other transitions; and it tries more than once, in case others fill it.
func tryTracing() error {
	listening := filter.Filter{OldStates: []tcp.State{tcp.Close}, NewStates: []tcp.State{tcp.Listen}}
	p, err := probe.Open(probe.Options{BufferSize: 64 << 10, Filter: listening})
	if err != nil {
		return err
	}
	defer p.Close()
	own := make(map[uint64]bool) // the cookies of the sockets
	var event decode.Event
	const timeout, interval = 2 * time.Second, 100 * time.Millisecond
	for began := time.Now(); time.Since(began) < timeout; {
		cookie, err := listenOnce()
		if err != nil {
			return fmt.Errorf("listen on a loopback port: %w", err)
		}
		own[cookie] = true
		err = p.ReadFor(interval, func(sample []byte) error {
			if err := decode.Sample(sample, &event); err != nil {
				return err
			}
			// Without the feature socket_cookie the cookie is 0, and any socket will do.
			t := &event.Transition
			if event.Kind == decode.KindTransition && (own[t.Cookie] || t.Cookie == 0) && t.New == tcp.Listen {
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
	return fmt.Errorf("the programs are attached, but did not report within %v that a socket began to listen", timeout)
}

// listenOnce makes one socket listen on a free loopback port, closes it, and returns its
// cookie.
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
