package top

import (
	"unicode/utf8"

	"github.com/tcpshift/tcpshift/internal/activity"
	"github.com/tcpshift/tcpshift/internal/record"
)

// page is what the lower part of the screen shows.
type page int

const (
	servicesPage page = iota
	destinationsPage
	alertsPage
	pageCount
)

// detailOf is what the user has looked into: a row of a page.
type detailOf struct {
	page page
	id   string // of the row
	name string
}

// key is one that the user has pressed.
type key string

// The keys that are no characters.
const (
	keyUp        key = "up"
	keyDown      key = "down"
	keyLeft      key = "left"
	keyRight     key = "right"
	keyPageUp    key = "page up"
	keyPageDown  key = "page down"
	keyHome      key = "home"
	keyEnd       key = "end"
	keyEnter     key = "enter"
	keyEscape    key = "escape"
	keyTab       key = "tab"
	keyBackTab   key = "back tab"
	keyBackspace key = "backspace"
	keyQuit      key = "quit" // Ctrl-C
)

// maxFilter bounds the filter that the user types, in characters.
const maxFilter = 40

// model is the state of the screen. What it shows follows from it, and from the size of the screen.
type model struct {
	host    string
	title   string // what is shown, if that is not a host that is traced: a recording
	ascii   bool   // the terminal has only ASCII
	newest  *activity.Snapshot
	shown   *activity.Snapshot
	frozen  bool
	help    bool
	page    page
	at      [pageCount]position
	detail  *detailOf // nil: none
	inside  position  // in the table of the detail
	scroll  int       // of the help, or of the text of an alert
	filter  string
	editing bool   // the user types the filter
	message string // for the operator; "": none
	over    string // why nothing new comes; "": it does
	pageLen int    // rows of the last table drawn
}

func newModel(host, title string) *model {
	m := &model{host: host, title: title, inside: position{sorted: details.sorted}, pageLen: 10}
	m.at[servicesPage].sorted, m.at[destinationsPage].sorted, m.at[alertsPage].sorted = services.sorted, destinations.sorted, alerts.sorted
	return m
}

// show takes a new snapshot. It reports whether the screen changes.
func (m *model) show(s *activity.Snapshot) bool {
	if s == m.newest {
		return false
	}
	m.newest = s
	if m.frozen {
		return false
	}
	m.shown = s
	return true
}

// press takes a key. It reports whether the user wants to quit.
func (m *model) press(k key) (quit bool) {
	switch {
	case k == keyQuit:
		return true
	case m.editing:
		m.edit(k)
		return false
	case m.help:
		return m.pressInHelp(k)
	}
	m.message = ""
	switch k {
	case "q":
		return true
	case "?", "h":
		m.help, m.scroll = true, 0
	case " ":
		m.frozen = !m.frozen
		m.shown = m.newest
	case "/":
		m.editing = true
	case keyEnter:
		m.open()
	case keyEscape, keyBackspace:
		m.back()
	default:
		m.turn(k)
		m.sort(k)
		m.move(k)
	}
	return false
}

// turn shows another page.
func (m *model) turn(k key) {
	switch k {
	case "1", "2", "3":
		m.turnTo(page(k[0] - '1'))
	case keyTab:
		m.turnTo((m.page + 1) % pageCount)
	case keyBackTab:
		m.turnTo((m.page + pageCount - 1) % pageCount)
	}
}

// sort sorts by another column, or in the other direction.
func (m *model) sort(k key) {
	switch k {
	case "r":
		p := m.position()
		p.reverse = !p.reverse
	case keyLeft, "<":
		m.sortBy(-1)
	case keyRight, ">":
		m.sortBy(1)
	}
}

func (m *model) pressInHelp(k key) (quit bool) {
	switch k {
	case "q":
		return true
	case keyUp, "k":
		m.scroll--
	case keyDown, "j", keyPageDown:
		m.scroll++
	default:
		m.help, m.scroll = false, 0
	}
	return false
}

// edit takes a key of the filter that the user types.
func (m *model) edit(k key) {
	switch {
	case k == keyEnter:
		m.editing = false
	case k == keyEscape:
		m.editing, m.filter = false, ""
	case k == keyBackspace:
		_, size := utf8.DecodeLastRuneInString(m.filter)
		m.filter = m.filter[:len(m.filter)-size]
	case utf8.RuneCountInString(string(k)) == 1 && utf8.RuneCountInString(m.filter) < maxFilter:
		m.filter += record.Printable(string(k))
	}
}

// position is where the user is in the table on the screen.
func (m *model) position() *position {
	if m.detail != nil {
		return &m.inside
	}
	return &m.at[m.page]
}

func (m *model) turnTo(p page) {
	m.page, m.detail, m.scroll = p, nil, 0
}

// open looks into the selected row.
func (m *model) open() {
	if m.detail != nil || m.shown == nil {
		return
	}
	id := m.at[m.page].chosen
	d := &detailOf{page: m.page, id: id}
	switch m.page {
	case servicesPage:
		if s := find(m.shown.Services, services.id, id); s != nil {
			d.name = serviceName(s)
		}
	case destinationsPage:
		if s := find(m.shown.Destinations, destinations.id, id); s != nil {
			d.name = destinationName(s)
		}
	case alertsPage:
		if s := find(m.shown.Alerts, alerts.id, id); s != nil {
			d.name = text(s.Kind)
		}
	}
	if d.name != "" {
		m.detail, m.scroll, m.filter = d, 0, ""
		m.inside = position{sorted: m.inside.sorted, reverse: m.inside.reverse}
	}
}

func find[T any](all []T, id func(r *T) string, wanted string) *T {
	for i := range all {
		if id(&all[i]) == wanted {
			return &all[i]
		}
	}
	return nil
}

// back leaves what the user has entered last.
func (m *model) back() {
	switch {
	case m.filter != "":
		m.filter = ""
	case m.detail != nil:
		m.detail, m.scroll = nil, 0
	}
}

// columnCount is how many columns the table on the screen has.
func (m *model) columnCount() int {
	switch {
	case m.detail != nil:
		return len(details.columns)
	case m.page == servicesPage:
		return len(services.columns)
	case m.page == destinationsPage:
		return len(destinations.columns)
	}
	return len(alerts.columns)
}

// sortBy sorts by the column next to the one that it is sorted by.
func (m *model) sortBy(step int) {
	p, n := m.position(), m.columnCount()
	p.sorted, p.reverse = (p.sorted+step+n)%n, false
}

// move selects another row. The next frame keeps it within the table.
func (m *model) move(k key) {
	p := m.position()
	before := p.at
	switch k {
	case keyUp, "k":
		p.at--
		m.scroll--
	case keyDown, "j":
		p.at++
		m.scroll++
	case keyPageUp:
		p.at -= m.pageLen
	case keyPageDown:
		p.at += m.pageLen
	case keyHome, "g":
		p.at = 0
	case keyEnd, "G":
		p.at = 1 << 30
	}
	if p.at != before {
		p.chosen = ""
	}
}
