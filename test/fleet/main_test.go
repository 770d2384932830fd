// Package fleet_test runs deploy/fleet as it is committed: two real ClickHouse servers as two shards, three hosts
// with a real tcpshift and a culprit each, and every query. A host is a network namespace with its own host name and boot
// id. The servers have a network namespace of their own, too.
package fleet_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

const (
	// waitLimit bounds every wait. A passing test waits much less.
	waitLimit = 90 * time.Second
	fleetDir  = "../../deploy/fleet"
	// packagesDir has the unpacked ClickHouse of Debian; test/check/consumers.sh fills it.
	packagesDir = "../../.cache/fleet/root"
)

var (
	// scratch has what is built.
	scratch string

	sizingRows = flag.Int("rows", 20_000, "how many connection records TestSizing makes")
	sizingDoc  = flag.String("doc", "", "write the measured sizes and times into this page")
)

func TestMain(m *testing.M) {
	flag.Parse()
	if text := os.Getenv(actorEnv); text != "" {
		os.Exit(actorMain(text))
	}
	dir, err := os.MkdirTemp("", "tcpshift-fleet-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	scratch = dir
	status := 1
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		status = m.Run()
	}
	_ = os.RemoveAll(dir)
	os.Exit(status)
}

// program returns the path of tcpshift, which it builds once.
var program = sync.OnceValues(func() (string, error) {
	path := filepath.Join(scratch, "tcpshift")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", path, "../../cmd/tcpshift")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build tcpshift: %w\n%s", err, out)
	}
	return path, nil
})

// prepare sets PATH and LD_LIBRARY_PATH so that the unpacked programs and their libraries are found first.
func prepare() error {
	root, err := filepath.Abs(packagesDir)
	if err != nil {
		return err
	}
	libraries, err := filepath.Glob(root + "/usr/lib/*-linux-gnu")
	if err != nil {
		return err
	}
	for _, each := range libraries {
		if err := os.Setenv("LD_LIBRARY_PATH", each); err != nil {
			return err
		}
	}
	return os.Setenv("PATH", root+"/usr/bin:"+root+"/usr/sbin:"+os.Getenv("PATH"))
}

// skipMissing skips a test that cannot run here. Under CI=true it fails the test.
func skipMissing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip(what)
}

func readFile(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// await waits until holds returns true. It fails the test after waitLimit.
func await(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for began := time.Now(); !holds(); time.Sleep(100 * time.Millisecond) {
		if time.Since(began) > waitLimit {
			t.Fatalf("no %s within %v", what, waitLimit)
		}
	}
}
