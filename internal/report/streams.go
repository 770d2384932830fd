package report

import (
	"slices"

	"github.com/tcpshift/tcpshift/internal/recording"
)

const (
	// maxStreams bounds the hosts of a report. The records of further ones count as those of the last one.
	maxStreams = 100
	// maxGaps bounds the losses and gaps that are listed: the largest.
	maxGaps = 100
)

// stream is one output of one tracer, or what the recordings have of it.
type stream struct {
	id              int
	bootID          string
	start           recording.Record // its Type is "" if there is no start record
	counts          recording.Record // the newest stats or stop; its Type is "" if there is none
	stop            recording.Record // its Type is "" if there is none
	host            string
	lastSeq         uint64
	lastTime        recording.Time
	records         uint64
	missing         uint64
	repeatedRecords uint64
}

// gap is a place of the time axis where records are missing.
type gap struct {
	Time  recording.Time
	Host  string
	Lost  uint64
	Cause string // of a loss record; "gap": the numbers of the records have a gap
	Stage string
}

// streams finds the stream of each record.
type streams struct {
	all      []*stream
	byBoot   map[string]*stream
	current  *stream // of the records without a boot_id
	fresh    bool    // a source has begun, and no record of it has been seen
	gaps     []gap
	gapsMore uint64 // gaps that are not listed
}

func newStreams() streams { return streams{byBoot: make(map[string]*stream)} }

// nextSource is called before the first record of a source.
func (s *streams) nextSource() { s.fresh = true }

// take returns the stream of a record, and how many records are missing before it by the numbers. repeated means that
// the record came before: readers of a network output may get lines twice.
func (s *streams) take(rec *recording.Record) (of *stream, missing uint64, repeated bool) {
	of = s.find(rec)
	switch {
	case rec.Type == "start" && (s.fresh || rec.Seq != of.start.Seq || rec.Time != of.start.Time):
		of.begin(rec)
	case s.fresh && rec.Seq <= of.lastSeq: // the file is of another output, or of another run
		of.lastSeq, of.lastTime = max(1, rec.Seq)-1, 0
	}
	s.fresh = false
	if rec.Seq != 0 {
		missing, repeated = of.number(rec)
	}
	if repeated {
		of.repeatedRecords++
		return of, 0, true
	}
	of.records++
	of.missing += missing
	switch {
	case missing > 0:
		s.addGap(gap{Time: rec.Time, Host: of.host, Lost: missing, Cause: "gap"})
	case rec.Type == "loss":
		s.addGap(gap{Time: rec.Time, Host: of.host, Lost: rec.Lost + rec.LostConnections + rec.LostAlerts, Cause: causeOf(rec), Stage: rec.Stage})
	case rec.Type == "stats" || rec.Type == "stop":
		of.counts = *rec
	}
	if rec.Type == "stop" {
		of.stop = *rec
	}
	return of, missing, false
}

func causeOf(rec *recording.Record) string { return cut(rec.Cause, 40) }

// find returns the stream of a record: that of its boot_id, else the one whose start record came last.
func (s *streams) find(rec *recording.Record) *stream {
	if rec.BootID != "" {
		if known := s.byBoot[rec.BootID]; known != nil {
			if rec.Type == "start" {
				s.current = known
			}
			return known
		}
	}
	anonymous := s.current != nil && s.current.bootID == ""
	switch {
	case s.current == nil || rec.BootID != "" && !anonymous:
		if len(s.all) == maxStreams {
			return s.all[len(s.all)-1]
		}
		s.current = &stream{id: len(s.all)}
		s.all = append(s.all, s.current)
	case rec.BootID == "":
		return s.current
	}
	s.current.bootID, s.current.host = cut(rec.BootID, 64), cut(rec.Host, 64)
	if rec.BootID != "" {
		s.byBoot[s.current.bootID] = s.current
	}
	return s.current
}

// begin takes the start record of a new run on the host of the stream.
func (st *stream) begin(rec *recording.Record) {
	st.start, st.stop = *rec, recording.Record{}
	st.host = cut(rec.Host, 64)
	st.lastSeq, st.lastTime = 0, 0
	if rec.Seq > 0 {
		st.lastSeq = rec.Seq - 1
	}
}

// number compares the number of a record with that of the last one. A lower number is that of a record that came before,
// unless the record is newer: then another stream has begun, without a start record.
func (st *stream) number(rec *recording.Record) (missing uint64, repeated bool) {
	const lateness = 2e9 // nanoseconds by which a record may be older than one before it
	switch {
	case rec.Seq > st.lastSeq:
		if st.lastSeq > 0 || st.start.Type != "" {
			missing = rec.Seq - st.lastSeq - 1
		}
	case rec.Time <= st.lastTime+lateness:
		return 0, true
	}
	st.lastSeq = rec.Seq
	st.lastTime = max(st.lastTime, rec.Time)
	return missing, false
}

func (s *streams) addGap(g gap) {
	if len(s.gaps) < maxGaps {
		s.gaps = append(s.gaps, g)
		return
	}
	s.gapsMore++
	smallest := 0
	for i := range s.gaps {
		if s.gaps[i].Lost < s.gaps[smallest].Lost {
			smallest = i
		}
	}
	if g.Lost > s.gaps[smallest].Lost {
		s.gaps = append(slices.Delete(s.gaps, smallest, smallest+1), g)
	}
}

// cut cuts a name that is longer than any that tcpshift writes.
func cut(s string, maxBytes int) string {
	if len(s) <= maxBytes {
		return s
	}
	for maxBytes > 0 && s[maxBytes]&0xc0 == 0x80 {
		maxBytes--
	}
	return s[:maxBytes] + "…"
}
