package otlp

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	collogs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	logs "go.opentelemetry.io/proto/otlp/logs/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/tcpshift/tcpshift/internal/output"
	"github.com/tcpshift/tcpshift/internal/safeopen"
	"github.com/tcpshift/tcpshift/test/testcert"
)

const tooLong = 20 * time.Second

// receiver is a receiver of OTLP over gRPC and HTTP. It keeps the records that it has accepted.
type receiver struct {
	collogs.UnimplementedLogsServiceServer

	mu       sync.Mutex
	records  []*logs.LogRecord
	resource map[string]any
	prefix   string                                                                                // of the path over HTTP
	answer   func(r *collogs.ExportLogsServiceRequest) (*collogs.ExportLogsServiceResponse, error) // nil: all is accepted
}

func (r *receiver) Export(_ context.Context, request *collogs.ExportLogsServiceRequest) (*collogs.ExportLogsServiceResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	response, err := &collogs.ExportLogsServiceResponse{}, error(nil)
	if r.answer != nil {
		response, err = r.answer(request)
	}
	if err != nil {
		return nil, err
	}
	for _, of := range request.ResourceLogs {
		r.resource = mapOf(of.Resource.Attributes)
		for _, scope := range of.ScopeLogs {
			r.records = append(r.records, scope.LogRecords...)
		}
	}
	return response, nil
}

// ServeHTTP is Export over HTTP.
func (r *receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	var logs collogs.ExportLogsServiceRequest
	if err != nil || request.URL.Path != r.prefix+"/v1/logs" || request.Header.Get("Content-Type") != "application/x-protobuf" || proto.Unmarshal(body, &logs) != nil {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	response, err := r.Export(request.Context(), &logs)
	switch status.Code(err) {
	case codes.OK:
	case codes.InvalidArgument:
		w.WriteHeader(http.StatusBadRequest)
		return
	default:
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
	b, _ := proto.Marshal(response)
	_, _ = w.Write(b)
}

func (r *receiver) all() []*logs.LogRecord {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]*logs.LogRecord(nil), r.records...)
}

// serve runs the receiver at an address; "": any.
func (r *receiver) serve(t *testing.T, address string, overHTTP bool, config *tls.Config) (at string, stop func()) {
	t.Helper()
	if address == "" {
		address = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	if overHTTP {
		server := &http.Server{Handler: r, TLSConfig: config, ErrorLog: nil, ReadHeaderTimeout: time.Minute}
		listener := l
		if config != nil {
			listener = tls.NewListener(l, config)
		}
		go func() { _ = server.Serve(listener) }()
		stop = func() { _ = server.Close() }
	} else {
		var options []grpc.ServerOption
		if config != nil {
			options = append(options, grpc.Creds(credentials.NewTLS(config)))
		}
		server := grpc.NewServer(options...)
		collogs.RegisterLogsServiceServer(server, r)
		go func() { _ = server.Serve(l) }()
		stop = server.Stop
	}
	t.Cleanup(stop)
	return l.Addr().String(), stop
}

func newExporter(t *testing.T, c Config) *Exporter {
	t.Helper()
	if c.Dial == nil {
		c.Dial = (&net.Dialer{}).DialContext
	}
	e, err := New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return e
}

func eachTransport(t *testing.T, f func(t *testing.T, overHTTP bool)) {
	t.Helper()
	for name, overHTTP := range map[string]bool{"grpc": false, "http": true} {
		t.Run(name, func(t *testing.T) { f(t, overHTTP) })
	}
}

func valueOfProto(v *common.AnyValue) any {
	switch v := v.Value.(type) {
	case *common.AnyValue_StringValue:
		return v.StringValue
	case *common.AnyValue_BoolValue:
		return v.BoolValue
	case *common.AnyValue_IntValue:
		return json.Number(strconv.FormatInt(v.IntValue, 10))
	case *common.AnyValue_DoubleValue:
		return v.DoubleValue
	case *common.AnyValue_ArrayValue:
		all := []any{}
		for _, each := range v.ArrayValue.Values {
			all = append(all, valueOfProto(each))
		}
		return all
	}
	return fmt.Sprintf("%T", v)
}

func mapOf(attributes []*common.KeyValue) map[string]any {
	m := make(map[string]any)
	for _, a := range attributes {
		m[a.Key] = valueOfProto(a.Value)
	}
	return m
}

// goldenLines are all golden records of the otel schema.
func goldenLines(t *testing.T) (lines []byte) {
	t.Helper()
	files, err := filepath.Glob("../record/testdata/otel/*.ndjson")
	if err != nil || len(files) < 8 {
		t.Fatalf("%d golden files, %v", len(files), err)
	}
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(b) {
			if bytes.HasPrefix(line, []byte("{")) {
				lines = append(lines, line...)
			}
		}
	}
	return lines
}

