// Package report sums up recordings, in one pass and bounded memory, and writes what happened as one page of HTML that
// needs no network. Everything in a recording is hostile: a name must become text, never markup or script. The package
// must not open files, read clocks, or guess what a recording does not say.
package report

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/tcpshift/tcpshift/internal/recording"
)

// Source is a recording.
type Source struct {
	Name   string // for people
	Reader io.Reader
}

// Report is what recordings say. It is for one goroutine.
type Report struct {
	sources []sourceSummary
	types   map[string]uint64 // records by type
	others  uint64            // records of types beyond maxTypes
	axis    axis
	streams streams
	alerts  alerts
	tops    tops
	lives   lives
	ends    totals // of all connections
	live    bool   // it goes on
}

// maxTypes bounds the types of records that are counted one by one.
const maxTypes = 32

type sourceSummary struct {
	Name string
	recording.Summary
}

// ErrNoRecords is the error of recordings without a single record.
var ErrNoRecords = errors.New("no record of the native schema")

// opened is a source whose first record has been read.
type opened struct {
	name   string
	reader *recording.Reader
	first  recording.Record
}

// Read sums up recordings. Their order does not matter: those that begin first are read first, as the files that a
// rotation has left belong together. An error names its source. It wraps ErrNoRecords if one of them has no record.
func Read(sources []Source) (*Report, error) {
	r := newReport()
	begun := make([]*opened, len(sources))
	for i, s := range sources {
		var err error
		if begun[i], err = begin(s); err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(begun, func(a, b *opened) int { return cmp.Compare(a.first.Time, b.first.Time) })
	for _, o := range begun {
		if err := r.read(o); err != nil {
			return nil, fmt.Errorf("%s: %w", o.name, err)
		}
	}
	return r, nil
}

func newReport() *Report {
	return &Report{types: make(map[string]uint64), streams: newStreams(), alerts: newAlerts(), tops: newTops(), lives: newLives()}
}

// begin reads the first record of a source.
func begin(s Source) (*opened, error) {
	reader, err := recording.NewReader(s.Reader)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Name, err)
	}
	o := &opened{name: s.Name, reader: reader}
	switch err := reader.Next(&o.first); {
	case err == nil:
		return o, nil
	case !errors.Is(err, io.EOF):
		return nil, fmt.Errorf("%s: %w", s.Name, err)
	}
	found := reader.Summary()
	switch {
	case len(found.Shown) > 0:
		bad := found.Shown[0]
		return nil, fmt.Errorf("%s has %w: line %d: %s", s.Name, ErrNoRecords, bad.Line, bad.Why)
	case found.CutOff:
		return nil, fmt.Errorf("%s has %w: its only line is not whole", s.Name, ErrNoRecords)
	}
	return nil, fmt.Errorf("%s has %w: it is empty", s.Name, ErrNoRecords)
}

func (r *Report) read(o *opened) error {
	r.streams.nextSource()
	r.add(&o.first)
	var rec recording.Record
	for {
		err := o.reader.Next(&rec)
		if errors.Is(err, io.EOF) {
			r.sources = append(r.sources, sourceSummary{o.name, o.reader.Summary()})
			return nil
		}
		if err != nil {
			return err
		}
		r.add(&rec)
	}
}

// add takes one record. One that the same stream has had before counts once.
func (r *Report) add(rec *recording.Record) {
	s, missing, repeated := r.streams.take(rec)
	if repeated {
		return
	}
	r.countType(rec.Type)
	r.axis.show(rec.Time)
	if missing > 0 {
		r.axis.at(rec.Time).missing += missing
	}
	switch rec.Type {
	case "transition":
		r.addTransition(s, rec)
	case "connection":
		r.addConnection(s, rec)
	case "alert":
		r.alerts.add(s, rec)
	case "loss":
		r.axis.at(rec.Time).lost += rec.Lost + rec.LostConnections + rec.LostAlerts
	}
}

func (r *Report) countType(name string) {
	if _, known := r.types[name]; !known && len(r.types) == maxTypes {
		r.others++
		return
	}
	r.types[name]++
}

func (r *Report) addTransition(s *stream, rec *recording.Record) {
	if isOpening(rec) {
		r.axis.at(rec.Time).openings++
	}
	r.addState(rec)
	r.lives.transition(s, rec)
}

// addState notes how long the socket was in the state that it leaves.
func (r *Report) addState(rec *recording.Record) {
	if rec.NewState == timeWait {
		r.axis.at(rec.Time).timeWaits++
	}
	at := stateIndex(rec.OldState)
	if at < 0 || rec.InState == nil || *rec.InState < 0 {
		return
	}
	entered := rec.Time - recording.Time(*rec.InState)
	if rec.OldState != timeWait {
		r.axis.interval(at, entered, rec.Time)
		return
	}
	r.axis.endsKnown = true
	if entered >= r.axis.begun {
		r.axis.at(rec.Time).timeWaitEnds++
	}
}

// isOpening reports whether a connection begins with this transition, at either side.
func isOpening(rec *recording.Record) bool {
	return rec.NewState == "SYN_SENT" && !rec.Self || rec.OldState == "LISTEN" && rec.NewState == "SYN_RECV"
}

func (r *Report) addConnection(s *stream, rec *recording.Record) {
	if rec.Phase == "update" {
		r.lives.update(s, rec)
		return
	}
	if rec.Role != "listener" {
		r.axis.at(rec.Time).ended[endIndex(rec.ClosedBy)]++
		if rec.Opened != 0 && !r.live { // it has the transitions
			r.axis.at(max(rec.Opened, r.axis.first())).opened++
		}
		r.ends.add(rec)
		r.tops.add(rec)
	}
	r.lives.end(s, rec)
}

// closed returns a report that also has the connections that are open. It shares what it does not change with r.
func (r *Report) closed() *Report {
	c := *r
	c.axis = r.axis.clone()
	c.tops = r.tops.withoutOpen()
	if r.live {
		r.lives.forget(r.axis.first())
	}
	for i := range r.lives.picked {
		c.lives.picked[i].lives = slices.Clone(r.lives.picked[i].lives)
	}
	for _, l := range c.lives.open {
		if at := stateIndex(l.state); at >= 0 && l.state != timeWait {
			// The clock may have been set back since.
			c.axis.at(min(max(l.last, c.axis.first()), c.axis.last())).changes[at]++
		}
		c.tops.addOpen(l)
	}
	c.lives.pickOpen()
	return &c
}

// Unreadable is how many lines are no records.
func (r *Report) Unreadable() (n uint64) {
	for _, s := range r.sources {
		n += s.Unreadable
	}
	return n
}
