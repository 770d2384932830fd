// Command tcpshift streams every TCP state transition of the host.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tcpshift/tcpshift/internal/output"
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/trace"
)

// What the exit status says; docs/output.md promises them.
const (
	statusFailed = 1 // it began to work and failed
	statusUsage  = 2 // the command line is wrong
	statusHost   = 3 // this host cannot
)

func main() {
	// Without this the runtime dies of SIGPIPE where a closed reader is a normal end.
	signal.Ignore(syscall.SIGPIPE)
	err := run(os.Args[1:])
	if err == nil || readerGone(err) {
		return
	}
	fmt.Fprintln(os.Stderr, "tcpshift: "+oneLine(err))
	os.Exit(status(err))
}

func run(args []string) error {
	ctx, stop := untilSignal()
	defer stop()
	root := newRoot()
	root.SetArgs(args)
	return root.ExecuteContext(ctx)
}

// untilSignal ends its context with the first SIGINT or SIGTERM; the second one
// finds the default action, so that a reader that does not read cannot hold us.
func untilSignal() (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		s := <-signals
		signal.Stop(signals)
		name := "SIGINT"
		if s == syscall.SIGTERM {
			name = "SIGTERM"
		}
		cancel(trace.Interrupted{Signal: name})
	}()
	return ctx, func() { signal.Stop(signals) }
}

func newRoot() *cobra.Command {
	var opts traceOptions
	root := &cobra.Command{
		Use:   "tcpshift",
		Short: "Every TCP state transition of this host, as one line each",
		Long: "tcpshift streams every TCP state transition of this host to standard output, as NDJSON or text.\n" +
			"Without a command it traces.",
		Args:          noArguments,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return runTrace(cmd.Context(), &opts) },
	}
	addTraceFlags(root.Flags(), &opts)
	root.SetFlagErrorFunc(flagError)
	root.AddCommand(newTrace(), newAlerts(), newSnapshot(), newDoctor(), newExplain(), newVersion())
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	makeStrict(root)
	return root
}

// makeStrict makes cobra's own commands refuse the words that they do not know:
// they would print help, as if all had gone well.
func makeStrict(root *cobra.Command) {
	for _, cmd := range root.Commands() {
		switch cmd.Name() {
		case "help":
			cmd.Args = aCommand
		case "completion":
			cmd.Args = neverAShell
			cmd.RunE = neverAShell // without it cobra does not look at Args
			for _, shell := range cmd.Commands() {
				shell.Args = noArguments
			}
		}
	}
}

func aCommand(cmd *cobra.Command, args []string) error {
	if _, rest, err := cmd.Root().Find(args); err != nil || len(rest) > 0 {
		return usagef("unknown command %q: 'tcpshift help' lists those there are", strings.Join(args, " "))
	}
	return nil
}

// neverAShell is for what no subcommand, one for each shell, has taken.
func neverAShell(cmd *cobra.Command, args []string) error {
	shells := make([]string, len(cmd.Commands()))
	for i, shell := range cmd.Commands() {
		shells[i] = shell.Name()
	}
	known := strings.Join(shells, ", ")
	if len(args) == 0 {
		return usagef("completion needs a shell: use %s", known)
	}
	return usagef("%q is no shell: use %s", args[0], known)
}

// usageError is for what the operator can mend on the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasSubCommands() {
		return usagef("unknown command %q: 'tcpshift help' lists those there are", args[0])
	}
	return usagef("unexpected argument %q: '%s' takes flags only", args[0], cmd.CommandPath())
}

// flagError names the flag first, and once.
func flagError(_ *cobra.Command, err error) error {
	var invalid *pflag.InvalidValueError
	var missing *pflag.ValueRequiredError
	var unknown *pflag.NotExistError
	switch {
	case errors.As(err, &invalid):
		return usagef("--%s: %w", invalid.GetFlag().Name, invalid.Unwrap())
	case errors.As(err, &missing):
		return usagef("--%s: needs a value", missing.GetFlag().Name)
	case errors.As(err, &unknown):
		return usagef("%w: 'tcpshift help' lists those there are", err)
	}
	return usageError{err}
}

// readerGone says whether nothing is wrong but that nobody reads on: a normal end.
func readerGone(err error) bool {
	return status(err) == statusFailed && (errors.Is(err, syscall.EPIPE) || errors.Is(err, output.ErrReaderGone))
}

func status(err error) int {
	switch {
	case errors.As(err, new(usageError)):
		return statusUsage
	case errors.As(err, new(*probe.HostError)):
		return statusHost
	}
	return statusFailed
}

func oneLine(err error) string {
	return strings.ReplaceAll(err.Error(), "\n", "; ")
}
