// Package cli_test runs the real binary as an operator does and checks its interface:
// arguments, exit status, standard output and error, signals, files, filters. It does not
// depend on the code under test.
package cli_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/test/attacker"
)

// waitLimit bounds every wait. A passing test waits much less.
const waitLimit = 30 * time.Second

// program is tcpshift, built once. Any user may execute it.
var program string

func TestMain(m *testing.M) {
	attacker.Main()
	if os.Getenv(peerEnv) != "" {
		os.Exit(peerMain(os.Args[1:]))
	}
	if os.Getenv(consumerEnv) != "" {
		os.Exit(consumerMain(os.Args[1:]))
	}
	if count := os.Getenv(filesEnv); count != "" {
		os.Exit(filesMain(count))
	}
	// Where this process ignores SIGHUP (nohup), so would the programs that it starts.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	flag.Parse()
	dir, err := os.MkdirTemp("", "tcpshift-cli-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "make a directory for the binary:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	defer attacker.Close()
	if err := build(dir); err != nil {
		fmt.Fprintln(os.Stderr, "build tcpshift:", err)
		return 1
	}
	// Parallel tests wait for their programs more than they compute.
	if err := flag.Set("test.parallel", "4"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func build(dir string) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	program = filepath.Join(dir, "tcpshift")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", program, "../../cmd/tcpshift")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	return cmd.Run()
}

func requireRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		skipMissing(t, "needs root, to load BPF programs and make namespaces: run it with sudo")
	}
}

// skipMissing skips a test that cannot run here. Under CI=true it fails the test.
func skipMissing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// lookPath returns the path of another program, or skips the test.
func lookPath(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		skipMissing(t, "needs "+name+": make install-deps")
	}
	return path
}
