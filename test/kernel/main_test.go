// Package kernel_test loads the real programs into the running kernel, makes
// connections beside them, and compares all records with all that happened. It needs
// root and no other program, and also runs as a static binary in guests of other
// kernels.
//
// Files are named by topic, as the tests are. The order of tests has no meaning: see
// harness.SharedTracers for how they share tracers.
package kernel_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/tcpshift/tcpshift/test/kernel/harness"
)

func TestMain(m *testing.M) {
	status := m.Run()
	if err := harness.StopSharedTracers(); err != nil {
		fmt.Fprintln(os.Stderr, "the tracers that tests shared:", err)
		const noTestShowsIt = 3 // the matrix repeats tests only after status 1
		status = noTestShowsIt
	}
	os.Exit(status)
}
