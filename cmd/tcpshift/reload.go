package main

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/config"
	"github.com/tcpshift/tcpshift/internal/monitor"
	"github.com/tcpshift/tcpshift/internal/output"
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/trace"
)

// reloadLimit bounds the time in which a reload opens the outputs that are new.
const reloadLimit = 5 * time.Second

// reloader changes the configuration of a trace that runs, at SIGHUP.
type reloader struct {
	given   *traceOptions // the command line
	current *configured
	outs    *liveOutputs
	start   *record.Start
	wake    func()

	probe       *probe.Probe
	features    probe.Features // what this kernel has
	hostReaders hostReaders    // with the filter in use

	requests chan struct{}
	reloads  chan *trace.Reload
}

// newReloader returns a reloader, or nil if the command line names no configuration.
func newReloader(given *traceOptions, current *configured) *reloader {
	if !given.isConfigured() {
		return nil
	}
	return &reloader{given: given, current: current, requests: make(chan struct{}, 1), reloads: make(chan *trace.Reload)}
}

// atSIGHUP sets what SIGHUP does to a request for a reload, if there is a configuration. It returns now.
func (r *reloader) atSIGHUP(now *running) *running {
	if r != nil {
		now.reopen = r.request
	}
	return now
}

// serve starts a goroutine that reloads the configuration of the trace that cfg describes at each request. end ends that
// goroutine and waits for it. Without a configuration, serve does nothing.
func (r *reloader) serve(ctx context.Context, outs *liveOutputs, cfg *trace.Config, p *probe.Probe) (end func()) {
	if r == nil {
		return func() {}
	}
	r.outs, r.start, r.wake, r.probe, r.features = outs, &cfg.Start, cfg.Source.Wake, p, p.Features()
	r.hostReaders.monitor, _ = cfg.Monitor.(*monitor.Monitor)
	r.hostReaders.counter, _ = cfg.SocketCounts.(*monitor.SocketCounter)
	cfg.Reloads = r.reloads
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.run(ctx)
	}()
	return func() {
		cancel()
		<-ended
		r.hostReaders.close()
	}
}

// request asks for a reload, and does not wait. Requests that come before the reload begins count as one.
func (r *reloader) request() {
	select {
	case r.requests <- struct{}{}:
	default:
	}
}

// run serves requests until ctx is done.
func (r *reloader) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.requests:
		}
		if serviceSocket() != "" {
			notifyService(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, monotonicMicroseconds()))
		}
		if err := r.reload(ctx); err != nil {
			for _, message := range messages(err) {
				warn("reload: " + message + ": the configuration in use stays")
			}
		}
		r.outs.get().reopen()
		if serviceSocket() != "" {
			notifyService(daemon.SdNotifyReady)
		}
	}
}

// monotonicMicroseconds returns CLOCK_MONOTONIC in the unit of sd_notify's MONOTONIC_USEC.
func monotonicMicroseconds() int64 {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // it cannot fail
	return now.Nano() / 1000
}

// reload reads the configuration, and changes the trace if the configuration is valid and needs no restart. After an error
// the trace is as before.
func (r *reloader) reload(ctx context.Context) error {
	next, err := r.given.complete()
	if err != nil {
		return err
	}
	changed := changedKeys(r.current.settings, next.settings)
	if len(changed) == 0 {
		return nil
	}
	for _, check := range []func() error{
		func() error { return r.needsRestart(next, changed) },
		func() error { return next.options.checkSampling(r.features) },
		r.outs.checkRetired,
	} {
		if err := check(); err != nil {
			return err
		}
	}
	filters, err := r.prepareFilter(next)
	if err != nil {
		return fmt.Errorf("%s: %w", strings.Join(changed, ", "), err)
	}
	defer filters.close()
	ctx, cancel := context.WithTimeout(ctx, reloadLimit)
	defer cancel()
	all, err := r.open(ctx, next)
	if err != nil {
		return err
	}
	o := next.options
	same := func(a, b *queuedOutput) bool { return a.queue == b.queue }
	if o.metrics.wanted() && !slices.EqualFunc(r.outs.get(), all, same) {
		return errors.Join(errors.New(keyOutputs+": with metrics another set of outputs needs a restart"), r.closeNew(all))
	}
	outputs := slices.DeleteFunc(o.traceOutputs(all, r.start), func(out trace.Output) bool { return out.Sink.Err() != nil })
	change := &trace.Reload{
		Outputs: outputs, OwnSockets: o.ownSockets, StatsInterval: o.statsInterval,
		Changed: changed, Done: make(chan struct{}),
	}
	if m := r.hostReaders.monitor; m != nil {
		change.Apply = func() { m.SetThresholds(o.detection) }
	}
	filters.addTo(change)
	if err := r.send(ctx, change); err != nil {
		return errors.Join(err, r.closeNew(all))
	}
	filters.finish()
	r.rotate(next, all)
	r.outs.replace(all, warn)
	r.current = next
	warn("reload: changed " + strings.Join(changed, ", "))
	return nil
}

// send hands a change to the loop, and waits until that has made it.
func (r *reloader) send(ctx context.Context, change *trace.Reload) error {
	for {
		r.wake()
		select {
		case r.reloads <- change:
			<-change.Done
			return change.Err
		case <-ctx.Done():
			return errors.New("the trace did not take over the change in time: " + context.Cause(ctx).Error())
		case <-time.After(100 * time.Millisecond): // the wake-up came before the loop slept: wake it again
		}
	}
}

