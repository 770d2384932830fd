package cli_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	colmetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	"google.golang.org/protobuf/proto"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// exposition is one scrape.
type exposition map[string]*dto.MetricFamily

// freeAddress is an address of this host on which nobody listens.
func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// scrape reads and checks a whole exposition.
func scrape(t testing.TB, address string) exposition {
	t.Helper()
	response, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("the scrape: %s %v\n%s", response.Status, err, text)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	all, err := parser.TextToMetricFamilies(strings.NewReader(string(text)))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if problems, err := promlint.New(strings.NewReader(string(text))).Lint(); err != nil || len(problems) > 0 {
		t.Errorf("the linter: %v %v", problems, err)
	}
	return all
}

// sum is the sum of the series of a family that have these labels: name, value, name, value.
func (e exposition) sum(family string, labels ...string) (total float64) {
next:
	for _, each := range e[family].GetMetric() {
		has := make(map[string]string)
		for _, l := range each.GetLabel() {
			has[l.GetName()] = l.GetValue()
		}
		for i := 0; i < len(labels); i += 2 {
			if has[labels[i]] != labels[i+1] {
				continue next
			}
		}
		total += each.GetCounter().GetValue() + each.GetGauge().GetValue() + float64(each.GetHistogram().GetSampleCount())
	}
	return total
}

// awaitMetrics scrapes until a condition holds.
func awaitMetrics(t testing.TB, address, what string, holds func(e exposition) bool) exposition {
	t.Helper()
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		e := scrape(t, address)
		if holds(e) {
			return e
		}
		if limit := 2 * waitLimit; time.Since(began) > limit { // sockets are counted every 10 s at most
			t.Fatalf("no %s within %v: %v %v %v", what, limit, e["tcpshift_connections_total"], e["tcpshift_sockets"], e["tcpshift_sockets_counted_timestamp_seconds"])
		}
	}
}

// Connections count by role and end, also where the output has nothing but alerts; and what the counts say is
// what the connection records of another run say.
func TestMetrics_Connections(t *testing.T) {
	for name, only := range map[string]string{"with all records": "", "with alerts only": "alert"} {
		t.Run(name, func(t *testing.T) {
			requireRoot(t)
			n, address := tcplab.NewNetns(t), freeAddress(t)
			args := flags("--netns", strconv.FormatUint(uint64(n.Inode()), 10), "--metrics-listen", address)
			if only != "" {
				args = append(args, "--only", only)
			}
			tr := startTracer(t, args)
			const count = 20
			listener := n.Listen(tcplab.V4.At(7100))
			for range count {
				client := n.Dial(tcplab.V4.At(7100))
				server := listener.Accept()
				client.Close()
				server.ReadEOF()
				server.Close()
			}
			for range count / 2 {
				cmd := exec.Command("bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/1")
				n.Do(func() { _ = cmd.Run() })
			}
			e := awaitMetrics(t, address, "end of the connections", func(e exposition) bool {
				return e.sum("tcpshift_connections_total") >= 2*count+count/2 && e.sum("tcpshift_sockets", "state", "LISTEN") == 1
			})
			for _, want := range []struct {
				n      float64
				family string
				labels []string
			}{
				{count, "tcpshift_connections_total", []string{"role", "client", "closed_by", "local"}},
				{count, "tcpshift_connections_total", []string{"role", "server", "closed_by", "peer"}},
				{count / 2, "tcpshift_failed_connects_total", []string{"cause", "refused"}},
				{count, "tcpshift_handshake_duration_seconds", nil},
				{count, "tcpshift_connection_duration_seconds", []string{"role", "server"}},
				{count, "tcpshift_rtt_seconds", []string{"role", "client"}},
				{1, "tcpshift_build_info", nil},
				{1, "tcpshift_output_up", []string{"output", "stdout"}},
				{0, "tcpshift_transitions_lost_total", nil},
			} {
				if got := e.sum(want.family, want.labels...); got != want.n {
					t.Errorf("%s%v is %v, want %v", want.family, want.labels, got, want.n)
				}
			}
			if got := e.sum("tcpshift_transitions_total", "old_state", "SYN_SENT", "new_state", "ESTABLISHED"); (got == count) != (only == "") {
				t.Errorf("%v transitions, with --only %q", got, only)
			}
			if e.sum("process_cpu_seconds_total") == 0 || e.sum("process_resident_memory_bytes") < 1<<20 || e.sum("tcpshift_tracepoint_firings_total") == 0 {
				t.Error("tcpshift shows nothing of itself")
			}
			for _, path := range []string{"/healthz", "/readyz"} {
				response, err := http.Get("http://" + address + path)
				if err != nil {
					t.Fatal(err)
				}
				response.Body.Close()
				if response.StatusCode != http.StatusOK {
					t.Errorf("%s answers %s", path, response.Status)
				}
			}
			listener.Close()
			tr.stop()
		})
	}
}

