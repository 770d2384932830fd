package pipelines_test

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/otlp"
)

// The Collector delivers each record with exact time, severity, numbers and names.
func TestOtelcol_File(t *testing.T) {
	needs(t)
	build(t, "otelcol", ".")
	e := openExample(t, "otelcol-file.yaml")
	freshFiles(t)
	backend := listenOTLP(t, "127.0.0.1:4318")
	e.trace()
	e.start(e.command("otelcol"))
	makeConnections(t)
	count := len(e.stop())
	want := readLines("/var/log/tcpshift.ndjson")
	if len(want) != count {
		t.Fatalf("the file has %d records, the second output %d", len(want), count)
	}
	more := extremeLines(t, want)
	appendLines(t, "/var/log/tcpshift.ndjson", more)
	want = append(want, more...)
	var got []string
	e.await("record of each line", func() bool { got = backend.read(); return len(got) >= len(want) })
	if len(got) != len(want) {
		t.Errorf("%d records arrived, want %d", len(got), len(want))
	}
	for i := range min(len(got), len(want)) {
		if line := fileRecordOf(t, want[i]); got[i] != line {
			t.Fatalf("record %d arrived as\n%s\nwant\n%s", i, got[i], line)
		}
	}
}

// Records that tcpshift itself sends by OTLP arrive behind the Collector as they were.
func TestOtelcol_OTLP(t *testing.T) {
	needs(t)
	build(t, "otelcol", ".")
	e := openExample(t, "otelcol-otlp.yaml")
	freshFiles(t)
	backend := listenOTLP(t, "127.0.0.1:4318")
	e.start(e.command("otelcol"))
	e.trace()
	makeConnections(t)
	want := e.stop()
	var got []string
	arrived := func() bool { got = backend.read(); return len(got) >= len(want) }
	e.await("record of each line", arrived)
	more := extremeLines(t, want)
	exportLines(t, otlp.Config{Address: "127.0.0.1:4317"}, more)
	want = append(want, more...)
	e.await("record of each extreme line", arrived)
	if len(got) != len(want) {
		t.Errorf("%d records arrived, want %d", len(got), len(want))
	}
	for i := range min(len(got), len(want)) {
		expected, arrived := otlpOf(t, want[i]), decode(t, got[i])
		if event := expected["event"]; event == "tcpshift.stats" || event == "tcpshift.stop" {
			expected["time"] = arrived["time"] // each output has its own
		}
		if line := encode(t, expected); encode(t, arrived) != line {
			t.Fatalf("record %d arrived as\n%s\nwant\n%s", i, got[i], line)
		}
	}
}

// exportLines sends lines of the schema otel with the exporter of tcpshift.
func exportLines(t testing.TB, config otlp.Config, lines []string) {
	t.Helper()
	config.Dial = (&net.Dialer{}).DialContext
	exporter, err := otlp.New(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer exporter.Close()
	rejected, err := exporter.Export(t.Context(), []byte(strings.Join(lines, "\n")+"\n"))
	if err != nil || rejected > 0 {
		t.Fatalf("export %d lines: %d are rejected, %v", len(lines), rejected, err)
	}
}

// fileRecordOf is what a line of the schema otel must become behind the file receiver, as [otlpBackend] keeps it.
func fileRecordOf(t testing.TB, line string) string {
	t.Helper()
	expected := otlpOf(t, line)
	attributes := expected["attributes"].(map[string]any)
	attributes["event_name"] = expected["event"] // the file receiver cannot set the event's name
	delete(expected, "event")
	return encode(t, expected)
}

// otlpOf is what a line of the schema otel must become.
func otlpOf(t testing.TB, line string) map[string]any {
	t.Helper()
	record := decode(t, line)
	at, err := time.Parse(time.RFC3339Nano, record["timestamp"].(string))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"time": at.UnixNano(), "number": record["severity_number"], "text": record["severity_text"],
		"event": record["event_name"], "attributes": record["attributes"],
	}
	if body, found := record["body"]; found {
		want["body"] = body
	}
	return want
}

// otlpBackend keeps the log records that arrive by OTLP over HTTP, in JSON.
type otlpBackend struct {
	t     testing.TB
	mu    sync.Mutex
	lines []string
}

func listenOTLP(t testing.TB, address string) *otlpBackend {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	backend := &otlpBackend{t: t}
	server := &http.Server{Handler: backend, ReadHeaderTimeout: waitLimit}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return backend
}

func (b *otlpBackend) read() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.lines...)
}

func (b *otlpBackend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body io.Reader = r.Body
	if r.Header.Get("Content-Encoding") == "gzip" {
		unzip, err := gzip.NewReader(body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		body = unzip
	}
	var request otlpRequest
	if err := json.NewDecoder(body).Decode(&request); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, resource := range request.ResourceLogs {
		for _, scope := range resource.ScopeLogs {
			for _, record := range scope.LogRecords {
				b.lines = append(b.lines, encode(b.t, record.canonical()))
			}
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, "{}")
}

// otlpRequest is the part of an export request that the tests compare.
type otlpRequest struct {
	ResourceLogs []struct {
		ScopeLogs []struct {
			LogRecords []otlpRecord `json:"logRecords"`
		} `json:"scopeLogs"`
	} `json:"resourceLogs"`
}

type otlpRecord struct {
	TimeUnixNano   string          `json:"timeUnixNano"`
	SeverityNumber int             `json:"severityNumber"`
	SeverityText   string          `json:"severityText"`
	EventName      string          `json:"eventName"`
	Body           otlpValue       `json:"body"`
	Attributes     []otlpAttribute `json:"attributes"`
}

type otlpAttribute struct {
	Key   string    `json:"key"`
	Value otlpValue `json:"value"`
}

type otlpValue struct {
	String *string      `json:"stringValue"`
	Bool   *bool        `json:"boolValue"`
	Int    *json.Number `json:"intValue"` // text, as Protobuf's JSON has 64-bit numbers
	Double *float64     `json:"doubleValue"`
	Array  *struct {
		Values []otlpValue `json:"values"`
	} `json:"arrayValue"`
}

func (v otlpValue) plain() any {
	switch {
	case v.String != nil:
		return *v.String
	case v.Bool != nil:
		return *v.Bool
	case v.Int != nil:
		return json.Number(strings.Trim(v.Int.String(), `"`))
	case v.Double != nil:
		return json.Number(strconv.FormatFloat(*v.Double, 'f', -1, 64))
	case v.Array != nil:
		var all []any
		for _, each := range v.Array.Values {
			all = append(all, each.plain())
		}
		return all
	}
	return nil
}

func (r otlpRecord) canonical() map[string]any {
	attributes := make(map[string]any)
	for _, each := range r.Attributes {
		attributes[each.Key] = each.Value.plain()
	}
	record := map[string]any{
		"time": json.Number(r.TimeUnixNano), "number": r.SeverityNumber, "text": r.SeverityText, "attributes": attributes,
	}
	if r.EventName != "" {
		record["event"] = r.EventName
	}
	if body := r.Body.plain(); body != nil {
		record["body"] = body
	}
	return record
}
