package fleet_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// question returns a query of deploy/fleet about this fleet.
func (f *fleet) question(t *testing.T, name string) string {
	t.Helper()
	name, subject, _ := strings.Cut(name, " ")
	text := question(t, name)
	if of, ok := f.subjects()[subject]; ok {
		at := must(time.Parse(time.RFC3339Nano, of.Time)).UnixNano()
		text = strings.NewReplacer("'BOOT_ID'", "'"+of.BootID+"'", "'CONN'", "'"+of.Conn+"'", "= TS_NS", fmt.Sprint("= ", at)).Replace(text)
	}
	return text
}

// subjects returns the connections whose other end is asked for, by the name in the question.
func (f *fleet) subjects() map[string]record {
	return map[string]record{
		"frontend": f.usualPair[0], "backend": f.usualPair[1],
		"agent": f.local[0], "agent's": f.local[1], "billing": f.refused,
	}
}

// expectation is what the first row of an answer must have, and how many rows there may be.
type expectation struct {
	question string
	want     row // of the first row; nil: there is none
	rows     int // 0: one or more
}

// expectations returns one expectation for each question that has a row to compare, or must have no row.
func (f *fleet) expectations() []expectation {
	end := func(h *simulated, r record) row {
		return row{"host": h.name, "boot_id": r.BootID, "conn": r.Conn, "service": r.Comm, "role": r.Role}
	}
	return []expectation{
		{"time_wait", row{"host": "web-1", "service": "poller", "role": "client", "time_waits": stormConnections, "most_destinations": 1}, 0},
		{"runs_out_next", row{"host": "web-1", "peer_addr": "10.9.0.2", "peer_port": 5432, "service": "poller", "kind": "time_wait_storm"}, 1},
		{"connect_failures", row{"host": "app-1", "service": "billing", "peer_addr": "127.0.0.1", "peer_port": 7001, "why": "refused", "failed": failedConnects}, 1},
		{"close_wait", row{"host": "db-1", "service": "mailer", "role": "server", "port": 2525, "sockets": leakedSockets}, 1},
		{"other_end frontend", end(f.db, f.usualPair[1]), 1},
		{"other_end backend", end(f.web, f.usualPair[0]), 1},
		{"other_end agent", end(f.app, f.local[1]), 1},
		{"other_end agent's", end(f.app, f.local[0]), 1},
		{"other_end billing", nil, 0},
		{"yesterday", row{"host": "db-1", "service": "postgres", "role": "server", "port": 5432, "yesterday": 0, "today": stormConnections}, 0},
		{"missing", nil, 0},
	}
}

// questions returns the names of all questions.
func (f *fleet) questions() []string {
	names := []string{"open_alerts"}
	for _, e := range f.expectations() {
		names = append(names, e.question)
	}
	return names
}

// checkAnswers asks every question and compares the answers with what the culprits did.
func (f *fleet) checkAnswers(t *testing.T, ask func(name string) []row) {
	t.Helper()
	for _, e := range f.expectations() {
		got := ask(e.question)
		t.Logf("%s: %v", e.question, got)
		switch {
		case e.want == nil && len(got) > 0:
			t.Errorf("%s: got %v, want no row", e.question, got)
		case e.want != nil && (len(got) == 0 || e.rows > 0 && len(got) != e.rows):
			t.Errorf("%s: got %d rows %v, want %d", e.question, len(got), got, max(1, e.rows))
		}
		for key, want := range e.want {
			if len(got) > 0 && fmt.Sprint(got[0][key]) != fmt.Sprint(want) {
				t.Errorf("%s: got %s %v, want %v: %v", e.question, key, got[0][key], want, got[0])
			}
		}
	}
	f.checkMore(t, ask)
}

// checkMore checks what is not in the first rows: the use of ports, what has changed since yesterday, the open alerts.
func (f *fleet) checkMore(t *testing.T, ask func(name string) []row) {
	t.Helper()
	next := ask("runs_out_next")[0]
	if number(t, next["capacity"]) > 1000 || number(t, next["used"]) < 0.6*1000 {
		t.Errorf("runs_out_next: %v of %v ports are used, want most of 1000", next["used"], next["capacity"])
	}
	changed := make(map[string]bool)
	for _, r := range ask("yesterday") {
		changed[fmt.Sprint(r["host"], " ", r["service"], " ", r["role"])] = true
	}
	for _, name := range []string{"web-1 poller client", "db-1 postgres server", "web-1 sender client", "app-1 billing client"} {
		if !changed[name] {
			t.Errorf("yesterday: %s is missing in %v", name, changed)
		}
	}
	for name := range changed {
		if strings.Contains(name, "frontend") || strings.Contains(name, "backend") || strings.Contains(name, "agent") {
			t.Errorf("yesterday: %s does the same as yesterday", name)
		}
	}
	kinds := make(map[string]bool)
	for _, r := range ask("open_alerts") {
		kinds[fmt.Sprint(r["host"], " ", r["kind"], " ", r["service"])] = true
	}
	for _, name := range []string{"web-1 time_wait_storm poller", "db-1 close_wait_leak mailer"} {
		if !kinds[name] {
			t.Errorf("open_alerts: %s is missing in %v\n%s", name, kinds, f.alerts())
		}
	}
}

// alerts returns all lines with alerts.
func (f *fleet) alerts() (lines string) {
	for _, line := range f.lines {
		if strings.HasPrefix(line, `{"type":"alert"`) {
			lines += line
		}
	}
	return lines
}

func number(t *testing.T, value any) (n float64) {
	t.Helper()
	if _, err := fmt.Sscan(fmt.Sprint(value), &n); err != nil {
		t.Fatalf("%v is no number: %v", value, err)
	}
	return n
}
