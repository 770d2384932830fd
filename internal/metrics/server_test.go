package metrics

import (
	"compress/gzip"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/httpserver"
	"github.com/tcpshift/tcpshift/internal/tcp"
	"github.com/tcpshift/tcpshift/test/testcert"
)

// serve answers for m on a port of its own.
func serve(t *testing.T, m *Metrics, webConfig string) (address string) {
	t.Helper()
	s, err := httpserver.Listen("127.0.0.1:0", webConfig, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Serve(m.Handler(), func(err error) { t.Errorf("the server ends: %v", err) })
	t.Cleanup(func() { _ = s.Close() })
	return s.Addr().String()
}

func get(t *testing.T, client *http.Client, url string, change func(*http.Request)) (status int, body string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(request)
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// A client that accepts gzip gets it, and a client that refuses it gets the same bytes as they are.
func TestServer_Compression(t *testing.T) {
	m := newTest(t, 0)
	handler := m.Handler() // answers within gatherEvery have the same values
	answer := func(accept string) *httptest.ResponseRecorder {
		request := httptest.NewRequest(http.MethodGet, "/metrics", nil)
		request.Header.Set("Accept-Encoding", accept)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, request)
		return w
	}
	plain := answer("gzip;q=0, identity")
	if encoding := plain.Header().Get("Content-Encoding"); encoding != "" {
		t.Errorf("encoding %q, which the client refuses", encoding)
	}
	small := answer("zstd, gzip")
	if encoding := small.Header().Get("Content-Encoding"); encoding != "gzip" {
		t.Fatalf("encoding %q, want gzip", encoding)
	}
	length := small.Body.Len()
	unpacked, err := gzip.NewReader(small.Body)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(unpacked)
	if err != nil {
		t.Fatal(err)
	}
	if string(text) != plain.Body.String() {
		t.Errorf("as gzip:\n%s\nwithout:\n%s", text, plain.Body)
	}
	if 3*length > len(text) {
		t.Errorf("%d bytes as gzip, %d without", length, len(text))
	}
}

// The states of a run show at /readyz, and a loop that hangs at /healthz.
func TestServer_Health(t *testing.T) {
	m := newTest(t, 0)
	address := serve(t, m, "")
	check := func(path string, want int) {
		t.Helper()
		if status, body := get(t, http.DefaultClient, "http://"+address+path, nil); status != want {
			t.Errorf("%s answers %d, want %d: %s", path, status, want, body)
		}
	}
	check("/readyz", 503)
	check("/healthz", 200)
	m.Started()
	m.Due(time.Now())
	check("/readyz", 200)
	check("/healthz", 200)
	m.Due(time.Now().Add(-2 * stuckAfter))
	check("/healthz", 503)
	m.Stopping()
	check("/readyz", 503)
	check("/metrics", 200)
	check("/", 200)
	check("/debug/pprof/", 404)
}

// With a web configuration the server wants TLS and a password. A new file counts at once.
func TestServer_WebConfig(t *testing.T) {
	m := newTest(t, 0)
	dir := t.TempDir()
	pool, _, _ := testcert.Write(t, dir, "metrics.test")
	config := filepath.Join(dir, "web.yml")
	write := func(password string) {
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprintf("tls_server_config:\n  cert_file: cert.pem\n  key_file: key.pem\nbasic_auth_users:\n  prometheus: %s\n", hash)
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("first")
	address := serve(t, m, config)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "metrics.test"}}}
	with := func(password string) func(*http.Request) {
		return func(r *http.Request) { r.SetBasicAuth("prometheus", password) }
	}
	if status, body := get(t, client, "https://"+address+"/metrics", with("first")); status != 200 || !strings.Contains(body, "tcpshift_build_info") {
		t.Errorf("with the password: %d %s", status, body)
	}
	for name, change := range map[string]func(*http.Request){"another password": with("second"), "no password": nil} {
		if status, body := get(t, client, "https://"+address+"/metrics", change); status != 401 || strings.Contains(body, "tcpshift_") {
			t.Errorf("with %s: %d %s", name, status, body)
		}
	}
	if status, body := get(t, http.DefaultClient, "http://"+address+"/metrics", with("first")); status == 200 {
		t.Errorf("without TLS: %d %s", status, body)
	}
	write("second")
	if status, body := get(t, client, "https://"+address+"/metrics", with("second")); status != 200 {
		t.Errorf("with a new password: %d %s", status, body)
	}
}

// Local users who keep connections without a request, with the beginning of one, or with an answer that they do
// not read, do not keep others from scraping.
func TestServer_ScrapedBesideOthers(t *testing.T) {
	m := newTest(t, 0)
	for i := range maxNames { // more than a socket's buffers take
		for _, way := range tcp.WaysToClose() {
			m.Add(ended(fmt.Sprintf("%s-%d", strings.Repeat("s", 200), i), tcp.RoleClient, way))
		}
	}
	for name, request := range map[string]string{
		"silent":        "",
		"begun":         "GET /met",
		"answered":      "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
		"does not read": strings.Repeat("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", 16),
	} {
		t.Run(name, func(t *testing.T) {
			address := serve(t, m, "")
			for range httpserver.MaxConnections {
				conn, err := net.Dial("tcp", address)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = conn.Close() })
				_ = conn.(*net.TCPConn).SetReadBuffer(1)
				if _, err := conn.Write([]byte(request)); err != nil && !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.EPIPE) {
					t.Fatal(err)
				}
			}
			client := &http.Client{Timeout: httpserver.RequestLimit - time.Second}
			status, body := 0, ""
			for end := time.Now().Add(httpserver.RequestLimit - 2*time.Second); status == 0 && time.Now().Before(end); { // a scrape that is refused is repeated
				status, body = get(t, client, "http://"+address+"/metrics", nil)
			}
			if status != http.StatusOK || !strings.Contains(body, "tcpshift_connections_total") {
				t.Errorf("a scrape gets %d: %.200s", status, body)
			}
		})
	}
}
