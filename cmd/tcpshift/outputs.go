package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tcpshift/tcpshift/internal/output"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/trace"
)

// openOutputs are the outputs of a trace, each with its queue.
type openOutputs []*queuedOutput

type queuedOutput struct {
	*outputValue
	out   output.Output
	queue *output.Queue
}

// completeOutputs sets, for each output, what its options leave to the flags. Without --output there is one
// output, to standard output. The live page is one more.
func (o *traceOptions) completeOutputs() {
	if len(o.outputs) == 0 {
		o.outputs = []*outputValue{{text: "-", name: "-", scheme: schemeStdout, path: "-"}}
	}
	if o.page.wanted() && !slices.ContainsFunc(o.outputs, func(v *outputValue) bool { return v.scheme == schemePage }) {
		o.outputs = append(o.outputs, o.page.output())
	}
	for _, v := range o.outputs {
		if v.format == "" {
			v.format = o.format
		}
		if v.schema == "" {
			v.schema = cmp.Or(o.schema, record.SchemaNative)
		}
		if v.only == nil {
			v.only = o.only
		}
		if v.fields == nil && v.format != formatText && v.scheme != schemePage {
			v.fields = o.fields
		}
		if v.isTCP() && o.excludeSelf && o.ownSockets == nil {
			o.ownSockets = new(output.OwnSockets)
		}
		if v.queueSize == 0 {
			v.queueSize = o.queueSize
		}
	}
}

// checkOutputs rejects options that contradict each other. completeOutputs must have been called.
func (o *traceOptions) checkOutputs() error {
	targets, names := make(map[string]*outputValue), make(map[string]*outputValue)
	for _, v := range o.outputs {
		switch before, named := targets[v.targetID()], names[v.name]; {
		case before != nil && v.targetID() != "":
			return usagef("--output: %s and %s are the same: use one of them", before.text, v.text)
		case named != nil && slices.Contains(v.given, "name"):
			return usagef("--output: %s and %s have the same name: choose another", named.text, v.text)
		case o.alertsOnly && slices.Contains(v.given, "only"):
			return usagef("--output: %s: only: the command alerts writes alerts only: use the command trace", v.text)
		case v.format == formatText && slices.Contains(v.given, "host"):
			return usagef("--output: %s: host: --format text has no keys: use format=ndjson", v.text)
		case v.format == formatText && slices.Contains(v.given, "fields"):
			return usagef("--output: %s: fields: --format text has no keys: use format=ndjson", v.text)
		case v.format == formatText && slices.Contains(v.given, "schema"):
			return usagef("--output: %s: schema: --format text has none: use format=ndjson", v.text)
		}
		if err := o.checkFieldsOf(v); err != nil {
			return err
		}
		targets[v.targetID()], names[v.name] = v, v
	}
	return o.spool.check(o.outputs)
}

func (o *traceOptions) checkFieldsOf(v *outputValue) error {
	flag := "--fields"
	if slices.Contains(v.given, "fields") {
		flag = "--output: " + v.text + ": fields"
	}
	return checkFields(flag, v.schema, o.labels, v.fields)
}

// openAll opens all outputs and starts their queues. If one fails, it closes those that it has opened.
func (o *traceOptions) openAll(ctx context.Context) (all openOutputs, err error) {
	closeRoot, err := o.spool.open(ctx)
	if err != nil {
		return nil, err
	}
	defer closeRoot()
	for _, message := range o.spool.left(ctx, o.outputs) {
		warn(message)
	}
	for _, v := range o.outputs {
		each, err := o.openOne(ctx, v, all)
		if err != nil {
			return nil, errors.Join(err, all.close())
		}
		all = append(all, each)
	}
	return all, nil
}

// openOne opens an output and starts its queue. It refuses a file that is among others.
func (o *traceOptions) openOne(ctx context.Context, v *outputValue, others openOutputs) (*queuedOutput, error) {
	var out output.Output
	var err error
	switch {
	case v.scheme == schemePage:
		out = newPageOutput()
	case v.isRemote():
		out, err = openRemote(ctx, v, o.spool.of(v), o.ownSockets, o.notifierFor(v))
	default:
		out, err = openOutput(ctx, v, o.follow)
	}
	if err == nil && v.rotate.wanted() {
		out, err = o.rotated(out, v)
	}
	if err != nil {
		return nil, err
	}
	for _, other := range others {
		if output.Same(other.out, out) {
			err := usagef("--output: %s and %s are the same file: use one of them", other.text, v.text)
			return nil, errors.Join(err, out.Close())
		}
	}
	if !o.follow {
		warnReplaceable(v, out)
	}
	return &queuedOutput{v, out, output.NewQueue(out, v.queueSize, o.notifierFor(v))}, nil
}

