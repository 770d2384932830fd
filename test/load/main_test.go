// Package load_test measures what tracing costs: tcpshift beside the least that a
// tracer can do, and beside other tracers, in pairs of storms with and without a
// tracer. Tests fail on counts only; times are for people to read.
package load_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The programs under measurement, built once.
var tcpshift, bare string

func TestMain(m *testing.M) {
	for env, run := range map[string]func(text string) error{keeperEnv: keepOpen, crowdEnv: keepCrowd} {
		if text := os.Getenv(env); text != "" {
			if err := run(text); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			return
		}
	}
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "tcpshift-load-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "make a directory for the programs:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	tcpshift, bare = filepath.Join(dir, "tcpshift"), filepath.Join(dir, "bare")
	for path, source := range map[string]string{tcpshift: "../../cmd/tcpshift", bare: "./bare"} {
		cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", path, source)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if err := cmd.Run(); err != nil {
			fmt.Fprintf(os.Stderr, "build %s: %v\n", source, err)
			return 1
		}
	}
	return m.Run()
}
