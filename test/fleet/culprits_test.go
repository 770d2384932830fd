package fleet_test

import (
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

const (
	// stormConnections is how many TIME_WAITs the poller makes. The hosts have 1000 local ports.
	stormConnections = 880
	failedConnects   = 70
	leakedSockets    = 12
	// usualConnections is how many connections each of the usual services makes.
	usualConnections = 30
)

// usual matches records of the services that do the same as yesterday.
var usual = regexp.MustCompile(`"comm":"(frontend|backend|agent)"`)

// fleet is three hosts. The addresses of web-1 and db-1 are in one network.
type fleet struct {
	web, db, app *simulated
	lines        []string // all that has been loaded
	// usualPair is one connection of frontend with its other end, backend.
	usualPair [2]record
	// refused is a connect that failed: it has no other end.
	refused record
	// local is one connection over loopback with its other end.
	local [2]record
}

// runHosts makes three hosts with a culprit each, and some services that do the same as yesterday:
//
//   - web-1: poller closes connections to the database first, and nearly exhausts its local ports;
//   - db-1: mailer never closes connections whose peers have closed;
//   - app-1: billing connects to a port where nothing listens.
func runHosts(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{
		web: newHost(t, "web-1", "11111111-1111-4111-8111-111111111111"),
		db:  newHost(t, "db-1", "22222222-2222-4222-8222-222222222222"),
		app: newHost(t, "app-1", "33333333-3333-4333-8333-333333333333"),
	}
	tcplab.Veth(f.web.n, f.db.n, netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("10.9.0.2"))
	hosts := []*simulated{f.web, f.db, f.app}
	for _, h := range hosts {
		h.trace()
	}
	f.db.serve(actor{Name: "postgres", Listen: "10.9.0.2:5432"})
	f.db.serve(actor{Name: "backend", Listen: "10.9.0.2:8080", CloseFirst: true})
	f.db.serve(actor{Name: "mailer", Listen: "10.9.0.2:2525", NeverClose: true, Greets: true})
	f.app.serve(actor{Name: "agent", Listen: "127.0.0.1:7000"})
	waits := []func(){
		f.web.connect(actor{Name: "sender", Connect: "10.9.0.2:2525", Count: leakedSockets, Greets: true}),
		f.web.connect(actor{Name: "poller", Connect: "10.9.0.2:5432", Count: stormConnections, Pause: 8 * time.Millisecond}),
		f.web.connect(actor{Name: "frontend", Connect: "10.9.0.2:8080", Count: usualConnections, ReadEOF: true}),
		f.app.connect(actor{Name: "billing", Connect: "127.0.0.1:7001", Count: failedConnects, Pause: 10 * time.Millisecond, FailOnly: true}),
		f.app.connect(actor{Name: "agent", Connect: "127.0.0.1:7000", Count: usualConnections}),
	}
	for _, wait := range waits {
		wait()
	}
	f.web.awaitAlert("time_wait_storm")
	f.app.awaitAlert("connect_failures")
	f.db.awaitAlert("close_wait_leak")
	f.db.awaitLeak(leakedSockets, 10*time.Second)
	for _, h := range hosts {
		h.stop()
	}
	f.findPairs(t)
	for i, h := range hosts {
		h.copyYesterday(fmt.Sprintf("%d0000000-0000-4000-8000-000000000000", i+1))
		f.lines = append(f.lines, h.lines()...)
	}
	return f
}

// awaitLeak waits until updates show that this many sockets have stayed in CLOSE_WAIT for at least this long.
func (h *simulated) awaitLeak(sockets int, atLeast time.Duration) {
	h.t.Helper()
	await(h.t, "updates of the leak", func() bool {
		first, old := make(map[string]time.Time), make(map[string]bool)
		for _, r := range h.records() {
			if r.State != "CLOSE_WAIT" {
				continue
			}
			at, err := time.Parse(time.RFC3339Nano, r.Time)
			if err != nil {
				h.t.Fatal(err)
			}
			if _, seen := first[r.Conn]; !seen {
				first[r.Conn] = at
			}
			old[r.Conn] = at.Sub(first[r.Conn]) >= atLeast
		}
		count := 0
		for _, is := range old {
			if is {
				count++
			}
		}
		return count >= sockets
	})
}

// findPairs remembers connections for the question about the other end.
func (f *fleet) findPairs(t *testing.T) {
	t.Helper()
	ends := make(map[string]record)
	for _, h := range []*simulated{f.web, f.db, f.app} {
		for _, r := range h.records() {
			if r.Type != "connection" || r.Phase != "end" {
				continue
			}
			if r.Comm == "billing" {
				f.refused = r
			}
			ends[fmt.Sprint(r.LocalAddr, r.LocalPort, r.PeerAddr, r.PeerPort)] = r
			other, found := ends[fmt.Sprint(r.PeerAddr, r.PeerPort, r.LocalAddr, r.LocalPort)]
			switch {
			case found && r.Comm == "backend":
				f.usualPair = [2]record{other, r}
			case found && r.Comm == "agent":
				f.local = [2]record{other, r}
			}
		}
	}
	if f.usualPair[0].Comm != "frontend" || f.local[0].Comm != "agent" || f.refused.Conn == "" {
		t.Fatalf("pairs are missing: %+v %+v %+v", f.usualPair, f.local, f.refused)
	}
}

// times matches the keys of a connection record that have a time.
var times = regexp.MustCompile(`"(time|opened)":"([^"]*)"`)

// copyYesterday adds copies of the usual services' connections, 24 hours earlier and with another boot id.
func (h *simulated) copyYesterday(bootID string) {
	h.t.Helper()
	var text strings.Builder
	for _, line := range h.lines() {
		if !strings.HasPrefix(line, `{"type":"connection"`) || !usual.MatchString(line) {
			continue
		}
		line = strings.Replace(line, h.bootID, bootID, 1)
		text.WriteString(times.ReplaceAllStringFunc(line, func(member string) string {
			match := times.FindStringSubmatch(member)
			at := must(time.Parse(time.RFC3339Nano, match[2])).Add(-24 * time.Hour)
			return fmt.Sprintf("%q:%q", match[1], at.Format("2006-01-02T15:04:05.000000000Z"))
		}))
	}
	path := h.logs + "/tcpshift.ndjson.20000101T000000.000000000Z"
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// Each query over two shards names the culprit of its question first, with the numbers that the culprit made. The
// modern schema gives the same answers in chDB.
func TestFleet_Culprits(t *testing.T) {
	c := startCluster(t, 2)
	for server := range 2 {
		c.execute(server, "legacy.sql")
		c.execute(server, "distributed.sql")
	}
	f := runHosts(t)
	for i, h := range []*simulated{f.web, f.db, f.app} {
		c.load(h, i%2, "fleet")
	}
	t.Run("shards", func(t *testing.T) { checkShards(t, c, f) })
	ask := func(name string) []row { return c.query(1, "fleet", f.question(t, name)) }
	t.Run("answers", func(t *testing.T) { f.checkAnswers(t, ask) })
	t.Run("modern", func(t *testing.T) { f.checkModern(t, ask) })
}

// checkShards compares how many rows the tables have with how many records were loaded, and checks that both servers have
// connections.
func checkShards(t *testing.T, c *cluster, f *fleet) {
	for _, table := range []string{"connection", "alert", "loss"} {
		want := 0
		for _, line := range f.lines {
			if strings.HasPrefix(line, `{"type":"`+table+`"`) {
				want++
			}
		}
		count := "SELECT count() AS rows FROM " + table
		first, second := c.query(0, "tcpshift", count)[0], c.query(1, "tcpshift", count)[0]
		both := c.query(0, "fleet", count)[0]
		if got := fmt.Sprint(both["rows"]); got != fmt.Sprint(want) {
			t.Errorf("%s has %s rows, want %d", table, got, want)
		}
		if table == "connection" && (fmt.Sprint(first["rows"]) == "0" || fmt.Sprint(second["rows"]) == "0") {
			t.Errorf("the shards have %v and %v connections, want some in each", first["rows"], second["rows"])
		}
	}
}
