// Command tcpshift streams every TCP state transition of the host.
package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/command"
	"github.com/tcpshift/tcpshift/internal/output"
	"github.com/tcpshift/tcpshift/internal/probe"
)

// Exit statuses, as docs/output.md promises them.
const (
	statusFailed = 1 // tcpshift started to work and failed
	statusUsage  = 2 // the command line or the configuration is wrong
	statusHost   = 3 // this host lacks a requirement
)

// flushLimit bounds the wait for the reader of standard error at the end, after a signal.
const flushLimit = 300 * time.Millisecond

// notices writes the messages for the operator to standard error.
var notices = output.NewNotices(unix.Stderr)

// warn writes a message for the operator, on the screen of top if there is one. It does not wait for standard error.
func warn(message string) {
	if s := onScreen.Load(); s != nil {
		s.message(message)
		return
	}
	notices.Add(message)
}

func main() {
	command.Main()
	s := handleSignals()
	err := run(s, os.Args[1:])
	if err != nil && !readerGone(err) && !errors.As(err, new(commandEnded)) {
		for _, message := range messages(err) {
			warn(message)
		}
	}
	limit := flushLimit
	if s.ctx.Err() == nil {
		limit = 5 * time.Second // no signal: the reader may be slow
	}
	notices.Flush(limit)
	if err != nil && !readerGone(err) {
		os.Exit(exitStatus(err))
	}
}

func run(s *signals, args []string) error {
	root := newRoot(s)
	root.SetArgs(args)
	root.SetOut(output.NewBlockingWriter(unix.Stdout, os.Stdout.Name()))
	err := root.ExecuteContext(s.ctx)
	if errors.As(err, new(usageError)) && runsCommand(args) {
		err = commandFailed{err}
	}
	return err
}

func newRoot(s *signals) *cobra.Command {
	var opts traceOptions
	root := &cobra.Command{
		Use:   "tcpshift",
		Short: "Trace every TCP state transition of this host, one line each",
		Long: "tcpshift traces every TCP state transition of this host and writes one line for each, as NDJSON or text.\n" +
			"Without a command it runs trace.",
		Args:          noArguments,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          func(*cobra.Command, []string) error { return runConfigured(s, &opts) },
	}
	addTraceFlags(root.Flags(), &opts)
	root.SetFlagErrorFunc(flagError)
	root.AddCommand(newTrace(s), newAlerts(s), newTop(s), newSnapshot(s), newReplay(s), newDoctor(), newExplain(), newReport(), newConfig(), newVersion())
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	makeStrict(root)
	return root
}

// makeStrict makes cobra's own commands fail for arguments that they do not know.
// By default they print help and succeed.
func makeStrict(root *cobra.Command) {
	for _, cmd := range root.Commands() {
		switch cmd.Name() {
		case "help":
			cmd.Args = knownCommand
		case "completion":
			cmd.Args = unknownShell
			cmd.RunE = unknownShell // cobra checks Args only of a command that runs
			for _, shell := range cmd.Commands() {
				shell.Args = noArguments
			}
		}
	}
}

// knownCommand accepts the name of a command.
func knownCommand(cmd *cobra.Command, args []string) error {
	if _, rest, err := cmd.Root().Find(args); err != nil || len(rest) > 0 {
		return usagef("unknown command %q: "+helpHint, strings.Join(args, " "))
	}
	return nil
}

// unknownShell always fails: each known shell is a subcommand, which cobra finds first.
func unknownShell(cmd *cobra.Command, args []string) error {
	shells := make([]string, len(cmd.Commands()))
	for i, shell := range cmd.Commands() {
		shells[i] = shell.Name()
	}
	known := strings.Join(shells, ", ")
	if len(args) == 0 {
		return usagef("completion needs a shell: use %s", known)
	}
	return usagef("%q is not a supported shell: use %s", args[0], known)
}

// helpHint ends the errors about an unknown name.
const helpHint = "run 'tcpshift help' for a list"

// usageError is a mistake on the command line or in the configuration.
type usageError struct{ error }

// Unwrap is the mistake itself.
func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasSubCommands() {
		return usagef("unknown command %q: "+helpHint, args[0])
	}
	return usagef("unexpected argument %q: '%s' takes flags only", args[0], cmd.CommandPath())
}

// flagError rewrites an error of pflag so that it begins with the flag's name.
func flagError(cmd *cobra.Command, err error) error {
	var invalid *pflag.InvalidValueError
	var missing *pflag.ValueRequiredError
	var unknown *pflag.NotExistError
	switch {
	case errors.As(err, &invalid):
		return usagef("--%s: %w", invalid.GetFlag().Name, invalid.Unwrap())
	case errors.As(err, &missing):
		return usagef("--%s: needs a value", missing.GetFlag().Name)
	case errors.As(err, &unknown):
		if cmd.HasParent() && cmd.Name() != "trace" { // it has other flags than those of 'tcpshift help'
			return usagef("%w: run 'tcpshift help%s' for a list", err, strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()))
		}
		return usagef("%w: "+helpHint, err)
	}
	return usageError{err}
}

// readerGone reports whether the only failure is that the reader closed the output,
// which is a normal end. It is false if another error is joined with that one, which
// errors.Is alone does not show.
func readerGone(err error) bool {
	switch e := err.(type) { //nolint:errorlint // each error of the tree is looked at
	case interface{ Unwrap() []error }:
		return !slices.ContainsFunc(e.Unwrap(), func(part error) bool { return !readerGone(part) })
	case interface{ Unwrap() error }:
		return readerGone(e.Unwrap())
	}
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, output.ErrReaderGone)
}

func exitStatus(err error) int {
	var ended commandEnded
	switch {
	case errors.As(err, new(commandFailed)):
		return command.StatusFailed
	case errors.As(err, &ended):
		return ended.status
	case errors.As(err, new(usageError)):
		return statusUsage
	case errors.As(err, new(*probe.HostError)):
		return statusHost
	}
	return statusFailed
}
