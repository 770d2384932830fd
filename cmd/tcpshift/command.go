package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/command"
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/trace"
)

// commandEnded is the error of a trace whose command has ended with another status than 0.
type commandEnded struct{ status int }

// Error names the command's exit status.
func (e commandEnded) Error() string {
	return fmt.Sprintf("the command ended with status %d", e.status)
}

// commandFailed is the error of a trace that was to run a command and failed itself.
type commandFailed struct{ error }

// Unwrap returns the failure of the trace.
func (e commandFailed) Unwrap() error { return e.error }

// tracedCommand is the command that a trace runs and follows. It is empty if there is none.
type tracedCommand struct {
	args    []string
	ctx     context.Context  // of the trace; canceled by a signal, and at the end of the command
	process *command.Command // nil: it has not been started
	began   atomic.Bool
	ended   atomic.Bool
	done    chan struct{} // closed at its end; then status and err are set
	status  int
	err     error
}

// commandArguments takes the command behind "--".
func commandArguments(o *traceOptions) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch at := cmd.ArgsLenAtDash(); {
		case at > 0 || at < 0 && len(args) > 0:
			return usagef("unexpected argument %q: '%s' takes flags, and a command behind '--'", args[0], cmd.CommandPath())
		case at == 0 && len(args) == 0:
			return usagef("no command behind '--': write '%s -- COMMAND'", cmd.CommandPath())
		}
		o.command.args = args
		return nil
	}
}

// runsCommand reports whether a command line has a command for trace to run, even if the rest of it
// is wrong.
func runsCommand(args []string) bool {
	for i, arg := range args {
		if arg == "--" {
			return i > 0 && i+1 < len(args)
		}
	}
	return false
}

// completeCommand makes a trace with a command follow only the command and its children. Its default output is text
// on standard error, because standard output is the command's.
func (o *traceOptions) completeCommand(flags *pflag.FlagSet) {
	if !o.command.wanted() {
		return
	}
	o.filter.Children = true
	if len(o.outputs) == 0 {
		v := &outputValue{text: stderrPath, name: "standard error", scheme: schemeFile, path: stderrPath, format: formatText}
		if flag := flags.Lookup("format"); flag.Changed {
			v.format = o.format
		}
		o.outputs = []*outputValue{v}
	}
}

func (c *tracedCommand) wanted() bool { return len(c.args) > 0 }

// lockedMemory returns the limit of locked memory that this process has before probe raises it: the command gets it back.
func lockedMemory() (limit unix.Rlimit) {
	_ = unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit) // it does not fail for a known limit
	return limit
}

// start starts the process of the command, which waits for begin. The context that it returns is canceled when the
// command ends. Without a command it returns ctx.
func (c *tracedCommand) start(ctx context.Context, limit unix.Rlimit) (context.Context, error) {
	if !c.wanted() {
		return ctx, nil
	}
	process, err := command.Start(c.args, limit)
	if err != nil {
		return ctx, err
	}
	c.process, c.done = process, make(chan struct{})
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		c.status, c.err = process.Wait()
		c.ended.Store(true)
		close(c.done)
		cancel(trace.CommandEnded{})
	}()
	c.ctx = ctx
	return ctx, nil
}

// begin lets the command begin. The loop calls it.
func (c *tracedCommand) begin() error {
	if c.ctx.Err() != nil {
		return nil // a signal came first
	}
	c.began.Store(true)
	return c.process.Release()
}

// passOn passes SIGTERM and SIGHUP on to the command. It reports whether the command runs and the signal has reached
// it, so that the command is to end by it: SIGINT and SIGQUIT come to it from the terminal. A command that has become
// another user gets a signal only from a process with CAP_KILL.
func (c *tracedCommand) passOn(s os.Signal) bool {
	if c.process == nil || c.ended.Load() {
		return false
	}
	if s == syscall.SIGTERM || s == syscall.SIGHUP {
		if err := c.process.Signal(s); err != nil {
			warn(err.Error())
			return false
		}
	}
	return true
}

// finish waits for the command, and joins its status with the error of the trace. The command runs
// to its end even if the trace has failed.
func (c *tracedCommand) finish(s *signals, err error) error {
	if c.process != nil {
		defer s.handle(&running{passOn: c.passOn})()
		c.process.Cancel()
		<-c.done
		err = errors.Join(err, c.err)
	}
	switch {
	case err != nil && !readerGone(err):
		return commandFailed{err}
	case !c.began.Load() && s.ctx.Err() != nil:
		return commandFailed{fmt.Errorf("stopped by %w before the command began", context.Cause(s.ctx))}
	case !c.began.Load() && c.status == command.StatusFailed:
		return commandFailed{errors.New("the reader of the output went away before the command began")}
	case c.status != 0:
		return commandEnded{c.status}
	}
	return nil
}

// warnUnfollowed reports the processes that were not traced although the command has started them.
func warnUnfollowed(p *probe.Probe) {
	if count, err := p.Unfollowed(); err == nil && count > 0 {
		warn(fmt.Sprintf("%d processes of the command were not traced: too many ran at one time", count))
	}
}
