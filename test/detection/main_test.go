// Package storms_test blows real storms: processes in namespaces of their own use
// up a narrow range of ports over a cable, beside others that only look as if
// they might, and the real binary is held to what it says of them.
package detection_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// calm is how long the mixed load without a storm lasts.
var calm = flag.Duration("calm", 75*time.Second, "how long the mixed load lasts that must raise nothing")

// patience bounds every wait. It is never waited out where all is well.
const patience = 90 * time.Second

// program is tcpshift, built once.
var program string

func TestMain(m *testing.M) {
	if order := os.Getenv(orderEnv); order != "" {
		os.Exit(act(order))
	}
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
	program = filepath.Join(dir, "tcpshift")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", program, "../../cmd/tcpshift")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build tcpshift:", err)
		return 1
	}
	// They mostly wait, each for its own storm.
	if err := flag.Set("test.parallel", "16"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}
