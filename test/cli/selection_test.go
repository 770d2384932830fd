package cli_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// selectionCase is a selection, and which records of all it writes.
type selectionCase struct {
	args  []string
	match func(r *connectionRecord) bool
}

func ofConnections(match func(r *connectionRecord) bool) func(r *connectionRecord) bool {
	return func(r *connectionRecord) bool { return r.Type != "connection" || match(r) }
}

var selectionCases = []selectionCase{
	{flags("--closed-by", "refused"), ofConnections(func(r *connectionRecord) bool { return r.ClosedBy == "refused" })},
	{flags("--closed-by", "local,peer"), ofConnections(func(r *connectionRecord) bool { return r.ClosedBy == "local" || r.ClosedBy == "peer" })},
	{flags("--error", "ECONNREFUSED"), func(r *connectionRecord) bool { return r.Error == "ECONNREFUSED" }},
	{flags("--min-bytes", "1KiB"), ofConnections(func(r *connectionRecord) bool { return r.Sent+r.Received >= 1<<10 })},
	{flags("--min-duration", "1h"), ofConnections(func(*connectionRecord) bool { return false })},
	{flags("--error", "ETIMEDOUT", "--closed-by", "refused"), func(*connectionRecord) bool { return false }},
	{flags("--pod", "no-such-pod"), func(*connectionRecord) bool { return false }},
}

// eventRecords are the transitions and connections of a stream.
func eventRecords(t *testing.T, s stream) (all []connectionRecord) {
	t.Helper()
	for _, r := range s.records {
		if r.Type != "transition" && r.Type != "connection" {
			continue
		}
		e := connectionRecord{record: r}
		if err := json.Unmarshal([]byte(r.line), &e); err != nil {
			t.Fatalf("%v in %s", err, r.line)
		}
		all = append(all, e)
	}
	return all
}

// eventNames name each record without its times, which differ from one tracer to the next.
func eventNames(records []connectionRecord) string {
	var names []string
	for _, r := range records {
		names = append(names, fmt.Sprintln(r.Type, r.Conn, r.OldState, r.NewState, r.Final, r.ClosedBy, r.Sent, r.Received, r.Error))
	}
	return strings.Join(names, "")
}

// A selection writes those records of all that it names, and drops the rest.
func TestSelection_Flags(t *testing.T) {
	requireRoot(t)
	n := tcplab.NewNetns(t)
	common := flags("--stats-interval", "0", "--only", "transition,connection", "--netns", fmt.Sprint(n.Inode()))
	tracers := []*tracer{launch(t, common)}
	for _, c := range selectionCases {
		tracers = append(tracers, launch(t, slices.Concat(common, c.args)))
	}
	for _, tr := range tracers {
		tr.awaitStart()
	}
	listener := n.Listen(plain.to)
	client := n.Dial(plain.to)
	server := listener.Accept()
	client.Write(strings.Repeat("x", 2000))
	for read := 0; read < 2000; {
		read += len(server.Read())
	}
	quickClient := n.Dial(plain.to)
	quickServer := listener.Accept()
	quickServer.Close()
	quickClient.ReadEOF()
	quickClient.Close()
	refused := n.Socket(crossed.from.Addr())
	if err := refused.TryConnect(crossed.to); err != unix.ECONNREFUSED {
		t.Fatalf("connect() without a listener: %v", err)
	}
	refused.Close()
	client.Close()
	server.ReadEOF()
	server.Close()
	listener.Close()
	n.Settle(0)

	for _, tr := range tracers {
		tr.signal(syscall.SIGTERM)
	}
	all := eventRecords(t, tracers[0].end("signal"))
	for i, c := range selectionCases {
		got := tracers[i+1].end("signal")
		want := slices.DeleteFunc(slices.Clone(all), func(r connectionRecord) bool { return !c.match(&r) })
		if g, w := eventNames(eventRecords(t, got)), eventNames(want); g != w {
			t.Errorf("%v: got\n%s\nwant\n%s\n%v", c.args, g, w, got.result)
		}
		if i < 4 && (len(want) == len(all) || len(want) == 0) {
			t.Errorf("%v: it selects %d records of %d", c.args, len(want), len(all))
		}
		if stop := got.last(); stop.Read == 0 || stop.Lost != 0 || stop.LostQueue != 0 {
			t.Errorf("%v: its account is %s", c.args, stop.line)
		}
	}
}