// The sockets of a namespace count by state, and by the service that owns them. Those that are open when the tracer
// starts count as well.
func TestMetrics_Sockets(t *testing.T) {
	requireRoot(t)
	n, address := tcplab.NewNetns(t), freeAddress(t)
	const count = 30
	listener := n.Listen(tcplab.V4.At(7100))
	var open []*tcplab.Socket
	dial := func(count int) {
		for range count {
			open = append(open, n.Dial(tcplab.V4.At(7100)), listener.Accept())
		}
	}
	dial(count / 2)
	netns := strconv.FormatUint(uint64(n.Inode()), 10)
	tr := startTracer(t, flags("--netns", netns, "--metrics-listen", address))
	dial(count / 2)
	for range 5 { // each leaves a TIME_WAIT
		client := n.Dial(tcplab.V4.At(7100))
		server := listener.Accept()
		client.Close()
		server.ReadEOF()
		server.Close()
	}
	e := awaitMetrics(t, address, "count of all sockets", func(e exposition) bool {
		return e.sum("tcpshift_sockets", "state", "ESTABLISHED") == 2*count && e.sum("tcpshift_sockets", "state", "TIME_WAIT") == 5
	})
	for _, want := range []struct {
		n      float64
		family string
		labels []string
	}{
		{2 * count, "tcpshift_sockets", []string{"netns", netns, "state", "ESTABLISHED"}},
		{1, "tcpshift_sockets", []string{"netns", netns, "state", "LISTEN"}},
		{2*count + 1 + 5, "tcpshift_sockets", nil},
		{2*count + 1 + 5, "tcpshift_service_sockets", nil},
		{5, "tcpshift_service_sockets", []string{"service", "", "state", "TIME_WAIT"}},
		{0, "tcpshift_service_sockets", []string{"service", "", "state", "ESTABLISHED"}},
	} {
		if got := e.sum(want.family, want.labels...); got != want.n {
			t.Errorf("%s%v is %v, want %v\n%v", want.family, want.labels, got, want.n, e[want.family])
		}
	}
	for _, s := range open {
		s.Close()
	}
	listener.Close()
	tr.stop()
}

// In the sandbox it answers, too, with and without a web configuration, and leaves its own connections out.
func TestMetrics_Sandbox(t *testing.T) {
	requireSandbox(t)
	address := freeAddress(t)
	_, port, _ := net.SplitHostPort(address)
	tr := startTracer(t, flags("--sandbox", "--local-port", port, "--only", "transition,connection", "--metrics-listen", address))
	for range 5 {
		http.DefaultClient.CloseIdleConnections()
		if e := scrape(t, address); e.sum("process_resident_memory_bytes") == 0 {
			t.Error("no memory is shown")
		}
	}
	http.DefaultClient.CloseIdleConnections()
	s := tr.stop()
	for _, r := range s.records {
		if (r.Type == "transition" || r.Type == "connection") && r.Role != "client" {
			t.Errorf("it reports its own connection: %s", r.line)
		}
	}
}

