package metrics_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

const (
	tcpshiftAddress   = "127.0.0.1:9464"
	prometheusAddress = "127.0.0.1:9090"
)

// scene is tcpshift in a network namespace, with Prometheus or without.
type scene struct {
	t      *testing.T
	n      *tcplab.Netns
	client *http.Client

	tcpshift *exec.Cmd
}

// newScene starts tcpshift.
func newScene(t *testing.T) *scene {
	t.Helper()
	if os.Geteuid() != 0 {
		skipMissing(t, "needs root, to load BPF programs and make namespaces")
	}
	s := &scene{t: t, n: tcplab.NewNetns(t)}
	s.n.Sysctl("net.ipv4.ip_local_port_range", "20000 20999")
	s.n.Sysctl("net.ipv4.tcp_tw_reuse", "0")
	s.client = &http.Client{Timeout: waitLimit, Transport: &http.Transport{DialContext: s.dial}}
	s.tcpshift = s.start(exec.Command(program, "--netns", strconv.FormatUint(uint64(s.n.Inode()), 10), "--only", "alert",
		"--output", filepath.Join(t.TempDir(), "alerts"), "--metrics-listen", tcpshiftAddress))
	s.await("answer of tcpshift", func() bool { return s.get("http://"+tcpshiftAddress+"/readyz") == "ok\n" })
	return s
}

// withPrometheus starts Prometheus as well. It scrapes every second, and evaluates the rules as often.
func withPrometheus(t *testing.T, native bool) *scene {
	t.Helper()
	server := prometheusProgram(t, "prometheus")
	s := newScene(t)
	dir := t.TempDir()
	rules, err := filepath.Abs(rulesDir + "/tcpshift.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [%q]\n"+
		"scrape_configs:\n  - job_name: tcpshift\n    static_configs: [{targets: [%q]}]\n", rules, tcpshiftAddress)
	path := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"--config.file=" + path, "--storage.tsdb.path=" + filepath.Join(dir, "tsdb"), "--web.listen-address=" + prometheusAddress, "--log.level=warn"}
	if native {
		args = append(args, "--enable-feature=native-histograms")
	}
	s.start(exec.Command(server, args...))
	s.await("first scrape", func() bool { return len(s.query("tcpshift_build_info")) == 1 })
	return s
}

// start runs a program in the namespace until the end of the test.
func (s *scene) start(cmd *exec.Cmd) *exec.Cmd {
	s.t.Helper()
	cmd.Stderr = os.Stderr
	var err error
	s.n.Do(func() { err = cmd.Start() })
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	})
	return cmd
}

// dial connects to an address in the namespace.
func (s *scene) dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	s.n.Do(func() { conn, err = new(net.Dialer).DialContext(ctx, network, address) })
	return conn, err
}

// get returns the body of an answer, "" if there is none.
func (s *scene) get(address string) string {
	response, err := s.client.Get(address)
	if err != nil {
		return ""
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	return string(text)
}

// sample is one series of the result of a query.
type sample struct {
	Metric map[string]string
	Value  []any
}

// query evaluates an expression now. An error fails the test.
func (s *scene) query(expression string) []sample {
	s.t.Helper()
	text := s.get("http://" + prometheusAddress + "/api/v1/query?query=" + url.QueryEscape(expression))
	if text == "" || strings.TrimSpace(text) == "Service Unavailable" { // it is not up yet
		return nil
	}
	var answer struct {
		Status, Error string
		Data          struct{ Result []sample }
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil || answer.Status != "success" {
		s.t.Fatalf("%s: %v %s", expression, err, text)
	}
	return answer.Data.Result
}

func (s *scene) await(what string, holds func() bool) {
	s.t.Helper()
	for began := time.Now(); !holds(); time.Sleep(200 * time.Millisecond) {
		if time.Since(began) > waitLimit {
			s.t.Fatalf("no %s within %v", what, waitLimit)
		}
	}
}

// storm makes connections that end in TIME_WAIT, until done is closed or nearly all ports are taken.
func (s *scene) storm(done <-chan struct{}) {
	at := tcplab.V4.At(80)
	listener := s.n.Listen(at)
	defer listener.Close()
	for range 990 { // of 1000 ports
		select {
		case <-done:
			return
		default:
		}
		client := s.n.Dial(at)
		server := listener.Accept()
		client.Close()
		server.ReadEOF()
		server.Close()
		time.Sleep(5 * time.Millisecond)
	}
	<-done
}

// panels returns the queries of a dashboard, by title, with its variables replaced.
func panels(t *testing.T, path string) map[string]string {
	t.Helper()
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr, RefID string }
		}
	}
	if err := json.Unmarshal([]byte(readFile(t, path)), &dashboard); err != nil {
		t.Fatal(err)
	}
	queries := make(map[string]string)
	variables := strings.NewReplacer("$__rate_interval", "30s", "$instance", tcpshiftAddress)
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			queries[p.Title+" "+target.RefID] = variables.Replace(target.Expr)
		}
	}
	if len(queries) < 10 {
		t.Fatalf("%s has %d queries", path, len(queries))
	}
	return queries
}

