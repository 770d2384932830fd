// Package metrics_test runs the rules of deploy/prometheus and the queries of deploy/grafana as they are committed,
// with a real Prometheus that scrapes a real tcpshift beside a real storm. All of it happens in a network namespace
// of the test's own.
package metrics_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

const (
	// waitLimit bounds every wait. A passing test waits much less.
	waitLimit = 60 * time.Second
	// programsDir has Prometheus and promtool, unpacked by test/check/consumers.sh.
	programsDir = "../../.cache/metrics/root/usr/bin"
	rulesDir    = "../../deploy/prometheus"
)

// program is tcpshift, built once.
var program string

func TestMain(m *testing.M) {
	if os.Getenv(serviceVariable) != "" {
		beService()
		return
	}
	dir, err := os.MkdirTemp("", "tcpshift-metrics-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	program = filepath.Join(dir, "tcpshift")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", program, "../../cmd/tcpshift")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	status := 1
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build tcpshift:", err)
	} else {
		status = m.Run()
	}
	_ = os.RemoveAll(dir)
	os.Exit(status)
}

// prometheusProgram returns the absolute path of one of Prometheus' programs, or skips the test.
func prometheusProgram(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(programsDir, name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		skipMissing(t, "needs "+name+": test/check/consumers.sh metrics")
	}
	return path
}

// skipMissing skips a test that cannot run here. Under CI=true it fails the test.
func skipMissing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip(what)
}
