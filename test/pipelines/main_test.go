// Package pipelines_test runs the examples of deploy/pipelines as they are committed: real connections,
// the real tcpshift, the real consumer, and compares what it has stored with what tcpshift has written.
// All of it happens in a network namespace and a mount namespace of the test's own.
package pipelines_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// waitLimit bounds every wait. A passing test waits much less.
const waitLimit = 60 * time.Second

const (
	// scratchEnv names the test's own directory, in the process that runs in the namespaces.
	scratchEnv = "TCPSHIFT_TEST_SCRATCH"
	// packagesDir has the unpacked Debian packages; test/check/consumers.sh fills it.
	packagesDir = "../../.cache/pipelines/root"
)

var (
	// scratch has the programs that the tests build, and what they write.
	scratch = os.Getenv(scratchEnv)

	costDoc   = flag.String("doc", "", "write the measured costs into this page")
	costCount = flag.Int("connections", 1000, "how many connections TestCost makes")
)

func TestMain(m *testing.M) {
	flag.Parse()
	switch {
	case os.Getenv(actorEnv) != "":
		os.Exit(actorMain())
	case scratch != "":
		if err := enterMounts(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	case os.Geteuid() != 0:
		os.Exit(m.Run()) // only what needs no privileges
	}
	os.Exit(runInNamespaces())
}

// runInNamespaces builds tcpshift and starts this program again in namespaces of its own.
func runInNamespaces() int {
	dir, err := os.MkdirTemp("", "tcpshift-pipelines-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "make a directory for the programs:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // PostgreSQL runs as another user
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	build := exec.Command("go", "build", "-buildvcs=false", "-o", filepath.Join(dir, "program"), "../../cmd/tcpshift")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build tcpshift:", err)
		return 1
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), scratchEnv+"="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "run the tests in namespaces:", err)
		return 1
	}
	return 0
}

// enterMounts gives this mount namespace empty directories where examples write, and puts the
// unpacked packages over /usr, so that consumers find their files where Debian puts them.
func enterMounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	for _, dir := range []string{"/var/log", "/var/lib", "/var/spool", "/run"} {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"); err != nil {
			return fmt.Errorf("mount an empty %s: %w", dir, err)
		}
	}
	for _, dir := range []string{"/var/log/collected", "/var/spool/rsyslog", "/var/lib/syslog-ng", "/var/lib/otelcol", "/run/postgresql", "/run/tcpshift"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod("/run/postgresql", 0o777); err != nil {
		return err
	}
	root, err := filepath.Abs(packagesDir)
	if err != nil {
		return err
	}
	if _, err := os.Stat(root + "/usr"); err == nil {
		if err := unix.Mount("overlay", "/usr", "overlay", unix.MS_RDONLY, "lowerdir="+root+"/usr:/usr"); err != nil {
			return fmt.Errorf("put the packages over /usr: %w", err)
		}
	}
	up := exec.Command("ip", "link", "set", "lo", "up")
	if out, err := up.CombinedOutput(); err != nil {
		return fmt.Errorf("start the loopback device: %w: %s", err, out)
	}
	return writeWrapper()
}

// skipMissing skips a test that cannot run here. Under CI=true it fails the test.
func skipMissing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// needs skips the test if it does not run as root or lacks one of these programs.
func needs(t testing.TB, programs ...string) {
	t.Helper()
	if scratch == "" {
		skipMissing(t, "needs root, to load BPF programs and make namespaces: make test-pipelines")
	}
	for _, name := range programs {
		if _, err := exec.LookPath(name); err != nil {
			skipMissing(t, "needs "+name+": make test-pipelines installs it")
		}
	}
}

var building sync.Mutex

// build compiles packages of a module below this directory, once, with the network of the process
// that started this one. Its programs are in the PATH of every command.
func build(t testing.TB, module string, packages ...string) {
	t.Helper()
	building.Lock()
	defer building.Unlock()
	if _, err := os.Stat(filepath.Join(scratch, "built-"+module)); err == nil {
		return
	}
	args := []string{"-t", fmt.Sprint(os.Getppid()), "-n", "-m", "go", "-C", must(filepath.Abs(module)), "build", "-o", scratch + "/bin/"}
	cmd := exec.Command("nsenter", append(args, packages...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	began := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", module, err, out)
	}
	if err := os.WriteFile(filepath.Join(scratch, "built-"+module), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Logf("built %s in %v", module, time.Since(began).Round(time.Second))
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
