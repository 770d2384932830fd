package main

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/monitor"
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/process"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/safeopen"
	"github.com/tcpshift/tcpshift/internal/selection"
	"github.com/tcpshift/tcpshift/internal/summary"
	"github.com/tcpshift/tcpshift/internal/tcp"
	"github.com/tcpshift/tcpshift/internal/threads"
	"github.com/tcpshift/tcpshift/internal/trace"
	"github.com/tcpshift/tcpshift/internal/workload"
)

// defaultQueueSize, in bytes, has room for about 20,000 records.
const defaultQueueSize = 8 << 20

// releaseAfter is the time after which the memory of the start goes back to the kernel. Go would keep it.
const releaseAfter = 2 * time.Second

type traceOptions struct {
	configOptions
	formatOptions
	outputOptions
	filter        filter.Filter
	selection     selection.Selection // of every output
	only          []string            // record types; nil: all but process
	duration      time.Duration
	count         uint64
	statsInterval time.Duration
	bufferSize    int // bytes, of all rings
	queueSize     int // bytes, of each output
	excludeSelf   bool
	timeWaitEnd   bool
	ownerAtRead   bool
	detection     detect.Config
	sandbox       bool
	processArgs   bool
	processRedact []*regexp.Regexp // what is replaced in the arguments besides what looks like a secret
	alertsOnly    bool             // the command alerts
	screen        *screen          // of the command top; nil: there is none
	command       tracedCommand
	summary       time.Duration // the length of a window; 0: no summary
	updates       time.Duration // the interval of updates; 0: none
	metrics       metricsOptions
	recorder      recorderOptions
	page          pageOptions
	recording     string // path of a new file; "": none
}

func newTrace(s *signals) *cobra.Command {
	var opts traceOptions
	cmd := &cobra.Command{
		Use:   "trace [flags] [-- COMMAND [ARG]...]",
		Short: "Write a record for every transition until stopped (the default command)",
		Long: "Write a record for every transition until stopped. With a command behind '--', run it, and trace it and its\n" +
			"children until it ends, with its exit status. The records are text on standard error then, unless there is --output.",
		Args:                  commandArguments(&opts),
		RunE:                  func(*cobra.Command, []string) error { return runConfigured(s, &opts) },
		DisableFlagsInUseLine: true,
	}
	addTraceFlags(cmd.Flags(), &opts)
	return cmd
}

// runConfigured runs a trace with the configuration that its command line selects.
func runConfigured(s *signals, given *traceOptions) error {
	c, err := given.complete()
	if err != nil {
		return err
	}
	o := c.options
	err = runTrace(s, o, newReloader(given, c))
	if o.command.wanted() {
		return o.command.finish(s, err)
	}
	return err
}

// complete joins the command line with its configuration, and checks the result. o stays as it is.
func (o *traceOptions) complete() (*configured, error) {
	c, err := o.configure()
	if err != nil {
		return nil, err
	}
	c.options.command.args = o.command.args
	c.options.completeCommand(c.flags)
	if err := c.check(); err != nil {
		return nil, err
	}
	return c, nil
}

// runTrace runs a trace with options that are complete and checked. r is nil if there is no configuration that
// could be read again.
func runTrace(s *signals, o *traceOptions, r *reloader) (err error) {
	defer s.handle(r.atSIGHUP(&running{}))()
	threads.Reserve()
	locked := lockedMemory()
	outs, err := o.openAll(s.ctx)
	if err != nil {
		return err
	}
	live := &liveOutputs{all: outs}
	defer func() { err = errors.Join(err, live.close()) }()
	also, err := o.openBeside(s.ctx, outs) // before it gives up its privileges, and before the scan of open sockets
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, also.close()) }()
	now := r.atSIGHUP(live.running())
	also.addTo(now)
	s.handle(now)
	p, err := o.openProbe()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	ctx, err := o.command.start(s.ctx, locked) // before it gives up its privileges
	if err != nil {
		return err
	}
	traced := *now
	traced.closeLinks, traced.passOn = o.closeLinks(p), o.command.passOn
	s.handle(&traced)
	cfg := o.config(p, outs)
	ctx, endScreen, err := o.startScreen(ctx, &cfg, p)
	if err != nil {
		return err
	}
	defer endScreen()
	// Before the monitor reads what others control.
	cfg.Start.Features = append(cfg.Start.Features, o.confine(p, outs)...)
	defer o.startBackground(&cfg, p, outs, also)()
	defer reportTo(ctx, &cfg)()
	defer r.serve(ctx, live, &cfg, p)()
	defer warnUnfollowed(p)
	// Loading the programs took ten times the memory that tracing needs.
	defer time.AfterFunc(releaseAfter, debug.FreeOSMemory).Stop()
	return trace.Run(ctx, cfg)
}

