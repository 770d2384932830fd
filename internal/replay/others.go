package replay

import (
	"github.com/tcpshift/tcpshift/internal/recording"
)

// others counts what shows that a stream of records is not one run of one host.
type others struct {
	setBack uint64       // how often a record was more than maxDisorder older than those before it
	foreign uint64       // records of other hosts than the first
	host    hostIdentity // of the first record that names a host
	isOther bool         // the last start record is of another host
}

// hostIdentity is what a record says about its host; empty: nothing.
type hostIdentity struct{ host, bootID string }

// SetBack returns how often the time of the records went back by more than ten seconds: the wall clock was set back, or files
// are not in order.
func (r *Records) SetBack() uint64 { return r.setBack }

// OfOtherHosts returns how many records are of other hosts than the first one. The engine and Watch do not get them, because
// namespaces of two hosts may have the same numbers, and their ports are not the same ports.
func (r *Records) OfOtherHosts() uint64 { return r.foreign }

// isOfOtherHost reports whether a record is of another host than the first, and counts it. A record that names no host is of
// the host of the start record before it. Two records are of one host if they have the same name, as after a restart, or the
// same boot id, as after a rename.
func (o *others) isOfOtherHost(rec *recording.Record) bool {
	of, isOther := hostIdentity{rec.Host, rec.BootID}, o.isOther
	if of != (hostIdentity{}) {
		if o.host == (hostIdentity{}) {
			o.host = of
		}
		isOther = of.host != o.host.host && of.bootID != o.host.bootID
		if rec.Type == "start" {
			o.isOther = isOther
		}
	}
	if isOther {
		o.foreign++
	}
	return isOther
}

// takeOfOtherHost passes a record of another host to Event only.
func (r *Records) takeOfOtherHost(rec *recording.Record) error {
	switch rec.Type {
	case "transition":
		t, known := r.transition(rec)
		if !known {
			return nil
		}
		if r.last = t; r.passes(r.forFilter(&t, rec)) {
			return r.event(&t, nil)
		}
	case "connection":
		if t, c := r.connectionOf(rec); r.connectionPasses(rec, &t, &c) {
			return r.event(&t, &c)
		}
	}
	return nil
}