// A storm shows in Prometheus as it is: its connections, its TIME_WAITs, the ports that it takes, and the alert that
// tcpshift raises, which the rules pass on. Every query of the dashboards and every recording rule has a result. With
// native histograms, and without.
func TestPrometheus_Storm(t *testing.T) {
	for name, native := range map[string]bool{"classic": false, "native": true} {
		t.Run(name, func(t *testing.T) {
			s := withPrometheus(t, native)
			done, ended := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(ended)
				s.storm(done)
			}()
			stop := func() {
				select {
				case <-done:
				default:
					close(done)
				}
				<-ended
			}
			defer stop()
			for range 5 {
				cmd := exec.Command("bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/1")
				s.n.Do(func() { _ = cmd.Run() })
			}
			s.await("alert", func() bool {
				return len(s.query(`ALERTS{alertname=~"TcpshiftAlert(Warning|Critical)", kind="time_wait_storm"}`)) > 0
			})
			s.await("use of the ports", func() bool { return len(s.query("tcpshift_ephemeral_ports_used_ratio > 0.3")) == 1 })
			s.await("count of TIME_WAITs", func() bool { return len(s.query(`tcpshift_sockets{state="TIME_WAIT"} > 100`)) == 1 })
			dashboards, err := filepath.Glob("../../deploy/grafana/*.json")
			if err != nil || len(dashboards) != 2 {
				t.Fatalf("the dashboards are %q: %v", dashboards, err)
			}
			for _, path := range dashboards {
				for title, query := range panels(t, path) {
					if native && strings.Contains(query, "_bucket") { // Prometheus 2.42 stores either kind
						continue
					}
					s.await("result of "+title+": "+query, func() bool { return len(s.query(query)) > 0 })
				}
			}
			for _, record := range []string{"connections:rate5m", "failed_connects:rate5m", "failed_connects:ratio5m", "handshake_duration_seconds:p99_5m", "rtt_seconds:p99_5m"} {
				s.await("result of the rule "+record, func() bool { return native && strings.Contains(record, "p99") || len(s.query("tcpshift:"+record)) > 0 })
			}
			s.checkHistograms(native)
			stop()
			if got := s.query(`sum(tcpshift_connections_total{role="client", closed_by="local"})`); len(got) != 1 {
				t.Errorf("the connections of the clients are %v", got)
			}
		})
	}
}

// checkHistograms checks that the histograms have the buckets for which Prometheus asks.
func (s *scene) checkHistograms(native bool) {
	s.t.Helper()
	classic := len(s.query("tcpshift_handshake_duration_seconds_bucket"))
	if (classic > 0) == native {
		s.t.Errorf("%d classic buckets, with native histograms: %v", classic, native)
	}
	if native {
		s.await("native histogram", func() bool {
			return len(s.query("histogram_quantile(0.99, rate(tcpshift_handshake_duration_seconds[30s])) > 0")) == 1
		})
	}
}

// promtool has no complaint about what tcpshift exposes.
func TestPrometheus_Lint(t *testing.T) {
	promtool := prometheusProgram(t, "promtool")
	s := newScene(t)
	cmd := exec.Command(promtool, "check", "metrics")
	cmd.Stdin = strings.NewReader(s.get("http://" + tcpshiftAddress + "/metrics"))
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}