// closeLinks returns the function for running.closeLinks: it gives the terminal of a screen back, and detaches the programs.
func (o *traceOptions) closeLinks(p *probe.Probe) func() error {
	return func() error {
		o.screen.restore()
		return p.CloseLinks()
	}
}

// startBackground starts what works beside the loop, and returns a function that ends it.
func (o *traceOptions) startBackground(cfg *trace.Config, p *probe.Probe, outs openOutputs, also *beside) (end func()) {
	cfg.Flight = o.flight(also.flight)
	ends := []func(){
		o.startMonitor(cfg, p, also.recording), o.startServers(cfg, p, outs, also), o.startLookups(cfg), o.startUpdates(cfg, p),
	}
	return func() {
		for _, end := range slices.Backward(ends) {
			end()
		}
	}
}

// startMonitor starts detection, if alerts are wanted, and returns a function that ends it.
func (o *traceOptions) startMonitor(cfg *trace.Config, p *probe.Probe, rec *recording) (end func()) {
	if !o.wants("alert") {
		return func() {}
	}
	m := monitor.New(o.detection, o.filter, rec.engine(cfg), p.BoundPorts, warn)
	cfg.Monitor = m
	if o.screen != nil {
		o.screen.monitor = m
	}
	return m.Close
}

// wantsEnds reports whether anything needs the ends of connections.
func (o *traceOptions) wantsEnds() bool {
	return o.wants("connection") || o.summary > 0 || o.countsSockets() || o.recorder.wanted()
}

// countsSockets reports whether anything needs the number of sockets by state and owner.
func (o *traceOptions) countsSockets() bool { return o.metrics.wanted() || o.screen != nil }

// startLookups starts what reads names and processes in the background, where records need it, and returns a
// function that ends it.
func (o *traceOptions) startLookups(cfg *trace.Config) (end func()) {
	var ends []func()
	if o.wantsNames() {
		names := workload.New()
		cfg.Names, ends = names, append(ends, names.Close)
	}
	if o.describesProcesses() {
		processes := process.New(o.processArgs, o.processRedact)
		cfg.Processes, ends = processes, append(ends, processes.Close)
	}
	return func() {
		for _, end := range ends {
			end()
		}
	}
}

// openProbe loads and attaches the programs. It refuses what this kernel cannot do.
func (o *traceOptions) openProbe() (*probe.Probe, error) {
	p, err := probe.Open(probe.Options{
		Filter: o.kernelFilter(), BufferSize: o.bufferSize, ExcludeSelf: o.excludeSelf, Ends: o.wantsEnds(), Sample: o.kernelSample(),
		TimeWaitEnds: o.timeWaitEnd && o.wants("transition"), Without: o.unwanted(), BoundPorts: o.wants("alert"),
		UpdatesFrom: o.updates, Reloadable: o.mayReloadFilters(),
		StateTimes: o.metrics.wanted(), CountSockets: o.countsSockets(),
	})
	if err != nil {
		return nil, err
	}
	for _, check := range []func(probe.Features) error{o.checkSampling, o.checkLiveUpdates} {
		if err := check(p.Features()); err != nil {
			return nil, errors.Join(err, p.Close())
		}
	}
	return p, nil
}

// wantsNames reports whether records have the names of containers and pods, or are selected by them:
// alerts, which name a service by them, and, except in text, connections, processes, summaries, and all records of
// the other schemas. Without alerts and selections the sandbox lets the process read no file.
func (o *traceOptions) wantsNames() bool {
	if o.wants("alert") || o.selection.ByNames() {
		return true
	}
	return !o.sandbox && slices.ContainsFunc(o.outputs, func(v *outputValue) bool {
		return v.format != formatText && (v.wants("connection") || v.wants(record.ProcessType) || o.summary > 0 || v.schema != record.SchemaNative)
	})
}

