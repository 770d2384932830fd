package kernel_test

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/tcpshift/tcpshift/test/kernel/harness"
)

func TestMain(m *testing.M) {
	status := m.Run()
	if err := errors.Join(harness.StopShared(), harness.StopStormTracer()); err != nil {
		fmt.Fprintln(os.Stderr, "the tracers that tests shared:", err)
		status = max(status, 1)
	}
	os.Exit(status)
}
