package cli_test

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// updateRecord is what tests check of connection records with a phase.
type updateRecord struct {
	connectionRecord
	State       string
	Retransmits uint64
	Cwnd        uint64
	Family      string
	Mapped      bool
	PIDSource   string `json:"pid_source"`
}

// phasesOf returns the connection records of each conn, in their order. They must be updates, and then at most one
// end; what counts up must not fall.
func phasesOf(t *testing.T, s stream) map[string][]updateRecord {
	t.Helper()
	all := make(map[string][]updateRecord)
	for _, r := range s.of("connection") {
		u := updateRecord{connectionRecord: connectionRecord{record: r}}
		if err := json.Unmarshal([]byte(r.line), &u); err != nil {
			t.Fatalf("%v in %s", err, r.line)
		}
		if before := all[u.Conn]; len(before) > 0 {
			mustFollow(t, &before[len(before)-1], &u)
		}
		isUpdate := u.Phase == "update"
		if !isUpdate && u.Phase != "end" || isUpdate == (u.State == "") || isUpdate == (u.Final != "") || isUpdate != (u.Cwnd > 0) || isUpdate && u.ClosedBy != "" {
			t.Errorf("neither an update nor an end: %s", u.line)
		}
		all[u.Conn] = append(all[u.Conn], u)
	}
	return all
}

// mustFollow checks two successive records of a connection.
func mustFollow(t *testing.T, before, after *updateRecord) {
	t.Helper()
	if before.Phase == "end" || before.Time >= after.Time || before.Opened != after.Opened || before.Partial != after.Partial {
		t.Errorf("these do not follow each other:\n%s%s", before.line, after.line)
	}
	if after.Sent < before.Sent || after.Received < before.Received || after.Retransmits < before.Retransmits ||
		after.Duration < before.Duration || after.Established < before.Established {
		t.Errorf("a number falls:\n%s%s", before.line, after.line)
	}
}

// updatesOf are the updates of one connection.
func updatesOf(all map[string][]updateRecord, conn string) []updateRecord {
	return slices.DeleteFunc(slices.Clone(all[conn]), func(u updateRecord) bool { return u.Phase != "update" })
}

func connOf(s *tcplab.Socket) string { return strconv.FormatUint(s.Cookie(), 16) }

// isUpdateOf finds an update of a connection that has all of these members.
func isUpdateOf(conn string, members ...string) func(line string) bool {
	return func(line string) bool {
		for _, member := range append(members, `"phase":"update"`, `"conn":"`+conn+`"`) {
			if !strings.Contains(line, member) {
				return false
			}
		}
		return true
	}
}

// transfer writes n bytes and reads them at the other end.
func transfer(from, to *tcplab.Socket, n int) {
	from.Write(strings.Repeat("x", n))
	for n > 0 {
		n -= len(to.Read())
	}
}

// updating starts a tracer with updates each second in a namespace.
func updating(t *testing.T, n *tcplab.Netns, more ...string) *tracer {
	t.Helper()
	return startTracer(t, append(flags("--netns", fmt.Sprint(n.Inode()), "--updates", "1s"), more...))
}

// stopUpdating is stop for a tracer whose walks may be late, which it says on standard error.
func stopUpdating(t *testing.T, tr *tracer) stream {
	t.Helper()
	tr.signal(syscall.SIGTERM)
	r := tr.wait()
	r.mustEnd(t, 0)
	if r.stderr != "" && !strings.Contains(r.stderr, "late_updates") {
		t.Errorf("standard error: %s", r.stderr)
	}
	return parseStream(t, r)
}

