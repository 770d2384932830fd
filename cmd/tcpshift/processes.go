package main

import (
	"slices"

	"github.com/tcpshift/tcpshift/internal/privilege"
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
