// Package service_test checks what makes tcpshift a service: the units of systemd, and the modules in it.
package service_test

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const units = "../../deploy/systemd"

var update = flag.Bool("update", false, "write tcpshift@.service")

func requireAnalyze(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		const missing = "needs systemd-analyze: install systemd"
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The unit for a second instance is the first with other paths.
func TestUnit_Instance(t *testing.T) {
	want := strings.NewReplacer(
		"/etc/tcpshift/config.yaml", "/etc/tcpshift/%i.yaml",
		"/etc/default/tcpshift", "/etc/default/tcpshift-%i",
		"LogsDirectory=tcpshift", "LogsDirectory=tcpshift-%i",
		"StateDirectory=tcpshift", "StateDirectory=tcpshift-%i",
		"/var/lib/tcpshift/", "/var/lib/tcpshift-%i/",
		"Trace of all TCP state transitions", "Trace of all TCP state transitions, configuration %i",
	).Replace(read(t, filepath.Join(units, "tcpshift.service")))
	path := filepath.Join(units, "tcpshift@.service")
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if read(t, path) != want {
		t.Errorf("%s differs: run go test ./test/service -run TestUnit_Instance -update", path)
	}
}

// systemd-analyze finds nothing to complain about in the units.
func TestUnit_Verify(t *testing.T) {
	requireAnalyze(t)
	dir := t.TempDir()
	for _, name := range []string{"tcpshift.service", "tcpshift@.service"} {
		// The program need not be installed here.
		text := strings.ReplaceAll(read(t, filepath.Join(units, name)), "/usr/bin/tcpshift", "/bin/true")
		text = strings.ReplaceAll(text, "man:tcpshift(8) ", "")
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"tcpshift.service", "tcpshift@x.service"} {
		out, err := exec.Command("systemd-analyze", "verify", filepath.Join(dir, name)).CombinedOutput()
		if lines := about(string(out), "tcpshift"); err != nil || lines != "" {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// about returns the lines that name a unit: systemd-analyze also complains of the host's own.
func about(text, unit string) (lines string) {
	for line := range strings.Lines(text) {
		if strings.Contains(line, unit) {
			lines += line
		}
	}
	return lines
}

// The exposure of the service is the one that docs/operate.md states.
func TestUnit_Exposure(t *testing.T) {
	requireAnalyze(t)
	out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--no-pager", filepath.Join(units, "tcpshift.service")).CombinedOutput()
	found := regexp.MustCompile(`Overall exposure level for tcpshift\.service: ([0-9.]+)`).FindSubmatch(out)
	if found == nil {
		t.Fatalf("no level of exposure: %v\n%s", err, out)
	}
	if doc := read(t, "../../docs/operate.md"); !strings.Contains(doc, "its exposure at "+string(found[1])+" (") {
		t.Errorf("docs/operate.md does not state the exposure %s\n%s", found[1], out)
	}
}

// The configuration that is installed is correct where the directory of the unit exists.
func TestUnit_Configuration(t *testing.T) {
	const check = `mount -t tmpfs tmpfs /var/log && mkdir /var/log/tcpshift && exec go run ../../cmd/tcpshift config check --config "$1"`
	out, err := exec.Command("unshare", "--mount", "sh", "-c", check, "sh", filepath.Join(units, "config.yaml")).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
