package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/monitor"
	"github.com/tcpshift/tcpshift/internal/output"
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/trace"
)

// defaultQueueSize holds some 20,000 records.
const defaultQueueSize = 8 << 20

type traceOptions struct {
	filter        filter.Filter
	format        string
	only          []string
	output        string
	duration      time.Duration
	count         uint64
	statsInterval time.Duration
	bufferSize    int
	queueSize     int
	labels        []record.Label
	excludeSelf   bool
	timeWaitEnd   bool
	storm         detect.Config
}

func newTrace() *cobra.Command {
	var opts traceOptions
	cmd := &cobra.Command{
		Use:   "trace",
		Short: "Stream records to standard output until stopped (the default command)",
		Args:  noArguments,
		RunE:  func(cmd *cobra.Command, _ []string) error { return runTrace(cmd.Context(), &opts) },
	}
	addTraceFlags(cmd.Flags(), &opts)
	return cmd
}

func addTraceFlags(flags *pflag.FlagSet, o *traceOptions) {
	flags.SortFlags = false
	o.format = formatNDJSON
	flags.Var(word(&o.format, "FORMAT", parseFormat), "format", "ndjson or text")
	flags.Var(list(&o.only, "TYPE,...", parseRecordType), "only", "record types to write; start and stop always come")
	o.output = "-"
	flags.Var(word(&o.output, "PATH", parsePath), "output", "append to this file; - is standard output")
	flags.Var(word(&o.duration, "D", parseDuration), "duration", "stop after this long, such as 30s; 0 is until stopped")
	flags.Var(word(&o.count, "N", parseCount), "count", "stop after this many transitions")
	o.statsInterval = 10 * time.Second
	flags.Var(word(&o.statsInterval, "D", parseDuration), "stats-interval", "how often stats come; 0 turns them off")
	addSizeFlags(flags, o)
	flags.Var(&labelsValue{labels: &o.labels}, "label", "add this member to every record; may be repeated")
	flags.BoolVar(&o.excludeSelf, "exclude-self", true, "leave out tcpshift's own connections")
	flags.BoolVar(&o.timeWaitEnd, "time-wait-end", false, "also tell when and how each TIME_WAIT ends; costs: while on, it hooks every free of the kernel's memory, host-wide, and every timer")
	addFilterFlags(flags, &o.filter)
	flags.Var(list(&o.filter.OldStates, "STATE,...", filter.ParseState), "old-state", "state that is left, such as SYN_SENT")
	flags.Var(list(&o.filter.NewStates, "STATE,...", filter.ParseState), "new-state", "state that is entered")
	flags.Var(list(&o.filter.Roles, "ROLE,...", filter.ParseRole), "role", "client, server or listener")
	addStormFlags(flags, &o.storm)
}

func addSizeFlags(flags *pflag.FlagSet, o *traceOptions) {
	o.bufferSize, o.queueSize = probe.DefaultBufferSize, defaultQueueSize
	flags.Var(word(&o.bufferSize, "SIZE", parseSize), "buffer-size", "ring buffer, a power of two from 64KiB to 1GiB (default 16MiB)")
	flags.Var(word(&o.queueSize, "SIZE", parseQueueSize), "queue-size", "what may wait for a slow reader, a power of two from 256KiB to 1GiB (default 8MiB)")
}

func addFilterFlags(flags *pflag.FlagSet, f *filter.Filter) {
	flags.Var(list(&f.Ports, "PORT,...", filter.ParsePorts), "port", "local or peer port, or a range such as 8000-8999")
	flags.Var(list(&f.LocalPorts, "PORT,...", filter.ParsePorts), "local-port", "local port or range")
	flags.Var(list(&f.PeerPorts, "PORT,...", filter.ParsePorts), "peer-port", "peer port or range")
	flags.Var(list(&f.Addrs, "CIDR,...", filter.ParseAddr), "addr", "local or peer address or CIDR")
	flags.Var(list(&f.LocalAddrs, "CIDR,...", filter.ParseAddr), "local-addr", "local address or CIDR")
	flags.Var(list(&f.PeerAddrs, "CIDR,...", filter.ParseAddr), "peer-addr", "peer address or CIDR")
	flags.Var(word(&f.Family, "4|6", filter.ParseFamily), "family", "4 or 6; v4-mapped counts as 4")
	flags.Var(list(&f.PIDs, "PID,...", filter.ParsePID), "pid", "process that owns the socket")
	flags.Var(anyByte(&f.Comms, "COMM", filter.ParseComm), "comm", "name of that process, at most 15 bytes; may be repeated")
	flags.Var(list(&f.Netns, "NETNS,...", filter.ParseNetns), "netns", "network namespace: inode, path or pid:N")
	flags.Var(list(&f.Cgroups, "PATH,...", filter.ParseCgroup), "cgroup", "cgroup v2 path, with those below it")
}

func runTrace(ctx context.Context, o *traceOptions) (err error) {
	if err := o.check(); err != nil {
		return err
	}
	out, err := output.Open(ctx, o.output)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	p, err := probe.Open(probe.Options{
		Filter: o.kernelFilter(), BufferSize: o.bufferSize, ExcludeSelf: o.excludeSelf, Ends: o.wants("connection"),
		TimeWaitEnds: o.timeWaitEnd,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	queue := output.NewQueue(out, o.queueSize, tell)
	defer queue.Close()
	cfg := o.config(p, queue)
	if o.wants("alert") {
		w := monitor.New(o.storm)
		defer w.Close()
		cfg.Monitor = w
	}
	return trace.Run(ctx, cfg)
}

func tell(message string) { fmt.Fprintln(os.Stderr, "tcpshift: "+message) }

func (o *traceOptions) config(p *probe.Probe, out trace.Sink) trace.Config {
	return trace.Config{
		Source:        p,
		Sink:          out,
		Encoder:       o.encoder(),
		Start:         startRecord(p.Features()),
		Only:          o.only,
		Duration:      o.duration,
		Count:         o.count,
		StatsInterval: o.statsInterval,
	}
}

// kernelFilter asks for no more than is needed where nothing but alerts is wanted.
func (o *traceOptions) kernelFilter() filter.Filter {
	f := o.filter
	if !o.wants("transition") && !o.wants("connection") && o.wants("alert") {
		needs := detect.Needs()
		f.Transitions = &needs
	}
	return f
}

// check refuses options that contradict each other.
func (o *traceOptions) check() error {
	if o.count > 0 && !o.wants("transition") {
		return usagef("--count: counts transitions, which --only leaves out: add transition to --only, or use --duration")
	}
	return checkLabels(o.labels, o.format)
}

func (o *traceOptions) wants(recordType string) bool {
	return len(o.only) == 0 || slices.Contains(o.only, recordType)
}

func (o *traceOptions) encoder() record.Encoder {
	if o.format == formatText {
		return record.Text{NoTransitions: !o.wants("transition")}
	}
	return record.NewNative(o.labels)
}

func startRecord(features probe.Features) record.Start {
	host, _ := os.Hostname() // on failure empty, and then absent
	s := record.Start{
		Version: buildVersion(),
		Host:    host,
		BootID:  readLine("/proc/sys/kernel/random/boot_id"),
		Kernel:  kernelRelease(),
		Arch:    runtime.GOARCH,
		PID:     os.Getpid(),
	}
	for _, f := range features {
		r := record.Feature{Name: f.Name}
		if f.Err != nil {
			r.Off = f.Err.Error()
		}
		s.Features = append(s.Features, r)
	}
	return s
}

func readLine(path string) string {
	b, _ := os.ReadFile(path)
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}

func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}
