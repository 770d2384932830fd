package pipelines_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	costBegin = "<!-- make pipeline-cost writes from here -->\n"
	costEnd   = "<!-- to here -->\n"
)

// costFields is a small choice of keys: who talked to whom, for how long, how much, and how it ended.
const costFields = "conn,role,comm,local_addr,local_port,peer_addr,peer_port,duration_ns,sent_bytes,received_bytes,closed_by"

// costSelections are the rows of the table of costs with three schemas, costSchemas these.
var (
	costSelections = []string{"", "connection", "connection,alert"}
	costSchemas    = []string{"native", "ecs", "otel"}
)

// costSample is N of the row with a sample.
const costSample = 10

// costRow is a row of the table: what a stream of these connections takes.
type costRow struct {
	options, schema string
	plain, zipped   int // bytes
	ends            int // of connections
}

// TestCost_BytesPerConnection measures how many bytes a connection costs in the streams among which
// operators choose, with 1,000 connections a second, both ends of each traced. A connection record alone
// costs less than the full stream, a choice of keys or a sample less than that.
func TestCost_BytesPerConnection(t *testing.T) {
	needs(t)
	serve(t)
	rows := costsOfSelections(t)
	rows = append(rows, costOfSample(t), costOfSummary(t))
	if err := os.MkdirAll("/var/log/tcpshift", 0o755); err != nil {
		t.Fatal(err)
	}
	rows = append(rows, costOfProfile(t, "edge", ""), costOfProfile(t, "host", "/var/log/tcpshift/connections.ndjson"),
		costOfProfile(t, "forensic", "/var/log/tcpshift/records.ndjson"))
	table := "| options | schema | bytes a connection | GB a day | GB a day, gzip |\n|---|---|---|---|---|\n"
	size := make(map[string]int)
	for _, row := range rows {
		size[row.options+row.schema] = row.plain
		table += fmt.Sprintf("| %s | %s | %s | %s | %s |\n", row.options, codeFont(row.schema), threeDigits(float64(row.plain)/float64(row.ends)),
			threeDigits(perDay(row.plain, row.ends)), threeDigits(perDay(row.zipped, row.ends)))
	}
	t.Log("\n" + table)
	connections := codeFont("--only connection")
	for _, schema := range costSchemas {
		if some, all := size[connections+schema], size["everything"+schema]; some*2 > all {
			t.Errorf("%s: connections alone take %d bytes of %d, want less than half", schema, some, all)
		}
	}
	for _, row := range rows {
		if some, all := row.plain, size[connections+"native"]; row.options != connections && strings.Contains(row.options, "--only connection ") && some >= all {
			t.Errorf("%s takes %d bytes, want less than the %d of all keys of all connections", row.options, some, all)
		}
	}
	if *costDoc != "" {
		writeCosts(t, table)
	}
}

// costsOfSelections measures each selection in each schema, and a choice of keys, in one run.
func costsOfSelections(t testing.TB) (rows []costRow) {
	t.Helper()
	e := &example{t: t, dir: t.TempDir()}
	line := "tcpshift"
	add := func(options, schema, query string) {
		line += fmt.Sprintf(" --output '%s/%d?host=true&schema=%s%s'", e.dir, len(rows), schema, query)
		rows = append(rows, costRow{options: options, schema: schema})
	}
	for _, only := range costSelections {
		for _, schema := range costSchemas {
			if only == "" {
				add("everything", schema, "")
			} else {
				add(codeFont("--only "+only), schema, "&only="+only)
			}
		}
	}
	add(codeFont("--only connection --fields")+" and 11 keys", "native", "&only=connection&fields="+costFields)
	e.traceCost(line)
	for i := range rows {
		rows[i].measure(t, fmt.Sprintf("%s/%d", e.dir, i))
		rows[i].checkConnections(t, fmt.Sprintf("%s/%d", e.dir, i))
	}
	return rows
}

// costOfSample measures a sample, whose size is random.
func costOfSample(t testing.TB) costRow {
	t.Helper()
	e := &example{t: t, dir: t.TempDir()}
	sample := fmt.Sprintf("--only connection --sample 1/%d", costSample)
	e.traceCost(fmt.Sprintf("tcpshift %s --output '%s/0?host=true'", sample, e.dir))
	row := costRow{options: codeFont(sample), schema: "native"}
	row.measure(t, e.dir+"/0")
	got, want := bytes.Count([]byte(readText(e.dir+"/0")), []byte(`{"type":"connection"`)), row.ends/costSample
	if got < want/2 || got > want*2 {
		t.Errorf("the sample has %d connections, want about %d", got, want)
	}
	return row
}

// costOfSummary measures a summary of each second. The connections do not begin and end with a second of the wall
// clock, so the size is that of as many windows as there are thousands of connections.
func costOfSummary(t testing.TB) costRow {
	t.Helper()
	e := &example{t: t, dir: t.TempDir()}
	e.traceCost(fmt.Sprintf("tcpshift --only summary --summary 1s --output '%s/0?host=true'", e.dir))
	row := costRow{options: codeFont("--only summary --summary 1s"), schema: "native"}
	row.measure(t, e.dir+"/0")
	windows := make(map[string]bool)
	for _, match := range regexp.MustCompile(`"window_start":"[^"]*"`).FindAllString(readText(e.dir+"/0"), -1) {
		windows[match] = true
	}
	if len(windows) == 0 {
		t.Fatal("the stream has no summary")
	}
	row.plain = row.plain * *costCount / 1000 / len(windows)
	row.zipped = row.zipped * *costCount / 1000 / len(windows)
	return row
}