// A long connection has its transitions, an update with what it has done until then, another with more, and an end
// with all of it. A short one has its end only.
func TestUpdates_WholeLife(t *testing.T) {
	n := tcplab.NewNetns(t)
	tr := updating(t, n)
	listener := n.Listen(plain.to)
	short := n.Dial(plain.to)
	shortConn := connOf(short)
	accepted := listener.Accept()
	short.Close()
	accepted.ReadEOF()
	accepted.Close()
	client := n.Dial(plain.to)
	server := listener.Accept()
	conn, serverConn, listenerConn := connOf(client), connOf(server), connOf(listener)
	transfer(client, server, 100)
	tr.await("first update", isUpdateOf(conn, `"sent_bytes":100,`))
	transfer(client, server, 1000)
	transfer(server, client, 7)
	tr.await("second update", isUpdateOf(conn, `"sent_bytes":1100,`, `"received_bytes":7,`))
	tr.await("update of the server", isUpdateOf(serverConn, `"sent_bytes":7,`))
	client.Close()
	server.ReadEOF()
	server.Close()
	listener.Close()
	n.Settle(0)
	got := stopUpdating(t, tr)

	var sequence []string
	for _, r := range got.records {
		if r.Conn != conn {
			continue
		}
		what := r.OldState + " " + r.NewState
		if r.Type == "connection" {
			what = r.Phase
		}
		if len(sequence) == 0 || sequence[len(sequence)-1] != what {
			sequence = append(sequence, what)
		}
	}
	want := []string{"CLOSE SYN_SENT", "SYN_SENT ESTABLISHED", "update", "ESTABLISHED FIN_WAIT1", "FIN_WAIT1 FIN_WAIT2", "FIN_WAIT2 TIME_WAIT", "end"}
	if !slices.Equal(sequence, want) {
		t.Errorf("the long connection has %q, want %q\n%v", sequence, want, got.result)
	}
	all := phasesOf(t, got)
	for who, c := range map[string]struct {
		conn, role     string
		sent, received uint64
	}{"client": {conn, "client", 1100, 7}, "server": {serverConn, "server", 7, 1100}} {
		updates, last := updatesOf(all, c.conn), all[c.conn][len(all[c.conn])-1]
		if len(updates) < 2 || last.Phase != "end" || last.Sent != c.sent || last.Received != c.received {
			t.Errorf("the %s has %d updates, and ends with %s", who, len(updates), last.line)
		}
		for _, u := range updates {
			if u.Role != c.role || u.State != "ESTABLISHED" || u.PID != uint32(os.Getpid()) || u.RTT == 0 || u.Duration < 1e9 || u.Established == 0 || u.LocalPort != last.LocalPort || u.PeerPort != last.PeerPort {
				t.Errorf("an update of the %s: %s", who, u.line)
			}
		}
	}
	if len(all[shortConn]) != 1 || all[shortConn][0].Phase != "end" || len(updatesOf(all, listenerConn)) != 0 {
		t.Errorf("the short connection has %+v, the listener %+v", all[shortConn], all[listenerConn])
	}
}

// Updates name the family, the addresses and the role of every kind of connection.
func TestUpdates_Families(t *testing.T) {
	n := tcplab.NewNetns(t)
	tr := updating(t, n, "--only", "connection")
	for _, tt := range []struct {
		connection
		family string
		mapped bool
	}{{plain, "ipv4", false}, {ipv6, "ipv6", false}, {mapped, "ipv4", true}} {
		listener := n.Listen(tt.to)
		client := n.Socket(tt.from.Addr())
		client.Bind(tt.from)
		client.Connect(tt.to)
		server := listener.Accept()
		address := tt.from.Addr().Unmap().String()
		for socket, role := range map[*tcplab.Socket]string{client: "client", server: "server"} {
			local, peer := tt.from, tt.to
			if role == "server" {
				local, peer = peer, local
			}
			tr.await(tt.name+" "+role, isUpdateOf(connOf(socket), `"family":"`+tt.family+`",`, fmt.Sprintf(`"local_addr":%q,"local_port":%d,`, address, local.Port()),
				fmt.Sprintf(`"peer_addr":%q,"peer_port":%d,`, address, peer.Port()), `"role":"`+role+`",`))
		}
		client.Close()
		server.ReadEOF()
		server.Close()
		listener.Close()
	}
	n.Settle(0)
	for _, records := range phasesOf(t, stopUpdating(t, tr)) {
		for _, u := range records {
			if u.Mapped != (u.LocalPort == mapped.from.Port() || u.LocalPort == mapped.to.Port()) {
				t.Errorf("mapped: %s", u.line)
			}
		}
	}
}

