package replay

import (
	"github.com/tcpshift/tcpshift/internal/recording"
)

// others counts what shows that a stream of records is not one run of one host.
type others struct {
	setBack uint64 // how often a record was more than maxDisorder older than those before it
	foreign uint64 // records of other hosts than the first
	host    identity
	isOther bool // since the last start record
}

// identity is what records say of their host.
type identity struct{ host, bootID string }

// SetBack returns how often the time of the records went back by more than ten seconds: the wall clock was set back, or files
// are not in order.
func (r *Records) SetBack() uint64 { return r.setBack }

// Foreign returns how many records are of other hosts than the first one. The engine and Watch do not get them: the ports of
// two hosts have nothing to do with each other, but their namespaces may have the same numbers.
func (r *Records) Foreign() uint64 { return r.foreign }

// isOfOther reports whether a record is of another host than the first, and counts it. A record without a host is of that of
// the start record before it. A host that was renamed has the same boot id, and one that was restarted the same name.
func (o *others) isOfOther(rec *recording.Record) bool {
	of, isOther := identity{rec.Host, rec.BootID}, o.isOther
	if of != (identity{}) {
		if o.host == (identity{}) {
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

// takeOther passes what a record of another host has to Event.
func (r *Records) takeOther(rec *recording.Record) error {
	switch rec.Type {
	case "transition":
		t, known := r.transition(rec)
		if !known {
			return nil
		}
		if r.last = t; r.passes(r.shown(&t, rec)) {
			return r.event(&t, nil)
		}
	case "connection":
		if t, c := r.connectionOf(rec); r.connectionPasses(rec, &t, &c) {
			return r.event(&t, &c)
		}
	}
	return nil
}