// A scrape is not answered without the password of the web configuration.
func TestMetrics_WebConfig(t *testing.T) {
	requireSandbox(t)
	config, address := filepath.Join(t.TempDir(), "web.yml"), freeAddress(t)
	// The password is "secret".
	const text = "basic_auth_users:\n  prometheus: $2a$04$7sRmadHV8bBaoQtRWDuS2.5Us0IYr/.mvGIdE9MLKsSVP7oa5unzK\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	tr := startTracer(t, append(quiet, "--sandbox", "--metrics-listen", address, "--metrics-web-config", config))
	for password, want := range map[string]int{"secret": 200, "wrong": 401} {
		request, err := http.NewRequest(http.MethodGet, "http://"+address+"/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.SetBasicAuth("prometheus", password)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("the password %s: %s, want %d", password, response.Status, want)
		}
	}
	tr.stop()
}

// An OpenTelemetry receiver gets the same metrics, in the sandbox, too, and the last values at the end. The connection to
// it is left out.
func TestMetrics_OTLP(t *testing.T) {
	requireSandbox(t)
	var mu sync.Mutex
	clients := 0.0 // refused connects, in the last request
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		body, _ := io.ReadAll(request.Body)
		var message colmetrics.ExportMetricsServiceRequest
		if request.URL.Path != "/v1/metrics" || proto.Unmarshal(body, &message) != nil {
			http.Error(w, "no metrics", http.StatusBadRequest)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		for _, m := range message.GetResourceMetrics()[0].GetScopeMetrics()[0].GetMetrics() {
			if m.GetName() == "tcpshift_failed_connects_total" {
				clients = m.GetSum().GetDataPoints()[0].GetAsDouble()
			}
		}
	}))
	defer receiver.Close()
	n := tcplab.NewNetns(t)
	_, port, _ := net.SplitHostPort(receiver.Listener.Addr().String())
	tr := startTracer(t, flags("--sandbox", "--peer-port", "1,"+port,
		"--metrics-otlp", "otlp+http://"+receiver.Listener.Addr().String()))
	for range 5 {
		cmd := exec.Command("bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/1")
		n.Do(func() { _ = cmd.Run() })
	}
	n.Settle(0)
	s := tr.stop()
	mu.Lock()
	defer mu.Unlock()
	if clients < 5 {
		t.Errorf("the receiver has %v refused connects, want 5", clients)
	}
	for _, r := range s.records {
		if r.Role == "client" && strings.Contains(r.line, `"peer_port":`+port) {
			t.Errorf("it reports its own connection: %s", r.line)
		}
	}
}

// Bad addresses and files are said in one line, and nothing runs.
func TestMetrics_Errors(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, tt := range []struct {
		args   []string
		status int
		says   string
	}{
		{flags("--metrics-listen", "nonsense"), 2, `--metrics-listen: "nonsense" is not an address to listen on: use HOST:PORT, such as 127.0.0.1:9464`},
		{flags("--metrics-listen", "127.0.0.1:0"), 2, `--metrics-listen: "127.0.0.1:0" is not an address to listen on: use HOST:PORT, such as 127.0.0.1:9464`},
		{flags("--metrics-otlp", "tcp://127.0.0.1:4317"), 2, "--metrics-otlp: tcp://127.0.0.1:4317: is not the URL of an OpenTelemetry receiver: use otlp://HOST:PORT or otlp+http://HOST:PORT"},
		{flags("--metrics-otlp", "otlp://127.0.0.1:4317?queue=1MiB"), 2, "--metrics-otlp: otlp://127.0.0.1:4317?queue=1MiB: queue: is for records, not for metrics"},
		{flags("--metrics-web-config", "web.yml"), 2, "--metrics-web-config: nothing listens: add --metrics-listen, such as --metrics-listen 127.0.0.1:9464"},
		{flags("--metrics-listen", taken.Addr().String()), 1, fmt.Sprintf("--metrics-listen: %s is in use by another process: choose another port", taken.Addr())},
		{flags("--metrics-listen", "192.0.2.1:9464"), 1, "--metrics-listen: 192.0.2.1:9464 is no address of this host: use one of 'ip address'"},
	} {
		r := run(tt.args)
		r.mustEnd(t, tt.status)
		r.mustPrintError(t, tt.says)
	}
}