// changedKeys returns the keys whose values differ.
func changedKeys(before, now config.Layer) (keys []string) {
	values := func(l config.Layer, key string) string {
		s, _ := l.Get(key)
		return s.Text()
	}
	for _, s := range slices.Concat(before, now) {
		if !slices.Contains(keys, s.Key) && values(before, s.Key) != values(now, s.Key) {
			keys = append(keys, s.Key)
		}
	}
	return keys
}

// restartKeys are the keys that a running trace cannot change.
var restartKeys = []string{
	"exclude-self", "owner-at-read", "time-wait-end", "buffer-size", "sandbox", "spool", "spool-size", "output-follow",
	"process-args", "process-redact", "summary", "updates", "duration", "count", "metrics-listen", "metrics-web-config",
	"metrics-otlp", "recording", "recorder", "recorder-dir", "http-listen", "http-token-file",
}

// needsRestart returns an error if a trace that runs cannot become the next one: it cannot change what the kernel
// programs emit, nor get back what it has given up.
func (r *reloader) needsRestart(next *configured, changed []string) error {
	var keys []string
	for _, key := range changed {
		if slices.Contains(restartKeys, key) {
			keys = append(keys, key)
		}
	}
	before, now := r.current.options, next.options
	switch {
	case len(keys) > 0:
		return fmt.Errorf("%s: needs a restart", strings.Join(keys, ", "))
	case !reflect.DeepEqual(before.filter, now.filter) && !before.mayReloadFilters():
		return fmt.Errorf("%s: the filters of the kernel programs need a restart, %s", strings.Join(changed, ", "), before.fixedFiltersReason())
	case !reflect.DeepEqual(before.kernelFilter().Transitions, now.kernelFilter().Transitions) || before.wantsEnds() != now.wantsEnds():
		return fmt.Errorf("%s: other types of records are wanted, which needs a restart", strings.Join(changed, ", "))
	case before.wants("alert") != now.wants("alert"), before.wants(record.ProcessType) != now.wants(record.ProcessType), !before.wantsProcesses() && now.wantsProcesses(), !before.wantsNames() && now.wantsNames():
		return fmt.Errorf("%s: alerts, processes and names need a restart", strings.Join(changed, ", "))
	}
	return nil
}

// open returns the outputs of the next configuration: those that stay, and new ones.
func (r *reloader) open(ctx context.Context, next *configured) (all openOutputs, err error) {
	o := next.options
	if before := r.current.options.ownSockets; before != nil {
		o.ownSockets = before
	}
	closeRoot, err := o.spool.open(ctx)
	if err != nil {
		return nil, err
	}
	defer closeRoot()
	for _, v := range o.outputs {
		each, err := r.kept(v)
		if each == nil && err == nil {
			each, err = r.openNew(ctx, o, v, all)
		}
		if err != nil {
			return nil, errors.Join(err, r.closeNew(all))
		}
		all = append(all, each)
	}
	return all, nil
}

// kept returns the running output with the target of v, with the types, keys and rotation of v; nil: there is none. It
// fails if v differs from that output in anything else.
func (r *reloader) kept(v *outputValue) (*queuedOutput, error) {
	running := r.outs.get()
	at := slices.IndexFunc(running, func(each *queuedOutput) bool { return each.targetID() != "" && each.targetID() == v.targetID() })
	if at < 0 || running[at].queue.Err() != nil && r.beginsAgain() {
		return nil, nil
	}
	before := running[at]
	if !reflect.DeepEqual(before.fixed(), v.fixed()) {
		return nil, fmt.Errorf("%s: %s: only the types, keys and limits of rotation of an output can change: the rest needs a restart", keyOutputs, v.text)
	}
	return &queuedOutput{v, before.out, before.queue}, nil
}

// beginsAgain reports whether a reload opens an output again that has failed. With --sandbox or metrics it does not: the
// sandbox does not permit opening it, and metrics have the queues of the start. The failed output then stays as it is.
func (r *reloader) beginsAgain() bool {
	o := r.current.options
	return !o.sandbox && !o.metrics.wanted()
}

// fixed returns v without what a reload can change: its types, its keys and the limits of its rotation.
func (v *outputValue) fixed() outputValue {
	f := *v
	f.text, f.only, f.fields, f.given = "", nil, nil, nil
	f.rotate = rotation{}
	if v.rotate.wanted() {
		f.rotate.size = 1
	}
	return f
}

// openNew opens an output that is not running, once a retired output with the same target is closed.
func (r *reloader) openNew(ctx context.Context, o *traceOptions, v *outputValue, others openOutputs) (*queuedOutput, error) {
	if o.sandbox {
		return nil, fmt.Errorf("%s: %s: a new output needs a restart: --sandbox does not permit opening it", keyOutputs, v.text)
	}
	if err := r.outs.awaitClosed(ctx, v); err != nil {
		return nil, err
	}
	return o.openOne(ctx, v, others)
}

// closeNew closes the outputs of all that are not running.
func (r *reloader) closeNew(all openOutputs) error {
	running := r.outs.get()
	return slices.DeleteFunc(all, running.has).close()
}

// rotate changes the rotation of the outputs that stay.
func (r *reloader) rotate(next *configured, all openOutputs) {
	for _, each := range all {
		if each.rotate.wanted() {
			output.ChangeRotation(each.out, next.options.rotationOf(each.outputValue))
		}
	}
}
