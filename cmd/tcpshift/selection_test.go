package main

import (
	"errors"
	"testing"

	"github.com/tcpshift/tcpshift/internal/probe"
)

// Without cookies a sample is refused with status 3, and nothing else is.
func TestSample_NeedsCookies(t *testing.T) {
	with := probe.Features{{Name: probe.SocketCookie, Remedy: "use Linux 5.15 or later"}}
	without := probe.Features{{Name: probe.SocketCookie, Err: errors.New("the kernel has none"), Remedy: "use Linux 5.15 or later"}}
	var o traceOptions
	if err := o.checkSampling(without); err != nil {
		t.Errorf("no sample: %v", err)
	}
	o.selection.Sample = 10
	if err := o.checkSampling(with); err != nil {
		t.Errorf("with cookies: %v", err)
	}
	err := o.checkSampling(without)
	const want = "--sample: it needs the cookies of sockets: the kernel has none: use Linux 5.15 or later, or leave out --sample"
	if err == nil || err.Error() != want || exitStatus(err) != statusHost {
		t.Errorf("without cookies: %v, status %d; want %s", err, exitStatus(err), want)
	}
}

// A sample is taken in the kernel only if nothing but the sampled records needs the events, and if a reload could
// change it.
func TestSample_InKernel(t *testing.T) {
	config := configFile(t, "only: [connection]\nsample: 1/8\n")
	connections := func(args ...string) []string { return append(args, "--sample", "1/8", "--only", "connection") }
	for _, c := range []struct {
		name string
		args []string
		want uint64
	}{
		{"no sample", []string{"--only", "connection"}, 0},
		{"of all", []string{"--sample", "1/1", "--only", "connection"}, 0},
		{"connections", connections(), 8},
		{"transitions and processes", []string{"--sample", "1/8", "--only", "transition,process,stats"}, 8},
		{"without an observer", connections("--closed-by", "refused", "--pod", "web-0", "--updates", "1s", "--sandbox=false"), 8},
		{"alert by default", []string{"--sample", "1/8"}, 0},
		{"alert", []string{"--sample", "1/8", "--only", "connection,alert"}, 0},
		{"alert of another output", connections("--output", "-", "--output", "/dev/null?only=alert"), 0},
		{"metrics", connections("--metrics-listen", "127.0.0.1:9464"), 0},
		{"metrics that are sent", connections("--metrics-otlp", "otlp://192.0.2.1:4317"), 0},
		{"summary", []string{"--sample", "1/8", "--only", "connection,summary", "--summary", "1s"}, 0},
		{"recorder", connections("--recorder", "64MiB", "--recorder-dir", t.TempDir()), 0},
		{"count", connections("--count", "9"), 0},
		{"live page", connections("--http-listen", "127.0.0.1:9465"), 0},
		{"processes alone", connections("--output", "-", "--output", "/dev/null?only=process"), 0},
		{"configuration", []string{"--config", config}, 8},
		{"sandbox", connections("--sandbox"), 8},
		{"sandbox and configuration", []string{"--config", config, "--sandbox"}, 0},
		{"updates and configuration", []string{"--config", config, "--updates", "1s"}, 0},
	} {
		if got := completed(t, nil, c.args...).options.kernelSample(); got != c.want {
			t.Errorf("%s: the kernel takes a sample of 1/%d, want 1/%d; 1/0 is none", c.name, got, c.want)
		}
	}
	for name, observe := range map[string]func(o *traceOptions){ // no flag of trace turns these on without alerts
		"top": func(o *traceOptions) { o.screen = new(screen) }, "recording": func(o *traceOptions) { o.recording = "new" },
	} {
		o := completed(t, nil, connections()...).options
		observe(o)
		if got := o.kernelSample(); got != 0 {
			t.Errorf("%s: the kernel takes a sample of 1/%d, want none", name, got)
		}
	}
}
