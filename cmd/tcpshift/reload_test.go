package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/tcpshift/tcpshift/internal/probe"
)

// given reads a command line of trace.
func given(t *testing.T, args ...string) *traceOptions {
	t.Helper()
	var o traceOptions
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	addTraceFlags(flags, &o)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return &o
}

// completed reads a command line of trace with its configuration, as a run and a reload do.
func completed(t *testing.T, command []string, args ...string) *configured {
	t.Helper()
	o := given(t, args...)
	o.command.args = command
	c, err := o.complete()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A running trace does not pretend to have changed how metrics are served and sent.
func TestReload_MetricsNeedRestart(t *testing.T) {
	const before = "metrics-listen: 127.0.0.1:9464\n"
	r := &reloader{current: completed(t, nil, "--config", configFile(t, before))}
	for _, changed := range []string{"metrics-listen: 127.0.0.1:9465\n", before + "metrics-web-config: web.yml\n", before + "metrics-otlp: otlp://192.0.2.1:4317\n"} {
		next := completed(t, nil, "--config", configFile(t, changed))
		keys := changedKeys(r.current.settings, next.settings)
		if err := r.needsRestart(next, keys); err == nil || !strings.HasSuffix(err.Error(), ": needs a restart") {
			t.Errorf("%q: got %v, want that it needs a restart", changed, err)
		}
	}
}

// Where sockets have no cookies, a reload that adds a sample is refused as such a start is.
func TestReload_SampleNeedsCookies(t *testing.T) {
	for _, problem := range []error{nil, errors.New("refused by this kernel")} {
		r := &reloader{given: given(t, "--config", configFile(t, "sample: 1/8\n")), current: completed(t, nil, "--config", configFile(t, "resets: 5\n")), outs: &liveOutputs{}}
		r.wake = func() {}
		r.features = probe.Features{{Name: probe.SocketCookie, Err: problem, Remedy: "use Linux 5.12 or later"}}
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // there is no loop that takes the change
		err := r.reload(ctx)
		const want = "--sample: it needs the cookies of sockets: refused by this kernel: use Linux 5.12 or later, or leave out --sample"
		if is := err != nil && err.Error() == want; is != (problem != nil) {
			t.Errorf("with the cookies' error %v a reload ends with %v", problem, err)
		}
	}
}

// With a command, too, a reload compares like with like: the trace follows the command's children and writes text to
// standard error.
func TestReload_WithCommand(t *testing.T) {
	command := []string{"true"}
	r := &reloader{current: completed(t, command, "--config", configFile(t, "stats-interval: 1s\n"))}
	next := completed(t, command, "--config", configFile(t, "stats-interval: 2s\n"))
	keys := changedKeys(r.current.settings, next.settings)
	if err := r.needsRestart(next, keys); err != nil || !slices.Equal(keys, []string{"stats-interval"}) {
		t.Errorf("%v have changed, and a reload fails: %v", keys, err)
	}
	if a, b := r.current.options.outputs[0], next.options.outputs[0]; len(next.options.outputs) != 1 || a.targetID() != b.targetID() || a.format != b.format {
		t.Errorf("the output is %+v, and then %+v", a, b)
	}
}
