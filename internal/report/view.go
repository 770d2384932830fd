package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/tcpshift/tcpshift/internal/recording"
)

// view is what the page shows as text and tables. All of its strings have passed text.
type view struct {
	Live       bool
	Title      string
	From, To   string
	Span       string
	ChartsFrom string // of a live page, where it is not From
	Hosts      []hostView
	Sources    []sourceView
	Types      []typeView

	Alerts       []alertView
	AlertsTotal  uint64
	AlertsLeft   uint64
	Critical     int
	Ends         totals
	Failed       uint64
	Ways         []wayView
	PeakRate     string
	PeakAt       string
	Gaps         []gapView
	GapsMore     uint64
	Unreadable   uint64
	Repeated     uint64
	HasStates    bool
	HasEnds      bool
	HasPorts     bool
	Tables       []tableView
	Shown        uint64 // connections that the page has
	Left         uint64 // connections that it has not
	MaxPicked    int
	Untracked    uint64
	TimeWaitNote bool

	data pageData
}

type hostView struct {
	Name, Kernel, Version, Begins, Ends string
	Off                                 []string // features that are off, with the reason
	Counts                              bool
	Seen, Filtered, Dropped, Lost       uint64
	Records                             uint64
}

type sourceView struct {
	Name                string
	Records, Unreadable uint64
	CutOff              bool
	Shown               []recording.Unreadable
}

type typeView struct {
	Name  string
	Count uint64
}

type wayView struct {
	Name   string
	Count  uint64
	Failed bool
}

type gapView struct{ Time, Host, What, Cause string }

type alertView struct {
	Index                               int
	Kind, Severity, Service, About      string
	Begin, End, Lasted, CloseReason, ID string
	Cause, Advice, Next, Confidence     string
	Peak                                string
	Failures                            uint64
	IsCritical                          bool
}

type tableView struct {
	ID, Title, Of, Note string
	Rows                []rowView
}

type rowView struct {
	row
	Text    string
	HowText string // how the failed ones failed
}

func (r *Report) view() *view {
	r = r.closed()
	v := &view{
		Live: r.live,
		From: moment(r.axis.begun), To: moment(r.axis.last()), Span: nanoseconds(int64(r.axis.last() - r.axis.begun)),
		AlertsTotal: r.alerts.total, AlertsLeft: r.alerts.total - uint64(len(r.alerts.byID)),
		Ends: r.ends, Failed: r.ends.Failed(), GapsMore: r.streams.gapsMore,
		HasStates: r.types["transition"] > 0, HasEnds: r.types["connection"] > 0,
		TimeWaitNote: !r.axis.endsKnown, MaxPicked: maxPicked, Untracked: r.lives.untracked,
	}
	if r.axis.slid {
		v.ChartsFrom = moment(r.axis.first())
	}
	v.addHosts(&r.streams)
	v.addSources(r)
	v.addAlerts(&r.alerts)
	for i, by := range ends {
		if r.ends.Ended[i] > 0 {
			name := string(by)
			v.Ways = append(v.Ways, wayView{cmp.Or(name, "not known"), r.ends.Ended[i], isFailure(name)})
		}
	}
	v.Tables = []tableView{
		table("services", "Services", "Service", r.tops.services, "A service is what alerts call so: a systemd unit, else a container, else the name of the process."),
		table("destinations", "Destinations of clients", "Destination", r.tops.destinations, "Where this host connects to."),
		table("endpoints", "Endpoints of servers", "Endpoint", r.tops.endpoints, "Where this host accepts connections."),
	}
	v.data = r.pageData()
	v.addPeak()
	for i := range r.lives.picked {
		v.Shown += uint64(len(r.lives.picked[i].lives))
		v.Left += r.lives.picked[i].total - uint64(len(r.lives.picked[i].lives))
	}
	return v
}

func (v *view) addHosts(s *streams) {
	var names []string
	for _, st := range s.all {
		h := hostView{Name: text(cmp.Or(st.host, "not named")), Records: st.records, Begins: "no start record", Ends: "no stop record: it was cut off, or it goes on"}
		if st.start.Type != "" {
			h.Kernel, h.Version = text(cut(st.start.Kernel+" "+st.start.Arch, 120)), text(cut(st.start.Version, 60))
			h.Begins = moment(st.start.Time)
			h.Off = offFeatures(st.start.Features)
		}
		if st.stop.Type != "" {
			h.Ends = moment(st.stop.Time) + " (" + text(cut(st.stop.Reason, 20)) + ")"
		}
		if c := &st.counts; c.Type != "" {
			h.Counts = true
			h.Seen, h.Filtered, h.Dropped = c.Seen, c.Filtered, c.Dropped
			h.Lost = c.LostRingFull + c.LostRingBusy + c.LostReentry + c.LostQueueFull
		}
		v.Hosts = append(v.Hosts, h)
		v.Repeated += st.repeatedRecords
		if !slices.Contains(names, h.Name) {
			names = append(names, h.Name)
		}
	}
	v.Title = strings.Join(names[:min(3, len(names))], ", ")
	if len(names) > 3 {
		v.Title += fmt.Sprintf(" and %d more", len(names)-3)
	}
}

