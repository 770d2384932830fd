// Package detection_test makes real storms: processes in namespaces joined by veth
// pairs use up a narrow range of ports, beside loads that only look similar. It checks
// the alerts of the real binary.
package detection_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/test/attacker"
)

// duration is how long the normal load lasts.
var duration = flag.Duration("load-duration", 75*time.Second, "how long the normal load lasts")

// waitLimit bounds every wait. A passing test waits much less.
const waitLimit = 90 * time.Second

// program is tcpshift, built once.
var program string

func TestMain(m *testing.M) {
	if workload := os.Getenv(workloadEnv); workload != "" {
		os.Exit(runWorkload(workload))
	}
	attacker.Main()
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	flag.Parse()
	dir, err := os.MkdirTemp("", "tcpshift-storms-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "make a directory for the binary:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	defer attacker.Close()
	program = filepath.Join(dir, "tcpshift")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", program, "../../cmd/tcpshift")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build tcpshift:", err)
		return 1
	}
	// The tests mostly wait, each for its own storm.
	if err := flag.Set("test.parallel", "16"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}