// Half-closed connections and those in a handshake have updates with their state; TIME_WAITs, listeners and
// requests have none. A FIN is no payload.
func TestUpdates_HalfClosed(t *testing.T) {
	n := tcplab.NewNetns(t)
	tr := updating(t, n, "--only", "connection")
	listener := n.Listen(plain.to)
	client := n.Dial(plain.to)
	server := listener.Accept()
	transfer(client, server, 10)
	client.Shutdown(unix.SHUT_WR)
	server.ReadEOF()
	silent := n.Listen(crossed.to)
	silent.DropIncoming()
	opening := n.Socket(crossed.from.Addr())
	opening.StartConnect(crossed.to)
	conns := map[string]string{connOf(client): "FIN_WAIT2", connOf(server): "CLOSE_WAIT", connOf(opening): "SYN_SENT"}
	for conn, state := range conns {
		tr.await(state, isUpdateOf(conn, `"state":"`+state+`"`))
	}
	opening.Close()
	server.Close()
	client.Close()
	silent.Close()
	listener.Close()
	n.Settle(0)
	all := phasesOf(t, stopUpdating(t, tr))
	for conn, records := range all {
		for _, u := range updatesOf(all, conn) {
			if u.State != conns[conn] {
				t.Errorf("want the state %q: %s", conns[conn], u.line)
			}
		}
		if sent := records[len(records)-1].Sent; conns[conn] == "FIN_WAIT2" && sent != 10 || conns[conn] == "SYN_SENT" && sent != 0 {
			t.Errorf("%d bytes sent", sent)
		}
	}
}

// A connection that is older than the tracer has updates, with the owner that the scan has found, and is partial.
func TestUpdates_OlderThanTracer(t *testing.T) {
	n := tcplab.NewNetns(t)
	listener := n.Listen(plain.to)
	client := n.Dial(plain.to)
	server := listener.Accept()
	transfer(client, server, 10)
	tr := updating(t, n, "--only", "connection")
	pid := fmt.Sprintf(`"pid":%d,`, os.Getpid())
	tr.await("update of the client", isUpdateOf(connOf(client), pid, `"pid_source":"scan"`, `"sent_bytes":10,`, `"partial":true`))
	tr.await("update of the server", isUpdateOf(connOf(server), pid, `"pid_source":"scan"`, `"received_bytes":10,`, `"partial":true`))
	client.Close()
	server.ReadEOF()
	server.Close()
	listener.Close()
	n.Settle(0)
	phasesOf(t, stopUpdating(t, tr))
}

