package pipelines_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	costBegin = "<!-- make pipeline-cost writes from here -->\n"
	costEnd   = "<!-- to here -->\n"
)

// costSelections are the rows of the table of costs, costSchemas its columns.
var (
	costSelections = []string{"", "connection", "connection,alert"}
	costSchemas    = []string{"native", "ecs", "otel"}
)

// TestCost_BytesPerConnection measures how many bytes a connection costs in the streams among which
// operators choose, with 1,000 connections a second, both ends of each traced. A connection record alone
// costs less than the full stream.
func TestCost_BytesPerConnection(t *testing.T) {
	needs(t)
	e := &example{t: t, dir: t.TempDir()}
	serve(t)
	line := "tcpshift"
	for i, only := range costSelections {
		query := ""
		if only != "" {
			query = "&only=" + only
		}
		for _, schema := range costSchemas {
			line += fmt.Sprintf(" --output '%s/%d-%s?host=true&schema=%s%s'", e.dir, i, schema, schema, query)
		}
	}
	e.tcpshift = e.start(line)
	e.await("start of tcpshift", func() bool { return len(e.want()) > 0 })
	began := time.Now()
	for i := range *costCount {
		if err := connectOnce(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Until(began.Add(time.Duration(i+1) * time.Millisecond)))
	}
	e.stop()
	ends := 2 * *costCount
	table := "| `--only` | schema | bytes a connection | GB a day | GB a day, gzip |\n|---|---|---|---|---|\n"
	sizes := make(map[string]int)
	for i, only := range costSelections {
		for _, schema := range costSchemas {
			name := fmt.Sprintf("%d-%s", i, schema)
			plain, zipped := streamSizes(t, e.dir+"/"+name, schema, ends)
			sizes[name] = plain
			table += fmt.Sprintf("| %s | %s | %d | %.1f | %.1f |\n", codeFont(only), codeFont(schema),
				plain/ends, perDay(plain, ends), perDay(zipped, ends))
		}
	}
	t.Log("\n" + table)
	for _, schema := range costSchemas {
		if sizes["1-"+schema]*2 > sizes["0-"+schema] {
			t.Errorf("%s: connections alone take %d bytes of %d, want less than half", schema, sizes["1-"+schema], sizes["0-"+schema])
		}
	}
	if *costDoc != "" {
		writeCosts(t, table)
	}
}

func codeFont(name string) string {
	if name == "" {
		return "everything"
	}
	return "`" + name + "`"
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

// streamSizes returns the size of a stream and of the stream compressed as tcpshift compresses files. The
// stream has one connection record for each end.
func streamSizes(t testing.TB, path, schema string, ends int) (plain, zipped int) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	kind := map[string]string{"native": `{"type":"connection"`, "ecs": `"event.dataset":"tcpshift.connection"`, "otel": `"event_name":"tcpshift.connection"`}[schema]
	if got := bytes.Count(text, []byte(kind)); got != ends {
		t.Fatalf("%s has %d connections, want %d", path, got, ends)
	}
	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	if _, err := zip.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := zip.Close(); err != nil {
		t.Fatal(err)
	}
	return len(text), out.Len()
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
