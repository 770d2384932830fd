package cli_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// connectionRecord is what tests check of a connection record.
type connectionRecord struct {
	record
	Opened      string
	Duration    uint64 `json:"duration_ns"`
	Established uint64 `json:"established_ns"`
	Sent        uint64 `json:"sent_bytes"`
	Received    uint64 `json:"received_bytes"`
	RTT         uint64 `json:"rtt_ns"`
	Final       string `json:"final_state"`
	ClosedBy    string `json:"closed_by"`
	Error       string
	Partial     bool
}

// connections returns the connection records of a stream by conn. Each must agree with
// the record before it, which is its socket's last transition.
func connections(t *testing.T, s stream) map[string]connectionRecord {
	t.Helper()
	all := make(map[string]connectionRecord)
	for i, r := range s.records {
		if r.Type != "connection" {
			continue
		}
		e := connectionRecord{record: r}
		if err := json.Unmarshal([]byte(r.line), &e); err != nil {
			t.Fatalf("%v in %s", err, r.line)
		}
		if _, twice := all[e.Conn]; twice {
			t.Errorf("conn %s has two connection records: %s", e.Conn, e.line)
		}
		all[e.Conn] = e
		last := s.records[i-1]
		if last.Type == "transition" && (last.Conn != e.Conn || last.NewState != e.Final || last.Time != e.Time) {
			t.Errorf("a connection record that contradicts the transition before it:\n%s%s", last.line, e.line)
		}
	}
	return all
}

func (e *connectionRecord) mustBeTimed(t *testing.T) {
	t.Helper()
	opened, err := time.Parse(time.RFC3339Nano, e.Opened)
	if err != nil || e.Partial {
		t.Errorf("want opened, and not partial: %s: %v", e.line, err)
		return
	}
	at, err := time.Parse(time.RFC3339Nano, e.Time)
	if err != nil || at.Sub(opened) != time.Duration(e.Duration) || e.Established > e.Duration || e.Duration > uint64(waitLimit) {
		t.Errorf("its times contradict each other: %s", e.line)
	}
}

// dataAfterClose is a client that closes with much unsent data. The kernel answers
// later segments with a reset, and sets the error that a received reset would set.
func dataAfterClose(n *tcplab.Netns) (clientConn, serverConn string) {
	listener := n.Listen(plain.to)
	client := n.Dial(plain.to)
	server := listener.Accept()
	clientConn, serverConn = strconv.FormatUint(client.Cookie(), 16), strconv.FormatUint(server.Cookie(), 16)
	fill(n, client)
	client.Close()
	server.Write("too late")
	server.AwaitError(unix.ECONNRESET)
	server.Close()
	listener.Close()
	n.Settle(0)
	return clientConn, serverConn
}