// Filters in the kernel and the sample apply to updates.
func TestUpdates_FiltersAndSelections(t *testing.T) {
	n := tcplab.NewNetns(t)
	tr := updating(t, n, "--only", "connection", "--peer-port", "17001")
	var open []*tcplab.Socket
	connect := func(c connection) *tcplab.Socket {
		listener := n.Listen(c.to)
		client := n.Dial(c.to)
		open = append(open, client, listener.Accept(), listener)
		return client
	}
	connect(crossed)
	selected := connect(plain)
	sampled := startTracer(t, flags("--netns", fmt.Sprint(n.Inode()), "--updates", "1s", "--only", "connection", "--sample", "1/2"))
	for range 40 {
		connect(newConnection("", "127.0.0.1:1", fmt.Sprintf("127.0.0.1:%d", 20000+len(open))))
	}
	conn := connOf(selected)
	for range 2 {
		tr.await("update", isUpdateOf(conn))
	}
	for range 60 {
		sampled.await("update", func(line string) bool { return strings.Contains(line, `"phase":"update"`) })
	}
	for _, s := range open {
		s.Close()
	}
	n.Settle(0)
	for other := range phasesOf(t, stopUpdating(t, tr)) {
		if other != conn {
			t.Errorf("a record of conn %s, which the filter leaves out", other)
		}
	}
	ends, updates := make(map[string]bool), make(map[string]bool)
	got := stopUpdating(t, sampled)
	for _, r := range got.of("connection") {
		if r.Phase == "end" {
			ends[r.Conn] = true
		} else {
			updates[r.Conn] = true
		}
		if !strings.Contains(r.line, `"sampled":2`) && r.Role != "listener" {
			t.Errorf("not sampled: %s", r.line)
		}
	}
	for conn := range updates {
		if !ends[conn] {
			t.Errorf("conn %s is split by the sample", conn)
		}
	}
}

// In the sandbox there are updates as well, of connections in another namespace.
func TestUpdates_Sandbox(t *testing.T) {
	n := tcplab.NewNetns(t)
	tr := updating(t, n, "--only", "connection", "--sandbox")
	listener := n.Listen(plain.to)
	client := n.Dial(plain.to)
	server := listener.Accept()
	tr.await("update", isUpdateOf(connOf(client)))
	client.Close()
	server.Close()
	listener.Close()
	n.Settle(0)
	got := stopUpdating(t, tr)
	phasesOf(t, got)
	if strings.Contains(got.result.stderr, "no updates") {
		t.Error(got.result.stderr)
	}
}

// Each of a thousand connections has updates on both ends, and none is missed.
func TestUpdates_Thousand(t *testing.T) {
	n := tcplab.NewNetns(t)
	tr := updating(t, n, "--only", "connection")
	listener := n.Listen(plain.to)
	var open []*tcplab.Socket
	waiting := make(map[string]bool)
	for range 1000 {
		client := n.Dial(plain.to)
		server := listener.Accept()
		open = append(open, client, server)
		waiting[connOf(client)], waiting[connOf(server)] = true, true
	}
	tr.await("update of each connection", func(line string) bool {
		var u struct{ Conn, Phase string }
		if json.Unmarshal([]byte(line), &u) == nil && u.Phase == "update" {
			delete(waiting, u.Conn)
		}
		return len(waiting) == 0
	})
	for _, s := range open {
		s.Close()
	}
	listener.Close()
	n.Settle(0)
	got := stopUpdating(t, tr)
	all := phasesOf(t, got)
	if len(all) != 2001 || !strings.Contains(got.last().line, `"missed_updates":0,`) {
		t.Errorf("%d connections; %s", len(all), got.last().line)
	}
}

// However a walk meets the end of a connection, no update comes after the end.
func TestUpdates_RacesWithEnd(t *testing.T) {
	n := tcplab.NewNetns(t)
	tr := updating(t, n, "--only", "connection")
	for round := range 3 {
		at := plain.to.Port() + uint16(round)
		listener := n.Listen(tcplab.V4.At(at))
		var open []*tcplab.Socket
		for range 300 {
			open = append(open, n.Dial(tcplab.V4.At(at)), listener.Accept())
		}
		// The walk has just begun.
		tr.await("update", func(line string) bool {
			return strings.Contains(line, `"phase":"update"`) && strings.Contains(line, fmt.Sprintf(`_port":%d,`, at))
		})
		for _, s := range open {
			s.Close()
		}
		listener.Close()
	}
	n.Settle(0)
	all := phasesOf(t, stopUpdating(t, tr))
	for conn, records := range all {
		if records[len(records)-1].Phase != "end" {
			t.Errorf("conn %s has no end: %s", conn, records[len(records)-1].line)
		}
	}
	if len(all) != 3*601 {
		t.Errorf("%d connections", len(all))
	}
}
