package top

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tcpshift/tcpshift/internal/activity"
	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/summary"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// shownStates are the eleven of RFC 9293, in the order of a connection's life.
var shownStates = [...]tcp.State{
	tcp.Listen, tcp.SynSent, tcp.SynRecv, tcp.Established, tcp.FinWait1, tcp.FinWait2,
	tcp.CloseWait, tcp.Closing, tcp.LastAck, tcp.TimeWait, tcp.Close,
}

const (
	// leastTable is how many rows a table needs with its title.
	leastTable = 4
	// stateCells is how many cells a state needs: its name and its number.
	stateCells = 24
	// stateNumber is how many cells its number has.
	stateNumber = 9
	// agedCount is the age from which the screen shows how old the counts of sockets are.
	agedCount = 5 * time.Second
)

// view draws the screen: at most height lines, none wider than width.
func (m *model) view(width, height int) []line {
	if width < 20 || height < 5 {
		return []line{line{{"too small", plain}}.fit(width)}
	}
	lines := m.head(width)
	switch {
	case m.help:
		lines = append(lines, m.part(helpLines(width), height-len(lines)-1)...)
	case m.shown == nil:
		lines = append(lines, line{{"waiting for the first second", dim}})
	default:
		room := height - len(lines) - 1 - leastTable
		if states := m.states(width); len(states) <= room {
			lines = append(lines, states...)
			room -= len(states)
		}
		if room >= 1 {
			lines = append(lines, m.alertLine())
		}
		lines = append(lines, m.tabs())
		lines = append(lines, m.body(width, height-len(lines)-1)...)
	}
	lines = lines[:min(len(lines), height-1)]
	for len(lines) < height-1 {
		lines = append(lines, nil)
	}
	lines = append(lines, m.foot())
	for i, l := range lines {
		lines[i] = l.fit(width)
	}
	return lines
}

// head is what is known of the whole.
func (m *model) head(width int) []line {
	first := line{{"tcpshift top", bold}}
	if m.frozen {
		first = append(first, span{"  FROZEN", notable})
	}
	if m.over != "" {
		first = append(first, span{"  " + m.over, notable})
	}
	first = append(first, span{"  " + text(m.host), plain})
	if m.title != "" {
		first = append(first, span{"  " + m.title, plain})
	}
	s := m.shown
	if s == nil {
		return []line{first, nil}
	}
	first = append(first, span{"  " + s.At.UTC().Format("15:04:05") + " UTC  for " + record.Duration(s.At.Sub(s.Began).Round(time.Second)), plain})
	t := &s.Total
	second := line{
		{record.Count(t.Connections), bold}, {" connections, " + rate(t.Rate) + "/s   ", plain},
		{record.Count(t.Failures()), m.ifSome(t.Failures())}, {" failed, " + rate(t.FailedRate) + "/s   ", plain},
		{record.Count(t.Retransmits), bold}, {" retransmits, " + rate(t.RetransmitRate) + "/s", plain},
	}
	if s.Lost > 0 {
		second = append(line{{record.Count(s.Lost) + " LOST  ", bad}}, second...)
	}
	if second.cells() > width {
		second = line{{fmt.Sprintf("%s conn %s/s  %s failed  %s retrans", record.Count(t.Connections), rate(t.Rate), record.Count(t.Failures()), record.Count(t.Retransmits)), plain}}
	}
	return []line{first, second}
}

func (*model) ifSome(n uint64) look {
	if n > 0 {
		return bad
	}
	return bold
}

// states are the eleven states, in as many columns as there is room for, each with a bar.
func (m *model) states(width int) []line {
	s := m.shown
	if !s.SocketsKnown {
		return []line{{{"sockets by state: not known yet", dim}}}
	}
	columns := max(1, min(3, (width+2)/(stateCells+2)))
	rows := (len(shownStates) + columns - 1) / columns
	cells := (width + 2) / columns
	var most uint64
	for _, state := range shownStates {
		most = max(most, s.Sockets[state])
	}
	lines := make([]line, rows)
	for i, state := range shownStates {
		l := &lines[i%rows]
		if i >= rows {
			*l = append(*l, span{"  ", plain})
		}
		*l = append(*l, m.state(state, most, cells-2)...)
	}
	if age := s.At.Sub(s.SocketsAt); !s.SocketsAt.IsZero() && age >= agedCount && columns > 1 {
		last := &lines[rows-1] // eleven states leave the last cell of two or three columns free
		*last = append(*last, span{"  counted " + record.Duration(age.Round(time.Second)) + " ago", dim})
	}
	return lines
}

