package guest_test

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// metrics gives the profile edge metrics, in the way that docs/operate.md describes: the unit permits no
// socket over TCP by itself.
func metrics(t *testing.T) {
	const drop, dropIn = "/etc/tcpshift/config.d/70-metrics.yaml", "/etc/systemd/system/tcpshift.service.d"
	docs := string(read(t, "/usr/share/doc/tcpshift/operate.md"))
	text := regexp.MustCompile("(?s)```\n# systemctl edit tcpshift\n(.*?)```").FindStringSubmatch(docs)
	if text == nil {
		t.Fatal("operate.md has no drop-in")
	}
	if err := os.MkdirAll(dropIn, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		os.RemoveAll(dropIn)
		daemonReload(t)
	})
	write(t, filepath.Join(dropIn, "override.conf"), text[1])
	write(t, drop, "profile: edge\nmetrics-listen: 127.0.0.1:9464\n")
	daemonReload(t)
	run(t, "systemctl", "restart", "tcpshift.service")
	for path, want := range map[string]string{"/readyz": "", "/healthz": "", "/metrics": "tcpshift_"} {
		answer, err := http.Get("http://127.0.0.1:9464" + path)
		if err != nil {
			t.Fatalf("%v\n%s", err, serviceLog())
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil || answer.StatusCode != http.StatusOK || !strings.Contains(string(body), want) {
			t.Errorf("%s: %v, %s, no %q in\n%.1000s", path, err, answer.Status, want, body)
		}
	}
	if err := os.Remove(drop); err != nil {
		t.Fatal(err)
	}
}

// daemonReload makes systemd read the units again. systemctl itself waits for three minutes only, after which
// systemd may still be at work.
func daemonReload(t *testing.T) {
	t.Helper()
	await(t, "systemd has read the units", func() bool {
		out, err := try("systemctl", "daemon-reload")
		if err != nil && !strings.Contains(out, "timed out") {
			t.Fatalf("systemctl daemon-reload: %v\n%s", err, out)
		}
		return err == nil
	})
}
