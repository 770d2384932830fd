package cli_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"
)

// awaitState reads states from systemd's socket until one matches.
func awaitState(t *testing.T, c net.PacketConn, pattern string) {
	t.Helper()
	state := regexp.MustCompile(pattern)
	buffer := make([]byte, 4096)
	_ = c.SetReadDeadline(time.Now().Add(waitLimit))
	for {
		n, _, err := c.ReadFrom(buffer)
		if err != nil {
			t.Fatalf("no state %s: %v", pattern, err)
		}
		if state.Match(buffer[:n]) {
			return
		}
	}
}

// Under systemd the process reports that it is ready, that its loop turns, its reloads, and its end, also in the
// sandbox.
func TestService_States(t *testing.T) {
	requireRoot(t)
	for _, sandbox := range []string{"false", "true"} {
		t.Run("sandbox "+sandbox, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "notify")
			systemd, err := net.ListenPacket("unixgram", path)
			if err != nil {
				t.Fatal(err)
			}
			defer systemd.Close()
			c := newConfiguration(t, "port: 1", "sandbox: "+sandbox, "only: [stats]", "stats-interval: 100ms")
			stderr, awaitLine := withStderrFile(t)
			tr := startTracer(t, []string{"--config", c.path}, stderr, func(cmd *exec.Cmd) {
				cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+path, "WATCHDOG_USEC=300000")
			})
			awaitState(t, systemd, `^READY=1$`)
			awaitLine("WatchdogSec= is short: use 15s or more")
			awaitState(t, systemd, `^WATCHDOG=1$`)
			tr.signal(syscall.SIGHUP)
			awaitState(t, systemd, `^RELOADING=1\nMONOTONIC_USEC=\d+$`)
			awaitState(t, systemd, `^READY=1$`)
			awaitState(t, systemd, `^WATCHDOG=1$`)
			tr.signal(syscall.SIGTERM)
			awaitState(t, systemd, `^STOPPING=1$`)
			tr.wait().mustEnd(t, 0)
		})
	}
}