func (m *model) state(state tcp.State, most uint64, cells int) line {
	name := padRight(state.String(), 11)
	if state == tcp.Close { // no table of the kernel has these sockets
		return line{{name, dim}, {padRight(padLeft(number(m.shown.Total.Connections, stateNumber), stateNumber)+" ended", cells-11), dim}}
	}
	n := m.shown.Sockets[state]
	l := line{{name, stateLook(state, n)}, {padLeft(number(n, stateNumber), stateNumber) + " ", plain}}
	bars := cells - 11 - stateNumber - 1
	return append(l, span{padRight(bar(n, most, bars, m.ascii), bars), stateLook(state, n)})
}

func stateLook(state tcp.State, n uint64) look {
	switch {
	case n == 0:
		return dim
	case state == tcp.Established:
		return good
	case state == tcp.TimeWait || state == tcp.CloseWait:
		return notable
	}
	return plain
}

// alertLine is the most urgent alert.
func (m *model) alertLine() line {
	all := m.shown.Alerts
	if len(all) == 0 {
		said := "no alert is open"
		if n := m.shown.AlertsOpened; n > 0 {
			said += fmt.Sprintf("; %s so far", record.Count(n))
		}
		return line{{said, dim}}
	}
	a := &all[0]
	l := line{{fmt.Sprintf("%d open: ", len(all)), alertLook(a)}, {text(a.Kind), alertLook(a)}, {" " + alertService(a) + " " + alertAbout(a), plain}}
	if use := alertUse(a); use != "-" {
		l = append(l, span{"  " + use, plain})
	}
	if a.Exhausts {
		d := detect.DestinationUsage{Exhausts: true, ExhaustedIn: a.ExhaustionIn}
		left := timeLeftText(&d)
		if a.ExhaustionIn > 0 {
			left += " left"
		}
		l = append(l, span{"  " + left, bad})
	}
	return l
}

// tabs names the pages, and what the filter is.
func (m *model) tabs() line {
	names := [...]string{"1 Services", "2 Destinations", "3 Alerts"}
	sizes := [...]int{len(m.shown.Services), len(m.shown.Destinations), len(m.shown.Alerts)}
	var l line
	for i, name := range names {
		how := plain
		if page(i) == m.page {
			how = selected
		}
		l = append(l, span{fmt.Sprintf(" %s %d ", name, sizes[i]), how}, span{" ", plain})
	}
	if m.detail != nil {
		l = append(l, span{"> " + m.detail.name + " ", bold})
	}
	if m.filter != "" || m.editing {
		l = append(l, span{" filter: ", plain}, span{m.filter, bold})
	}
	if m.editing {
		l = append(l, span{"_", bold})
	}
	return l
}

func (m *model) body(width, height int) []line {
	m.pageLen = max(1, height-1)
	s := m.shown
	if m.detail != nil {
		return m.detailBody(width, height)
	}
	switch m.page {
	case servicesPage:
		return services.draw(s.Services, &m.at[m.page], m.filter, width, height, m.ascii)
	case destinationsPage:
		return destinations.draw(s.Destinations, &m.at[m.page], m.filter, width, height, m.ascii)
	}
	return alerts.draw(s.Alerts, &m.at[m.page], m.filter, width, height, m.ascii)
}

