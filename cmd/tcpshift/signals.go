package main

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/tcpshift/tcpshift/internal/trace"
)

// The first signal that ends the process must have ended it after 5 seconds, whatever hangs.
const (
	abandonAfter = 3500 * time.Millisecond // from then on, nothing waits for the output
	exitAfter    = 4300 * time.Millisecond // the process exits without the command's return
	// detachLimit bounds the wait for the kernel to detach the programs at such an exit.
	detachLimit = 300 * time.Millisecond
	// repeatWindow is the time after the first signal in which the same signal is the same
	// request: timeout(1) sends each signal to the process, and then to its group.
	repeatWindow = 100 * time.Millisecond
)

// running is what a command lets the signals do while it runs. Each function may be nil, may be
// called from any goroutine, and must not wait, except for closeLinks.
type running struct {
	reopen     func()        // opens the output file again; nil: SIGHUP ends the process
	abandon    func()        // makes the command return without what is not written
	dump       func()        // makes the flight recorder write a file; nil: there is none
	closeLinks func() error  // detaches the programs
	unwritten  func() string // what the output has not got, for the operator
	// passOn passes a signal on to another process, and reports whether that process is to end;
	// false: the signal ends this process.
	passOn func(s os.Signal) bool
}

// signals handles the signals that end the process or concern its output. It has one command
// at a time.
type signals struct {
	ctx    context.Context // canceled by the first signal that ends the process
	cancel context.CancelCauseFunc

	mu      sync.Mutex
	command *running // nil: the command does not handle signals
}

// handleSignals handles the signals of this process from now on.
func handleSignals() *signals {
	s := &signals{}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	// A reader that closes standard output is a normal end: the write must fail with EPIPE
	// instead of killing the process.
	signal.Ignore(syscall.SIGPIPE)
	// A terminal with `stty tostop` must not stop the process for writing from the background.
	signal.Ignore(syscall.SIGTTOU)
	received := make(chan os.Signal, 8)
	signal.Notify(received, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGUSR1)
	if !signal.Ignored(syscall.SIGHUP) { // nohup(1)
		signal.Notify(received, syscall.SIGHUP)
	}
	go s.run(received)
	return s
}

// handle lets signals end the command in order, until release is called.
func (s *signals) handle(r *running) (release func()) {
	s.set(r)
	return func() { s.set(nil) }
}

func (s *signals) set(r *running) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.command = r
}

func (s *signals) current() *running {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.command
}

func (s *signals) run(received <-chan os.Signal) {
	var first os.Signal
	var at time.Time
	for each := range received {
		command := s.current()
		switch {
		case each == syscall.SIGUSR1:
			dump(command)
		case command == nil: // such as doctor: it has nothing to put in order
			die(each)
		case each == syscall.SIGHUP && first != nil:
			// A shell and the kernel may both send it when a terminal closes.
		case each == syscall.SIGHUP && command.reopen != nil:
			command.reopen()
		case first == nil && command.passOn != nil && command.passOn(each):
		case first == nil:
			first, at = each, time.Now()
			s.cancel(trace.Interrupted{Signal: signalName(each)})
			time.AfterFunc(abandonAfter, s.abandon)
			time.AfterFunc(exitAfter, func() { s.exit(first) })
		case each == first && time.Since(at) < repeatWindow:
		default:
			s.closeLinks()
			die(each)
		}
	}
}

// dump writes the file of the flight recorder, if command has one.
func dump(command *running) {
	if command == nil || command.dump == nil {
		warn("SIGUSR1 has no effect: there is no flight recorder (--recorder)")
		return
	}
	command.dump()
}

func (s *signals) abandon() {
	if command := s.current(); command != nil && command.abandon != nil {
		command.abandon()
	}
}

// exit ends the process although the command has not returned.
func (s *signals) exit(first os.Signal) {
	s.closeLinks()
	message := "stopped by " + signalName(first) + " although something did not end"
	if command := s.current(); command != nil && command.unwritten != nil {
		message += ": " + command.unwritten()
	}
	warn(message)
	notices.Flush(flushLimit)
	os.Exit(statusFailed)
}

// closeLinks detaches the programs explicitly: a thread that hangs in a write keeps the
// descriptors of the process open after its end.
func (s *signals) closeLinks() {
	command := s.current()
	if command == nil || command.closeLinks == nil {
		return
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		_ = command.closeLinks() // the process ends now
	}()
	select {
	case <-closed:
	case <-time.After(detachLimit):
	}
}

// die ends the process as the signal does by default.
func die(s os.Signal) {
	number, _ := s.(syscall.Signal)
	if number != syscall.SIGQUIT { // Go's default for it prints the stacks of all goroutines
		signal.Reset(s)
		_ = syscall.Kill(os.Getpid(), number)
		time.Sleep(100 * time.Millisecond)
	}
	os.Exit(128 + int(number)) // as a shell reports it; process 1 of a namespace comes here
}

func signalName(s os.Signal) string {
	switch s {
	case syscall.SIGINT:
		return "SIGINT"
	case syscall.SIGQUIT:
		return "SIGQUIT"
	case syscall.SIGHUP:
		return "SIGHUP"
	}
	return "SIGTERM"
}