// Every golden record arrives with its nanoseconds, severity, event name, body, and all attributes with their
// types and exact integers; the resource says who sends.
func TestOTLP_GoldenRecords(t *testing.T) {
	lines := goldenLines(t)
	eachTransport(t, func(t *testing.T, overHTTP bool) {
		var r receiver
		address, _ := r.serve(t, "", overHTTP, nil)
		e := newExporter(t, Config{Address: address, HTTP: overHTTP, Version: "1.2", Host: "a host", Arch: "amd64"})
		if rejected, err := e.Export(t.Context(), lines); rejected != 0 || err != nil {
			t.Fatalf("Export: %d rejected, %v", rejected, err)
		}
		got, i := r.all(), 0
		for line := range bytes.Lines(lines) {
			if i == len(got) {
				t.Fatalf("%d records came, want %d", len(got), bytes.Count(lines, []byte("\n")))
			}
			checkRecord(t, got[i], line)
			i++
		}
		want := map[string]any{"service.name": "tcpshift", "service.version": "1.2", "host.name": "a host", "host.arch": "amd64", "os.type": "linux"}
		if !reflect.DeepEqual(r.resource, want) {
			t.Errorf("the resource is %v, want %v", r.resource, want)
		}
	})
}

// The path of a receiver comes before the one of the signal.
func TestOTLP_PathOfReceiver(t *testing.T) {
	r := receiver{prefix: "/tenant a/otlp"}
	address, _ := r.serve(t, "", true, nil)
	e := newExporter(t, Config{Address: address, HTTP: true, Path: r.prefix})
	if rejected, err := e.Export(t.Context(), goldenLines(t)); rejected != 0 || err != nil || len(r.all()) == 0 {
		t.Fatalf("Export: %d rejected, %v; %d records came", rejected, err, len(r.all()))
	}
}

func checkRecord(t *testing.T, got *logs.LogRecord, line []byte) {
	t.Helper()
	var want struct {
		Timestamp      time.Time      `json:"timestamp"`
		SeverityNumber int32          `json:"severity_number"`
		SeverityText   string         `json:"severity_text"`
		EventName      string         `json:"event_name"`
		Body           string         `json:"body"`
		Attributes     map[string]any `json:"attributes"`
	}
	d := json.NewDecoder(bytes.NewReader(line))
	d.UseNumber()
	if err := d.Decode(&want); err != nil {
		t.Fatal(err)
	}
	for key, value := range want.Attributes { // what the docs say of numbers
		n, ok := value.(json.Number)
		if _, err := n.Int64(); !ok || err == nil {
			continue
		}
		want.Attributes[key] = n.String()
		if strings.ContainsAny(n.String(), ".eE") {
			want.Attributes[key], _ = n.Float64()
		}
	}
	body := got.GetBody().GetStringValue()
	if got.TimeUnixNano != uint64(want.Timestamp.UnixNano()) || int32(got.SeverityNumber) != want.SeverityNumber ||
		got.SeverityText != want.SeverityText || got.EventName != want.EventName || body != want.Body {
		t.Errorf("the record is %v, want\n%s", got, line)
	}
	if attributes := mapOf(got.Attributes); !reflect.DeepEqual(attributes, want.Attributes) {
		t.Errorf("the attributes are\n%v, want\n%v", attributes, want.Attributes)
	}
}

const aRecord = `{"timestamp":"2026-11-22T12:23:24.112530594Z","severity_number":9,"severity_text":"info","event_name":"tcpshift.transition","attributes":{"tcpshift.seq":%d}}` + "\n"

func numbered(first, count int) string {
	var b strings.Builder
	for i := range count {
		fmt.Fprintf(&b, aRecord, first+i)
	}
	return b.String()
}

// Partial success and a request that the receiver cannot accept are no errors, and are counted: sending again would
// not help. Every other refusal is an error, after which the lines are the caller's.
func TestOTLP_Rejections(t *testing.T) {
	eachTransport(t, func(t *testing.T, overHTTP bool) {
		var r receiver
		address, _ := r.serve(t, "", overHTTP, nil)
		e := newExporter(t, Config{Address: address, HTTP: overHTTP})
		for _, each := range []struct {
			name     string
			lines    string
			partial  int64
			err      error
			rejected int
			fails    bool
		}{
			{"accepted", numbered(1, 5), 0, nil, 0, false},
			{"partial success", numbered(1, 5), 2, nil, 2, false},
			{"more than there are", numbered(1, 5), 99, nil, 5, false},
			{"less than none", numbered(1, 5), -3, nil, 0, false},
			{"invalid", numbered(1, 5), 0, status.Error(codes.InvalidArgument, "no"), 5, false},
			{"unavailable", numbered(1, 5), 0, status.Error(codes.Unavailable, "later"), 0, true},
			{"no records", "text\n{}\n", 0, nil, 2, false},
			{"a bad line", "text\n" + numbered(1, 2), 0, nil, 1, false},
			{"accepted again", numbered(1, 5), 0, nil, 0, false},
		} {
			r.mu.Lock()
			r.answer = func(*collogs.ExportLogsServiceRequest) (*collogs.ExportLogsServiceResponse, error) {
				if each.partial == 0 {
					return &collogs.ExportLogsServiceResponse{}, each.err
				}
				return &collogs.ExportLogsServiceResponse{PartialSuccess: &collogs.ExportLogsPartialSuccess{RejectedLogRecords: each.partial, ErrorMessage: "some"}}, nil
			}
			r.mu.Unlock()
			rejected, err := e.Export(t.Context(), []byte(each.lines))
			if rejected != each.rejected || (err != nil) != each.fails {
				t.Errorf("%s: %d rejected, %v; want %d and an error: %v", each.name, rejected, err, each.rejected, each.fails)
			}
		}
	})
}