// notifierFor passes on the messages of an output, with its name where there are several.
func (o *traceOptions) notifierFor(v *outputValue) func(message string) {
	if len(o.outputs) == 1 {
		return warn
	}
	return func(message string) { warn(v.name + ": " + message) }
}

// close ends the queues, and closes the outputs. An output whose queue still waits in a write stays open.
func (all openOutputs) close() error {
	var errs []error
	for _, each := range all {
		if each.queue.Close() {
			errs = append(errs, each.out.Close())
		}
	}
	return errors.Join(errs...)
}

func (all openOutputs) abandon() {
	for _, each := range all {
		each.queue.Abandon()
	}
}

// reopens reports whether an output is a file that can be opened again.
func (all openOutputs) reopens() bool {
	return slices.ContainsFunc(all, func(each *queuedOutput) bool { return each.out.Reopens() })
}

func (all openOutputs) reopen() {
	for _, each := range all {
		if each.out.Reopens() {
			each.queue.Reopen()
		}
	}
}

// unwritten is a message about the bytes that the outputs have not written.
func (all openOutputs) unwritten() string {
	if len(all) == 1 {
		return fmt.Sprintf("%d bytes of output were not written", all[0].queue.Waiting())
	}
	var parts []string
	for _, each := range all {
		if size := each.queue.Waiting(); size > 0 {
			parts = append(parts, fmt.Sprintf("%d bytes of output to %s were not written", size, each.name))
		}
	}
	return strings.Join(parts, ", ")
}

// maxKept is how many bytes all outputs keep at most: their queues, and what outputs to sockets may send again.
func (all openOutputs) maxKept() (sum int64) {
	for _, each := range all {
		sum += int64(each.queueSize)
		if each.isRemote() {
			sum += output.RemoteKept
		}
	}
	return sum
}

// traceOutputs are the outputs for the loop. Outputs of NDJSON with the same schema and keys share
// their encoder, so that their lines are encoded once.
func (o *traceOptions) traceOutputs(all openOutputs, start *record.Start) (outs []trace.Output) {
	type kind struct {
		format string
		schema record.Schema
		host   bool
		fields string
	}
	shared := make(map[kind]record.Encoder)
	metricsNames := all.metricsNames()
	for i, each := range all {
		fields := slices.Compact(slices.Sorted(slices.Values(each.fields)))
		k := kind{each.format, each.schema, each.host, strings.Join(fields, ",")}
		enc := shared[k]
		if enc == nil {
			enc = o.encoder(each.outputValue, start)
		}
		if each.format != formatText { // text depends on the types and the terminal; equal values are shared
			shared[k] = enc
		}
		out := trace.Output{Sink: each.queue, Encoder: enc, Only: each.only, Selection: o.selection.OrNil(), MetricsName: metricsNames[i]}
		if each.scheme == schemePage {
			out.Selection = nil
		}
		if len(all) > 1 {
			out.Name = each.name
		}
		outs = append(outs, out)
	}
	return outs
}

// encoder returns the encoder of an output.
func (o *traceOptions) encoder(v *outputValue, start *record.Start) record.Encoder {
	enc := newEncoder(v.format, v.schema, o.labels, v.fields, o.textFor(v))
	if named, can := enc.(record.OriginEncoder); can && v.host {
		named.AddOrigin(start.Host, start.BootID)
	}
	if sampling, can := enc.(record.SamplingEncoder); can && o.selection.Sample > 1 {
		sampling.SetSample(o.selection.Sample)
	}
	return enc
}

// textFor returns the encoder of an output whose format is text.
func (o *traceOptions) textFor(v *outputValue) record.Text {
	text := textEncoder(o.color, v.path)
	text.NoTransitions, text.NoConnections = !v.wants("transition"), !v.wants("connection")
	return text
}

// wants reports whether the output writes this type of record.
func (v *outputValue) wants(recordType string) bool {
	return len(v.only) == 0 && recordType != record.ProcessType || slices.Contains(v.only, recordType)
}

// wantsAllOwners reports whether an output writes process records and no others about connections: it describes
// all owners.
func (o *traceOptions) wantsAllOwners() bool {
	return slices.ContainsFunc(o.outputs, func(v *outputValue) bool {
		return v.wants(record.ProcessType) && !v.wants("transition") && !v.wants("connection") && !v.wants("alert")
	})
}

// wants reports whether any output writes this type of record.
func (o *traceOptions) wants(recordType string) bool {
	return slices.ContainsFunc(o.outputs, func(v *outputValue) bool { return v.wants(recordType) })
}

// wantsFormat reports whether any output has this format.
func (o *traceOptions) wantsFormat(format string) bool {
	return slices.ContainsFunc(o.outputs, func(v *outputValue) bool { return v.format == format })
}