// fill writes until the buffers of both sides are full.
func fill(n *tcplab.Netns, s *tcplab.Socket) {
	var err error
	n.Do(func() {
		chunk := make([]byte, 64<<10)
		for err == nil {
			_, err = unix.SendmsgN(s.FD, chunk, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		}
	})
	if !errors.Is(err, unix.EAGAIN) {
		panic(fmt.Sprintf("fill a socket: %v", err))
	}
}

// The client closes with unsent data and answers later segments with a reset: both sides
// have the error ECONNRESET, and only closed_by shows which one reset. Other ends are in
// test/kernel.
func TestConnection_DataAfterClose(t *testing.T) {
	n := tcplab.NewNetns(t)
	tr := startTracer(t, flags("--netns", fmt.Sprint(n.Inode())))
	client, server := dataAfterClose(n)
	got := tr.stop()
	all := connections(t, got)
	for conn, want := range map[string]string{client: "reset_sent", server: "reset_received"} {
		e := all[conn]
		if e.Error != "ECONNRESET" || e.ClosedBy != want {
			t.Errorf("the error is %q, closed by %q; want ECONNRESET and %q: %s\n%v", e.Error, e.ClosedBy, want, e.line, got.result)
		}
		e.mustBeTimed(t)
	}
}

// --time-wait-end emits the end of a TIME_WAIT; without it there is no record of it.
func TestTimewait_EndFlag(t *testing.T) {
	for _, asked := range []bool{true, false} {
		n := tcplab.NewNetns(t)
		n.Sysctl("net.ipv4.tcp_fin_timeout", "1")
		args := flags("--netns", fmt.Sprint(n.Inode()), "--new-state", "TIME_WAIT", fmt.Sprintf("--time-wait-end=%v", asked))
		tr := startTracer(t, args)
		out := tcplab.OrphanInFinWait2(n, tcplab.V4)
		for began := time.Now(); len(n.Table()) > 0; runtime.Gosched() {
			if time.Since(began) > waitLimit {
				t.Fatalf("the TIME_WAIT does not end: %v", n.Table())
			}
		}
		n.Settle(0)
		if asked { // the kernel takes a TIME_WAIT out of its table before it frees it
			tr.await("the end of the TIME_WAIT", func(line string) bool { return strings.Contains(line, `"time_wait_end"`) })
		}
		got := tr.stop()
		var came []string
		for _, r := range got.of("transition") {
			end := struct {
				How     string `json:"time_wait_end"`
				InState uint64 `json:"in_state_ns"`
			}{}
			if err := json.Unmarshal([]byte(r.line), &end); err != nil || r.Conn != strconv.FormatUint(out.Client.Cookie, 16) ||
				end.How != "" && end.InState < uint64(time.Second) {
				t.Errorf("want the client's conn, and in_state_ns of 1 s or more: %s: %v", r.line, err)
			}
			came = append(came, strings.TrimSpace(r.OldState+" "+r.NewState+" "+end.How))
		}
		want := []string{"FIN_WAIT2 TIME_WAIT"}
		if asked {
			want = append(want, "TIME_WAIT CLOSE expired")
		}
		if !slices.Equal(came, want) || got.last().TimeWaitEnds != uint64(len(want)-1) {
			t.Errorf("--time-wait-end=%v: got %q, want %q\n%v", asked, came, want, got.result)
		}
	}
}

// A connection record counts bytes in both directions, and has duration and round-trip
// time.
func TestConnection_BytesAndTimes(t *testing.T) {
	n := tcplab.NewNetns(t)
	tr := startTracer(t, flags("--netns", fmt.Sprint(n.Inode()), "--only", "connection"))
	listener := n.Listen(plain.to)
	client := n.Dial(plain.to)
	server := listener.Accept()
	for range 3 {
		client.Write(strings.Repeat("x", 100))
		for left := 100; left > 0; left -= len(server.Read()) {
			continue
		}
	}
	server.Write("seven b")
	client.Read()
	conns := []string{strconv.FormatUint(client.Cookie(), 16), strconv.FormatUint(server.Cookie(), 16)}
	client.Close()
	server.ReadEOF()
	server.Close()
	listener.Close()
	n.Settle(0)
	got := tr.stop()
	all := connections(t, got)
	for _, r := range got.records[1 : len(got.records)-1] {
		if r.Type != "connection" {
			t.Errorf("want connection records only, got %s: %s", r.Type, r.line)
		}
	}
	for i, want := range []struct {
		sent, received uint64
		final          string
	}{{300, 7, "TIME_WAIT"}, {7, 300, "CLOSE"}} {
		e := all[conns[i]]
		e.mustBeTimed(t)
		if e.Sent != want.sent || e.Received != want.received || e.Final != want.final || e.Established == 0 || e.RTT == 0 {
			t.Errorf("sent %d, received %d, final state %s; want %+v, established_ns and rtt_ns: %s",
				e.Sent, e.Received, e.Final, want, e.line)
		}
	}
	if len(all) != 3 {
		t.Errorf("%d connections, want client, server and listener\n%v", len(all), got.result)
	}
}

// A connection that is older than the tracer is partial: it has no times.
func TestConnection_OlderThanTracer(t *testing.T) {
	n := tcplab.NewNetns(t)
	listener := n.Listen(plain.to)
	client := n.Dial(plain.to)
	server := listener.Accept()
	client.Write("before the tracer")
	server.Read()
	tr := startTracer(t, flags("--netns", fmt.Sprint(n.Inode())))
	conn := strconv.FormatUint(client.Cookie(), 16)
	client.Close()
	server.ReadEOF()
	server.Close()
	n.Settle(1) // one live socket: the listener
	got := tr.stop()
	e := connections(t, got)[conn]
	if !e.Partial || e.Opened != "" || e.Duration != 0 || e.Established != 0 || e.Sent != 17 || e.ClosedBy != "local" {
		t.Errorf("want partial, 17 bytes sent, closed_by local: %s\n%v", e.line, got.result)
	}
}

// A connection record passes a filter if the last transition of its socket does.
func TestConnection_Filters(t *testing.T) {
	n := tcplab.NewNetns(t)
	rows := []struct {
		args []string
		want []string // of client, server and listener
	}{
		{flags("--new-state", "TIME_WAIT"), []string{"client"}},
		{flags("--new-state", "CLOSE"), []string{"listener", "server"}},
		{flags("--old-state", "LAST_ACK"), []string{"server"}},
		{flags("--new-state", "ESTABLISHED"), nil},
		{flags("--role", "client"), []string{"client"}},
		{flags("--local-port", "17001", "--only", "connection"), []string{"listener", "server"}},
	}
	var tracers []*tracer
	for _, row := range rows {
		tracers = append(tracers, launch(t, append(row.args, "--netns", fmt.Sprint(n.Inode()))))
	}
	for _, tr := range tracers {
		tr.awaitStart()
	}
	(&traffic{t: t, n: n}).connect(n, plain)
	n.Settle(0)
	for i, row := range rows {
		got := tracers[i].stop()
		t.Run(commandLine(append([]string{"tcpshift"}, row.args...)), func(t *testing.T) {
			var roles []string
			for _, e := range connections(t, got) {
				roles = append(roles, e.Role)
			}
			slices.Sort(roles)
			if !slices.Equal(roles, row.want) {
				t.Errorf("connection records of %q, want %q\n%v", roles, row.want, got.result)
			}
		})
	}
}