// detailBody shows the connections of the row that the user has looked into.
func (m *model) detailBody(width, height int) []line {
	s, d := m.shown, m.detail
	var belongs func(r *summary.Row) bool
	switch d.page {
	case servicesPage:
		of := find(s.Services, services.id, d.id)
		if of == nil {
			return []line{{{"this service is gone", dim}}}
		}
		belongs = func(r *summary.Row) bool { return belongsTo(r, of) }
	case destinationsPage:
		of := find(s.Destinations, destinations.id, d.id)
		if of == nil {
			return []line{{{"this destination uses no port now", dim}}}
		}
		belongs = func(r *summary.Row) bool {
			return !r.Other && r.Role == tcp.RoleClient && r.Peer == of.Peer && r.Port == of.PeerPort
		}
	default:
		return m.alertBody(width, height)
	}
	rows := slices.DeleteFunc(slices.Clone(s.Details), func(r summary.Row) bool { return !belongs(&r) })
	return details.draw(rows, &m.inside, m.filter, width, height, m.ascii)
}

// belongsTo reports whether a row is of a service. A row has all cgroups of one path.
func belongsTo(r *summary.Row, s *activity.Service) bool {
	if r.Other || s.Other {
		return r.Other && s.Other
	}
	isIn := r.CgroupID == s.CgroupID || r.Cgroup != nil && s.Path != "" && r.Cgroup.Path == s.Path
	return r.OwnerKnown == s.Known && isIn && r.Comm == s.Comm
}

// alertBody shows all of one alert.
func (m *model) alertBody(width, height int) []line {
	a := find(m.shown.Alerts, alerts.id, m.detail.id)
	if a == nil {
		return []line{{{"this alert is closed", dim}}}
	}
	lines := []line{
		{{text(string(a.Severity)), alertLook(a)}, {"  " + alertService(a) + "  " + alertAbout(a) + "  " + alertUse(a) + "  for " + record.Duration(a.Lasted.Round(time.Second)), plain}},
	}
	for _, part := range []struct{ title, text string }{{"Cause", a.Cause}, {"Advice", a.Advice}} {
		if part.text == "" {
			continue
		}
		lines = append(lines, nil, line{{part.title, bold}})
		for _, each := range wrap(text(part.text), width) {
			lines = append(lines, line{{each, plain}})
		}
	}
	return m.part(lines, height)
}

// part returns as many lines as there is room for, from where the user has scrolled to.
func (m *model) part(lines []line, height int) []line {
	m.scroll = max(0, min(m.scroll, len(lines)-height))
	return lines[m.scroll:min(len(lines), m.scroll+height)]
}

// foot is a message, or the keys.
func (m *model) foot() line {
	if m.message != "" {
		return line{{m.message, notable}}
	}
	keys := "q quit  ? help  Tab page  Enter look into  < > sort  / filter  Space freeze"
	switch {
	case m.editing:
		keys = "Enter keep the filter  Esc remove it"
	case m.help:
		keys = "any key: back  q quit"
	case m.detail != nil:
		keys = "Esc back  q quit  ? help  < > sort  / filter  Space freeze"
	}
	return line{{keys, dim}}
}

// helpText explains the screen.
var helpText = strings.TrimSpace(`
Keys
  q, Ctrl-C      quit
  Tab, 1 2 3     services, destinations, alerts
  Up, Down       select a row (also k j, PgUp, PgDn, Home, End)
  Enter, Esc     look into the row; back
  <  >           sort by another column (also Left, Right); r reverses
  /              show rows with this text only; Esc shows all again
  Space          freeze, and go on
Numbers
  TOTAL, FAILED, RETRANS and rates are of connections that have ended since the start.
  CLOSE_WAIT, OPEN and the states are sockets that exist now. CLOSE: connections that have ended.
  PORTS USED: by connections and TIME_WAITs, of those that connect() may choose; ~ is a default.
  TIME LEFT: until connect() finds no port, at this rate; - means that it does not come.
`)

func helpLines(width int) (lines []line) {
	for each := range strings.Lines(helpText) {
		each = strings.TrimRight(each, "\n")
		how := plain
		if !strings.HasPrefix(each, " ") {
			how = bold
		}
		indent := len(each) - len(strings.TrimLeft(each, " "))
		if record.Cells(each) <= width {
			lines = append(lines, line{{each, how}})
			continue
		}
		for _, part := range wrap(each, width-indent) {
			lines = append(lines, line{{strings.Repeat(" ", indent) + part, how}})
		}
	}
	return lines
}