// processFeatures returns what this process is permitted to do. It warns where the pids in records
// are not those that the operator sees.
func processFeatures() probe.Features {
	features := probe.DetectProcessFeatures()
	if pids := features.Get(probe.HostPIDs); pids.Err != nil {
		warn(fmt.Sprintf("%v: %s: %s", pids.Err, pids.Cost, pids.Remedy))
	}
	return features
}

// unwanted returns the optional features that are switched off.
func (o *traceOptions) unwanted() []string {
	if o.ownerAtRead {
		return nil
	}
	return []string{probe.ReadHook}
}

func (o *traceOptions) config(p *probe.Probe, outs openOutputs) trace.Config {
	start := startRecord(slices.Concat(p.Features(), processFeatures()))
	cfg := trace.Config{
		Source:        p,
		Outputs:       o.traceOutputs(outs, &start),
		OwnSockets:    o.ownSockets,
		Start:         start,
		Duration:      o.duration,
		Count:         o.count,
		StatsInterval: o.statsInterval,
		ResetReasons:  p.ResetReasons(),
		Notify:        warn,
	}
	if o.summary > 0 {
		cfg.Summary = summary.New(o.summary, time.Now())
	}
	if o.command.wanted() {
		cfg.Started = o.command.begin
	}
	return cfg
}

// kernelFilter returns the filter for the kernel: the user's, and which transitions are needed if
// none is written. Connection records, summaries and process records need the ends of sockets; detection, metrics and
// counts of sockets need their own sets; other records need none. The flight recorder and --count take all.
func (o *traceOptions) kernelFilter() filter.Filter {
	f := o.filter
	if o.wants("transition") || o.recorder.wanted() || o.count > 0 { // --count counts what no output writes, too
		return f
	}
	var needed tcp.Transitions
	if o.wantsEnds() {
		needed.Join(tcp.EndTransitions())
	}
	if o.wants("alert") {
		needed.Join(detect.Needs())
	}
	o.metrics.addMetricsTransitions(&needed)
	if o.countsSockets() {
		needed.Add([]tcp.State{0}, tcp.States()) // sockets that are counted make no transition: see bpf/dump.h
	}
	if o.wantsAllOwners() {
		needed.Join(tcp.EndTransitions())
		needed.Add(tcp.States(), []tcp.State{tcp.Established, tcp.Listen})
	}
	f.Transitions, f.ExcludeOrphanFinWait2 = &needed, true // detection needs no others to FIN_WAIT2
	return f
}

// check rejects flags that contradict each other.
func (o *traceOptions) check() error {
	o.completeOutputs()
	if err := o.checkOutputs(); err != nil {
		return err
	}
	if err := o.checkSelection(); err != nil {
		return err
	}
	if err := errors.Join(o.checkSummary(), o.checkMetrics(), o.checkRecording(), o.recorder.check(), o.page.check()); err != nil {
		return err
	}
	if err := o.checkUpdates(); err != nil {
		return err
	}
	if err := o.checkProcesses(); err != nil {
		return err
	}
	ndjson, text := o.wantsFormat(formatNDJSON), o.wantsFormat(formatText)
	return o.formatOptions.check(ndjson, text)
}

// checkSummary rejects --summary if no output has its records, and their choice without it.
func (o *traceOptions) checkSummary() error {
	chosen := slices.ContainsFunc(o.outputs, func(v *outputValue) bool { return slices.Contains(v.only, "summary") })
	switch {
	case o.summary > 0 && !o.wants("summary"):
		return usagef("--summary: no output has summary records: add summary to --only")
	case o.summary == 0 && chosen:
		return usagef("--only: summary records need a window: add --summary, such as --summary 1m")
	}
	return nil
}

func startRecord(features probe.Features) record.Start {
	host, _ := os.Hostname() // empty on failure: the record then has no host
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
			r.OffReason = f.Err.Error()
		}
		s.Features = append(s.Features, r)
	}
	return s
}

// readLine returns the first line of a file, or "" if it cannot be read.
func readLine(path string) string {
	b, _ := safeopen.ReadFile(path)
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}

// kernelRelease returns what uname -r prints, or "" on failure.
func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}
