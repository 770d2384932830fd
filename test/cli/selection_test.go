package cli_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
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
	if err := refused.TryConnect(crossed.to); !errors.Is(err, unix.ECONNREFUSED) {
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

// Each output has its own choice of keys, in the spelling of its schema. Equal choices are equal lines.
func TestFields_OfEachOutput(t *testing.T) {
	s := newTraffic(t)
	dir := t.TempDir()
	ecs, same := filepath.Join(dir, "ecs"), filepath.Join(dir, "same")
	tr := startTracer(t, append(s.byNetns(), "--only", "transition,connection", "--label", "site=a", "--fields", "conn,new_state,closed_by,read",
		"--output", "-", "--output", same+"?fields=closed_by,read,new_state,conn,conn",
		"--output", ecs+"?schema=ecs&fields=tcpshift.conn,source.port"))
	s.makeConnections()
	tr.signal(syscall.SIGTERM)
	r := tr.wait()
	r.mustEnd(t, 0)
	for i, line := range strings.SplitAfter(strings.TrimSuffix(r.stdout, "\n"), "\n") {
		want := map[string]string{
			"start":      `^{"type":"start","time":"[^"]+","seq":1,"site":"a"}`,
			"transition": `^{"type":"transition","time":"[^"]+","seq":\d+,"conn":"[0-9a-f]+","new_state":"[A-Z_0-9]+","site":"a"}`,
			"connection": `^{"type":"connection","time":"[^"]+","seq":\d+,"conn":"[0-9a-f]+"(,"closed_by":"[a-z_]+")?,"site":"a"}`,
			"stop":       `^{"type":"stop","time":"[^"]+","seq":\d+,"read":[1-9]\d*,"site":"a"}`,
		}[parseRecord(t, r, i, strings.TrimSuffix(line, "\n")+"\n").Type]
		if !regexp.MustCompile(want).MatchString(line) {
			t.Fatalf("%s does not match %s", line, want)
		}
	}
	untilStop := r.stdout[:strings.LastIndex(r.stdout, `{"type":"stop"`)] // each output has its own stop
	for path, want := range map[string]string{
		same: `^` + regexp.QuoteMeta(untilStop) + `{"type":"stop"`,
		ecs:  `^({"@timestamp":"[^"]+","event.sequence":\d+,"ecs.version":"[^"]+","event.dataset":"tcpshift.[a-z]+"(,"source.port":\d+)?(,"tcpshift.conn":"[0-9a-f]+")?,"labels":{"site":"a"}}\n)+$`,
	} {
		content, err := os.ReadFile(path)
		if err != nil || !regexp.MustCompile(want).Match(content) {
			t.Errorf("%s: %v\n%.600s\nwant %.600s", path, err, content, want)
		}
	}
}

// A snapshot has the keys that are chosen.
func TestFields_Snapshot(t *testing.T) {
	requireRoot(t)
	n := tcplab.NewNetns(t)
	n.Listen(plain.to)
	r := mustSucceed(t, "snapshot", "--netns", fmt.Sprint(n.Inode()), "--fields", "state,local_port")
	if !regexp.MustCompile(`^{"type":"socket","time":"[^"]+","seq":1,"local_port":17001,"state":"LISTEN"}\n$`).MatchString(r.stdout) {
		t.Errorf("want one socket with its port and state\n%v", r)
	}
}

// A sample has all records of a socket or none, and every listener; the account of what it leaves out
// adds up. Each record of a socket but a listener's has the size of the sample.
func TestSample_NeverSplitsASocket(t *testing.T) {
	requireRoot(t)
	n := tcplab.NewNetns(t)
	common := flags("--stats-interval", "0", "--only", "transition,connection", "--netns", fmt.Sprint(n.Inode()))
	tracers := []*tracer{launch(t, common), launch(t, append(common, "--sample", "1/2"))}
	for _, tr := range tracers {
		tr.awaitStart()
	}
	listener := n.Listen(plain.to)
	for range 40 {
		client := n.Dial(plain.to)
		server := listener.Accept()
		client.Close()
		server.ReadEOF()
		server.Close()
	}
	listener.Close()
	n.Settle(0)
	for _, tr := range tracers {
		tr.signal(syscall.SIGTERM)
	}
	ofSocket := func(s stream) map[string][]connectionRecord {
		sockets := make(map[string][]connectionRecord)
		for _, r := range eventRecords(t, s) {
			sockets[r.Conn] = append(sockets[r.Conn], r)
		}
		return sockets
	}
	whole, sampled := tracers[0].end("signal"), tracers[1].end("signal")
	all, some := ofSocket(whole), ofSocket(sampled)
	out := 0
	for conn, records := range all {
		got, isIn := some[conn]
		isListener := records[0].Role == "listener"
		switch {
		case isIn && eventNames(got) != eventNames(records):
			t.Errorf("socket %s has\n%swant\n%s", conn, eventNames(got), eventNames(records))
		case !isIn && isListener:
			t.Errorf("the listener is left out")
		case !isIn:
			out++
		}
		for _, r := range got {
			if strings.Contains(r.line, `"sampled":2}`) == isListener {
				t.Errorf("a record of a %s: %s", r.Role, r.line)
			}
		}
	}
	if len(all) != 81 || out == 0 || out == 80 {
		t.Errorf("%d sockets, %d of them left out; want 81 and some", len(all), out)
	}
	if stop := sampled.last(); stop.Read != whole.last().Read || stop.Dropped != uint64(5*out) {
		t.Errorf("its account is %s", stop.line)
	}
}

// What observes all sockets notices no sample: a summary has the sums that it has without one, and an alert opens.
func TestSample_ObserversSeeAll(t *testing.T) {
	requireRoot(t)
	n := tcplab.NewNetns(t)
	common := flags("--netns", fmt.Sprint(n.Inode()), "--summary", "1s", "--connect-failures", "10", "--stats-interval", "0")
	tracers := []*tracer{
		launch(t, append(common, "--only", "connection,alert,summary")),
		launch(t, append(common, "--only", "connection,alert,summary", "--sample", "1/1000")),
		launch(t, append(common, "--only", "connection,summary", "--sample", "1/1000")),
		launch(t, append(slices.Concat(common[:2], common[4:]), "--only", "connection,alert", "--sample", "1/1000")),
	}
	for _, tr := range tracers {
		tr.awaitStart()
	}
	const made = 30
	listener := n.Listen(plain.to)
	for range made {
		client := n.Dial(plain.to)
		server := listener.Accept()
		client.Write("x")
		server.Read()
		client.Close()
		server.ReadEOF()
		server.Close()
	}
	listener.Close()
	for range made {
		refused := n.Socket(crossed.from.Addr())
		if err := refused.TryConnect(crossed.to); !errors.Is(err, unix.ECONNREFUSED) {
			t.Fatalf("connect() without a listener: %v", err)
		}
		refused.Close()
	}
	n.Settle(0)
	isOpen := fmt.Sprintf(`"kind":"connect_failures","phase":"open".*"role":"client".*"peer_port":%d,`, crossed.to.Port())
	for _, i := range []int{0, 1, 3} {
		tracers[i].await("alert", regexp.MustCompile(isOpen).MatchString)
	}
	for _, tr := range tracers {
		tr.signal(syscall.SIGTERM)
	}
	whole := tracers[0].end("signal")
	want, ends := sumsOf(t, whole, "summary"), len(whole.of("connection"))
	if ends != 3*made+1 || len(want) < 3 {
		t.Errorf("%d connection records, want %d, and %d rows", ends, 3*made+1, len(want))
	}
	for _, tr := range tracers[1:] {
		s := tr.end("signal")
		if some := len(s.of("connection")); some > ends/2 {
			t.Errorf("%v: %d of %d connection records are in the sample", tr.cmd.Args, some, ends)
		}
		if got := sumsOf(t, s, "summary"); tr != tracers[3] && !maps.EqualFunc(got, want, maps.Equal[map[string]float64, map[string]float64]) {
			t.Errorf("%v: the summary has the sums\n%v\nwant\n%v", tr.cmd.Args, got, want)
		}
	}
}