// costOfProfile measures a profile as it is: the file that it writes, or, without one, what it sends to the journal.
// With a profile, tcpshift reads its variables: those of the test are none of them.
func costOfProfile(t testing.TB, profile, path string) costRow {
	t.Helper()
	journal, received := openJournal(t)
	defer journal.Close()
	e := &example{t: t, dir: t.TempDir()}
	p := e.start(fmt.Sprintf("exec env -i %s/program --port %d --profile %s", scratch, trafficPort, profile))
	e.await("start of tcpshift", func() bool { return received.Load() > 0 })
	connectForCost(t)
	if profile == "forensic" && *costDoc != "" {
		time.Sleep(timewaitLength)
	}
	p.end(syscall.SIGTERM)
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("--profile %s ends with status %d: %s", profile, code, p.output.String())
	}
	row := costRow{options: codeFont("--profile " + profile), schema: "native", ends: 2 * *costCount}
	if path != "" {
		row.measure(t, path)
		row.checkConnections(t, path)
	} else {
		row.plain = int(received.Load()) // start and stop, as long as there is no alert
		row.zipped = row.plain           // the journal compresses no entry of this size
	}
	return row
}

// timewaitLength is a little longer than a TIME_WAIT, whose end is a transition of its own with time-wait-end.
const timewaitLength = 62 * time.Second

// openJournal takes the entries that are sent to systemd's journal, and counts their bytes.
func openJournal(t testing.TB) (journal *net.UnixConn, received *atomic.Int64) {
	t.Helper()
	const path = "/run/systemd/journal/socket"
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	_ = os.Remove(path)
	journal, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	received = new(atomic.Int64)
	go func() {
		entry := make([]byte, 1<<20)
		for {
			n, err := journal.Read(entry)
			if err != nil {
				return
			}
			received.Add(int64(n))
		}
	}()
	return journal, received
}

// traceCost runs a command line of tcpshift while connections come.
func (e *example) traceCost(line string) {
	e.t.Helper()
	e.tcpshift = e.start(line)
	e.await("start of tcpshift", func() bool { return len(e.want()) > 0 })
	connectForCost(e.t)
	e.stop()
}

// connectForCost makes 1,000 connections a second.
func connectForCost(t testing.TB) {
	t.Helper()
	began := time.Now()
	for i := range *costCount {
		if err := connectOnce(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Until(began.Add(time.Duration(i+1) * time.Millisecond)))
	}
}

func codeFont(name string) string { return "`" + name + "`" }

// threeDigits rounds to three digits, and writes no exponent.
func threeDigits(x float64) string {
	switch {
	case x >= 100:
		return fmt.Sprintf("%.0f", x)
	case x >= 10:
		return fmt.Sprintf("%.1f", x)
	case x >= 1:
		return fmt.Sprintf("%.2f", x)
	}
	return fmt.Sprintf("%.3f", x)
}

// perDay is how many GB the bytes of these ends of connections are in a day with 1,000 of them a second.
func perDay(bytes, ends int) float64 {
	return float64(bytes) / float64(ends) * 1000 * 86400 / 1e9
}

func connectOnce() error {
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", trafficPort))
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("hello\n")); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	if n, err := io.Copy(io.Discard, conn); err != nil || n != 3000 {
		return fmt.Errorf("the answer has %d bytes, %w", n, err)
	}
	return nil
}

// measure takes the size of a stream, and of the stream compressed as tcpshift compresses files.
func (row *costRow) measure(t testing.TB, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	if _, err := zip.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := zip.Close(); err != nil {
		t.Fatal(err)
	}
	row.plain, row.zipped, row.ends = len(text), out.Len(), 2**costCount
}

// checkConnections checks that the stream has one connection record for each end.
func (row *costRow) checkConnections(t testing.TB, path string) {
	t.Helper()
	kind := map[string]string{"native": `{"type":"connection"`, "ecs": `"event.dataset":"tcpshift.connection"`, "otel": `"event_name":"tcpshift.connection"`}[row.schema]
	if got := strings.Count(readText(path), kind); got != row.ends {
		t.Fatalf("%s, %s: %d connections, want %d", row.options, row.schema, got, row.ends)
	}
}

// writeCosts puts the table into the page, with machine and date.
func writeCosts(t testing.TB, table string) {
	t.Helper()
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		t.Fatal(err)
	}
	text := readText(*costDoc)
	before, rest, found := strings.Cut(text, costBegin)
	_, after, foundEnd := strings.Cut(rest, costEnd)
	if !found || !foundEnd {
		t.Fatalf("%s has no place for the table", *costDoc)
	}
	head := fmt.Sprintf("%s, Linux %s %s, %d CPUs, %d connections:\n\n",
		time.Now().UTC().Format(time.DateOnly), unix.ByteSliceToString(uts.Release[:]), runtime.GOARCH, runtime.NumCPU(), *costCount)
	if err := os.WriteFile(*costDoc, []byte(before+costBegin+"\n"+head+table+"\n"+costEnd+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
