package main

import (
	"slices"

	"github.com/spf13/pflag"

	"github.com/tcpshift/tcpshift/internal/privilege"
	"github.com/tcpshift/tcpshift/internal/process"
	"github.com/tcpshift/tcpshift/internal/record"
)

// wantsProcesses reports whether records have what /proc says of a process: process records, and those of the
// schemas that describe the owner on every record. Without alerts the sandbox lets the process read no file.
func (o *traceOptions) wantsProcesses() bool {
	return o.wants(record.ProcessType) || o.showsProcesses() && (!o.sandbox || o.wants("alert"))
}

// showsProcesses reports whether records are to have what /proc says of a process.
func (o *traceOptions) showsProcesses() bool {
	return o.wants(record.ProcessType) || slices.ContainsFunc(o.outputs, (*outputValue).describesOwners)
}

// describesProcesses reports whether processes are wanted and can be had. It warns if process records cannot.
func (o *traceOptions) describesProcesses() bool {
	switch {
	case !o.wantsProcesses():
		return false
	case o.sandbox && !o.wants("alert"):
		warn("there are no process records: with --sandbox and without alerts it reads no files")
		return false
	case privilege.CheckHostPIDs() != nil: // processFeatures has warned
		return false
	}
	return true
}

// describesOwners reports whether records of the output that name an owner also have what /proc says of its process.
func (v *outputValue) describesOwners() bool {
	return v.format != formatText && record.DescribesOwner(v.schema, v.fields) && (v.wants("transition") || v.wants("connection") || v.wants("alert"))
}

func addProcessFlags(flags *pflag.FlagSet, o *traceOptions) {
	flags.BoolVar(&o.processArgs, "process-args", false, "add the arguments to process records, without those that look like secrets")
	flags.Var(verbatim(&o.processRedact, "REGEXP", process.ParsePattern), "process-redact", "also replace what this regular expression (RE2) matches in the arguments; may be repeated")
}

// checkProcesses rejects flags without effect, and too many patterns.
func (o *traceOptions) checkProcesses() error {
	switch {
	case o.processArgs && !o.showsProcesses():
		return usagef("--process-args: no output has process records, or a schema with processes on every record: use --only with process")
	case len(o.processRedact) > 0 && !o.processArgs:
		return usagef("--process-redact: no record has arguments: use --process-args")
	case len(o.processRedact) > process.MaxPatterns:
		return usagef("--process-redact: there are %d patterns, at most %d are permitted", len(o.processRedact), process.MaxPatterns)
	}
	return nil
}
