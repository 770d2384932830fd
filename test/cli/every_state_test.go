package cli_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// socketRecord is a record of a snapshot.
type socketRecord struct {
	record
	State     string
	Substate  string  `json:"time_wait_substate"`
	Expires   int64   `json:"expires_in_ns"`
	UID       *uint32 `json:"uid"`
	PIDSource string  `json:"pid_source"`
	Cgroup    string
}

// everyState is a namespace with a socket in each state that lasts.
type everyState struct {
	n       *tcplab.Netns
	peer    *peer
	sockets []string // in order, formatted by line
}

const (
	mine    = "mine"
	peers   = "the peer's"
	noOwner = "no owner"
)

func line(state, local, remote, owner string) string {
	return fmt.Sprintf("%-12s %s > %s %s", state, local, remote, owner)
}

func newEveryState(t *testing.T) *everyState {
	t.Helper()
	g := &everyState{n: tcplab.NewNetns(t)}
	at := netip.MustParseAddrPort
	show := func(state, local, remote, owner string) {
		g.sockets = append(g.sockets, line(state, local, remote, owner))
	}

	listener := g.n.Listen(at("0.0.0.0:17101"))
	show("LISTEN", "0.0.0.0:17101", "-", mine)
	dual := g.n.Listen(at("[::]:17102"))
	show("LISTEN", "[::]:17102", "-", mine)

	from := func(l *tcplab.Socket, local, remote string) (client, server *tcplab.Socket) {
		client = g.n.Socket(at(local).Addr())
		client.Bind(at(local))
		client.Connect(at(remote))
		return client, l.Accept()
	}
	from(listener, "127.0.0.1:18101", "127.0.0.1:17101")
	show("ESTABLISHED", "127.0.0.1:18101", "127.0.0.1:17101", mine)
	show("ESTABLISHED", "127.0.0.1:17101", "127.0.0.1:18101", mine)
	from(dual, "[::1]:18102", "[::1]:17102")
	show("ESTABLISHED", "[::1]:18102", "[::1]:17102", mine)
	show("ESTABLISHED", "[::1]:17102", "[::1]:18102", mine)
	from(dual, "[::ffff:127.0.0.1]:18103", "[::ffff:127.0.0.1]:17102")
	show("ESTABLISHED", "127.0.0.1:18103", "127.0.0.1:17102", mine)
	show("ESTABLISHED", "127.0.0.1:17102", "127.0.0.1:18103", mine)

	client, server := from(listener, "127.0.0.1:18104", "127.0.0.1:17101")
	client.Close()
	server.ReadEOF()
	server.Close()
	show("TIME_WAIT", "127.0.0.1:18104", "127.0.0.1:17101", noOwner+" TIME_WAIT")
	client, server = from(dual, "[::1]:18105", "[::1]:17102")
	client.Shutdown(unix.SHUT_WR)
	server.ReadEOF()
	client.Await(tcplab.FinWait2)
	client.Close()
	show("TIME_WAIT", "[::1]:18105", "[::1]:17102", noOwner+" FIN_WAIT2")
	show("CLOSE_WAIT", "[::1]:17102", "[::1]:18105", mine)

	pending := g.n.Socket(at("127.0.0.1:0").Addr())
	pending.Bind(at("127.0.0.1:18107"))
	pending.DropIncoming()
	pending.StartConnect(at("127.0.0.1:17101"))
	show("SYN_SENT", "127.0.0.1:18107", "127.0.0.1:17101", mine)
	show("NEW_SYN_RECV", "127.0.0.1:17101", "127.0.0.1:18107", noOwner)

	g.peer = startPeer(t, g.n, peerComm, at("127.0.0.1:18106"), at("127.0.0.1:17101"))
	g.peer.connect()
	listener.Accept()
	show("ESTABLISHED", "127.0.0.1:18106", "127.0.0.1:17101", peers)
	show("ESTABLISHED", "127.0.0.1:17101", "127.0.0.1:18106", mine)

	slices.Sort(g.sockets)
	g.await(t)
	return g
}

// await waits until /proc/net/tcp lists the wanted number of sockets, because a close
// takes effect later.
func (g *everyState) await(t *testing.T) {
	t.Helper()
	for began := time.Now(); ; runtime.Gosched() {
		table := g.n.Table()
		if len(table) == len(g.sockets) && slices.ContainsFunc(table, func(e tcplab.Entry) bool {
			return e.Timewait && e.State == tcplab.TimeWait
		}) {
			return
		}
		if time.Since(began) > waitLimit {
			t.Fatalf("the kernel lists %d sockets, want %d:\n%v", len(table), len(g.sockets), table)
		}
	}
}

// snapshot runs the command and checks what is true of every snapshot.
func snapshot(t *testing.T, args ...string) ([]socketRecord, result) {
	t.Helper()
	r := run(append(flags("snapshot"), args...))
	r.mustEnd(t, 0)
	r.mustPrintError(t, "")
	var all []socketRecord
	for i, text := range strings.SplitAfter(r.stdout, "\n") {
		if text == "" {
			continue
		}
		l := socketRecord{record: parseRecord(t, r, i, text)}
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		if l.Type != "socket" || i > 0 && l.Time != all[0].Time {
			t.Errorf("line %d is not a socket record with the time of the first: %s", i+1, text)
		}
		all = append(all, l)
	}
	return all, r
}

// of returns the records of the namespace as lines.
func (g *everyState) of(t *testing.T, all []socketRecord) []string {
	t.Helper()
	var lines []string
	for i := range all {
		if l := &all[i]; l.Netns == g.n.Inode() {
			lines = append(lines, line(l.State, endpointOf(l.LocalAddr, l.LocalPort), endpointOf(l.PeerAddr, l.PeerPort), g.owner(t, l)))
		}
	}
	slices.Sort(lines)
	return lines
}

func endpointOf(addr string, port uint16) string {
	if addr == "" {
		return "-"
	}
	return netip.AddrPortFrom(netip.MustParseAddr(addr), port).String()
}

// owner checks name, source and user of the owner.
func (g *everyState) owner(t *testing.T, l *socketRecord) string {
	t.Helper()
	if l.PID == 0 {
		if l.Comm != nil || l.PIDSource != "" {
			t.Errorf("a name or a source without a pid: %s", l.line)
		}
		return strings.TrimSpace(noOwner + " " + l.Substate)
	}
	who, comm := "of "+fmt.Sprint(l.PID), ""
	switch int(l.PID) {
	case os.Getpid():
		name, err := os.ReadFile("/proc/self/comm")
		if err != nil {
			t.Fatal(err)
		}
		who, comm = mine, strings.TrimSuffix(string(name), "\n")
	case g.peer.pid():
		who, comm = peers, peerComm
	}
	if l.Comm == nil || *l.Comm != comm || l.PIDSource != "scan" || l.UID == nil || *l.UID != 0 {
		t.Errorf("want owner %q, uid 0, pid_source scan: %s", comm, l.line)
	}
	return who
}