// An output with a spool misses no record when its receiver is killed in the middle and comes back, and when it
// is away at the start. The order stays, except that a request may come again as a whole.
func TestOTLP_ReceiverKilled(t *testing.T) {
	eachTransport(t, func(t *testing.T, overHTTP bool) {
		const count = 60_000
		var r receiver
		address, stop := r.serve(t, "", overHTTP, nil)
		stop()
		root, err := safeopen.PrivateRoot(filepath.Join(t.TempDir(), "spool"))
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		remote := output.Remote{Network: "tcp", Address: address, Notify: func(string) {}, Spool: &output.Spool{Root: root, Name: "otlp", Size: 64 << 20}}
		remote.Export = newExporter(t, Config{Address: address, HTTP: overHTTP, Dial: remote.Dial})
		out, err := output.OpenRemote(t.Context(), remote)
		if err != nil {
			t.Fatal(err)
		}
		q := output.NewQueue(out, 1<<20, func(string) {})
		defer func() { q.Close(); _ = out.Close() }()
		for i := 0; i < count; i += 500 {
			for began := time.Now(); q.Full(); time.Sleep(time.Millisecond) {
				if time.Since(began) > tooLong {
					t.Fatal("the queue stays full although there is a spool")
				}
			}
			if _, err := q.Put([]byte(numbered(i, 500))); err != nil {
				t.Fatal(err)
			}
			switch i % 20_000 { // it is away for the first part, and dies in the middle of the others
			case 10_000:
				_, stop = r.serve(t, address, overHTTP, nil)
				awaitGrowth(t, &r)
			case 15_000:
				stop()
			}
		}
		_, stop = r.serve(t, address, overHTTP, nil)
		defer stop()
		place := make([]bool, count)
		for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
			missing := 0
			for _, each := range r.all() {
				place[each.Attributes[0].Value.GetIntValue()] = true
			}
			for _, there := range place {
				if !there {
					missing++
				}
			}
			if missing == 0 {
				break
			}
			if time.Since(began) > tooLong {
				t.Fatalf("%d records are missing", missing)
			}
		}
		next, again := int64(0), 0
		for i, each := range r.all() {
			n := each.Attributes[0].Value.GetIntValue()
			if n > next {
				t.Fatalf("record %d is number %d, after %d", i, n, next-1)
			}
			if n < next {
				again++
			}
			next = max(next, n+1)
		}
		t.Logf("%d records, %d of them twice", count, again)
	})
}

func awaitGrowth(t *testing.T, r *receiver) {
	t.Helper()
	before := len(r.all())
	for began := time.Now(); len(r.all()) == before; time.Sleep(5 * time.Millisecond) {
		if time.Since(began) > tooLong {
			t.Fatalf("no record after the first %d", before)
		}
	}
}

// With TLS both sides prove who they are. A receiver with another name gets nothing.
func TestOTLP_TLS(t *testing.T) {
	cert, pool := testcert.New(t, "right.test")
	eachTransport(t, func(t *testing.T, overHTTP bool) {
		var r receiver
		address, _ := r.serve(t, "", overHTTP, &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, NextProtos: []string{"h2", "http/1.1"}[boolIndex(overHTTP):]})
		config := &tls.Config{RootCAs: pool, ServerName: "right.test", Certificates: []tls.Certificate{cert}}
		if rejected, err := newExporter(t, Config{Address: address, HTTP: overHTTP, TLS: config}).Export(t.Context(), []byte(numbered(1, 3))); rejected != 0 || err != nil {
			t.Errorf("Export: %d rejected, %v", rejected, err)
		}
		wrong := config.Clone()
		wrong.ServerName = "wrong.test"
		if _, err := newExporter(t, Config{Address: address, HTTP: overHTTP, TLS: wrong}).Export(t.Context(), []byte(numbered(9, 1))); err == nil || !strings.Contains(err.Error(), "not wrong.test") {
			t.Errorf("Export to another name: %v", err)
		}
		if got := len(r.all()); got != 3 {
			t.Errorf("%d records came, want 3", got)
		}
	})
}

func boolIndex(b bool) int {
	if b {
		return 1
	}
	return 0
}