// offFeatures lists the features that are off, with the reasons.
func offFeatures(features map[string]any) (off []string) {
	for name, value := range features {
		if reason, ok := value.(string); ok && len(off) < maxTypes {
			off = append(off, text(cut(name, 40)+": "+cut(reason, 200)))
		}
	}
	slices.Sort(off)
	return off
}

func (v *view) addSources(r *Report) {
	for _, s := range r.sources {
		v.Sources = append(v.Sources, sourceView{text(s.Name), s.Records, s.Unreadable, s.CutOff, s.Shown})
		v.Unreadable += s.Unreadable
	}
	for name, n := range r.types {
		v.Types = append(v.Types, typeView{text(cut(name, 40)), n})
	}
	slices.SortFunc(v.Types, func(a, b typeView) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Name, b.Name))
	})
	if r.others > 0 {
		v.Types = append(v.Types, typeView{"all others", r.others})
	}
	for _, g := range r.streams.gaps {
		what := count(g.Lost) + " lost"
		cause := text(g.Cause)
		if g.Cause == "gap" {
			what, cause = count(g.Lost)+" missing", "the numbers (seq) of the records have a gap"
		} else if g.Stage != "" {
			cause += ", at the " + text(cut(g.Stage, 20))
		}
		v.Gaps = append(v.Gaps, gapView{clock(g.Time), text(g.Host), what, cause})
	}
}

func (v *view) addAlerts(a *alerts) {
	for i, l := range a.sorted() {
		last := &l.last
		shown := alertView{
			Index: i, Kind: text(cut(last.Kind, 40)), Severity: "warning", ID: text(cut(last.ID, 40)), IsCritical: l.critical,
			Service: text(cut(last.Service, 100)), About: text(aboutOf(last)), Begin: clock(l.first.Time), End: "still open at the end",
			Lasted: nanoseconds(max(last.Lasted, int64(last.Time-l.first.Time))), CloseReason: text(cut(last.CloseReason, 20)),
			Cause: text(l.first.Cause), Advice: text(l.first.Advice), Confidence: text(cut(last.Confidence, 20)), Failures: last.Failures,
		}
		if l.critical {
			shown.Severity = "critical"
			v.Critical++
		}
		if last.Phase == "close" {
			shown.End = clock(last.Time)
		}
		if last.NextService != "" {
			shown.Next = fmt.Sprintf("%s (%.0f %%)", text(cut(last.NextService, 100)), 100*last.NextShare)
		}
		if l.peak > 0 {
			shown.Peak = count(l.peak)
			if last.Capacity > 0 {
				v.HasPorts = true
				shown.Peak += " of " + count(last.Capacity) + " " + strings.ReplaceAll(text(cut(last.CapacityKind, 40)), "_", " ")
			}
		}
		v.Alerts = append(v.Alerts, shown)
	}
}

// aboutOf names what an alert is about.
func aboutOf(rec *recording.Record) string {
	peer, local := endpoint(cut(rec.PeerAddr, 64), rec.PeerPort), endpoint(cut(rec.LocalAddr, 64), rec.LocalPort)
	switch {
	case peer != "" && local != "":
		return local + " → " + peer
	case peer != "":
		return peer
	}
	return local
}

func table(id, title, of string, t *top, note string) tableView {
	v := tableView{ID: id, Title: title, Of: of, Note: note}
	for _, r := range t.shown() {
		v.Rows = append(v.Rows, rowView{row: r, Text: text(r.Name()), HowText: how(&r.totals)})
	}
	return v
}

// how lists the ways in which connections have failed, the most frequent first.
func how(t *totals) string {
	type way struct {
		name string
		n    uint64
	}
	var ways []way
	for i, by := range ends {
		if t.Ended[i] > 0 && isFailure(string(by)) {
			ways = append(ways, way{string(by), t.Ended[i]})
		}
	}
	slices.SortStableFunc(ways, func(a, b way) int { return cmp.Compare(b.n, a.n) })
	var words []string
	for _, w := range ways {
		words = append(words, count(w.n)+" "+w.name)
	}
	return strings.Join(words, ", ")
}

// addPeak finds when the most connections opened, over one second at least.
func (v *view) addPeak() {
	s := &v.data.Series
	bins := max(1, int(1/s.Width+0.5))
	var best, sum uint64
	at := 0
	for i := range s.Opened {
		sum += s.Opened[i]
		if i >= bins {
			sum -= s.Opened[i-bins]
		}
		if sum > best {
			best, at = sum, max(0, i-bins+1)
		}
	}
	if best > 0 {
		v.PeakRate = fmt.Sprintf("%.3g", float64(best)/(float64(bins)*s.Width))
		v.PeakAt = recording.Time((s.Start + float64(at)*s.Width) * 1e9).Std().Format("15:04:05")
	}
}
