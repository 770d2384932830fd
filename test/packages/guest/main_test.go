// Package guest_test takes the package through its life in a Debian with systemd, which test/kernelmatrix
// boots: make test-packages. It must not run on a host: it installs and removes tcpshift.
package guest_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/kernelmatrix/guest"
)

// payload is the disk with this test and the packages.
const payload = "/payload"

// inGuest reports whether this is the guest, and not a host that runs all tests.
func inGuest() bool { return os.Args[0] == filepath.Join(payload, guest.TestBinary) }

// TestMain runs the tests, reports their status to the host, and reboots the guest, which ends it.
func TestMain(m *testing.M) {
	if !inGuest() {
		os.Exit(m.Run())
	}
	var u unix.Utsname
	_ = unix.Uname(&u)
	report(guest.Booted, unix.ByteSliceToString(u.Release[:]))
	report(guest.Running, "")
	report(guest.Ended, strconv.Itoa(m.Run()))
	unix.Sync()
	time.Sleep(time.Second) // the serial line is slow
	fmt.Println(unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART))
}

// report sends a message to the host, over the console.
func report(kind guest.Kind, value string) {
	fmt.Print(guest.Message{Kind: kind, Value: value}.Line())
}

// try runs a program, and returns its standard output and standard error.
func try(name string, arguments ...string) (output string, err error) {
	c := exec.Command(name, arguments...)
	c.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	out, err := c.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// run is as try, and fails the test if the program fails.
func run(t *testing.T, name string, arguments ...string) string {
	t.Helper()
	out, err := try(name, arguments...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(arguments, " "), err, out)
	}
	return out
}

// property returns a property of the service, as systemctl show prints it.
func property(t *testing.T, name string) string {
	t.Helper()
	return run(t, "systemctl", "show", "tcpshift.service", "--value", "-p", name)
}

// waitLimit bounds every wait. The processor is emulated, and may share a real one with other work. The log has the times.
const waitLimit = 10 * time.Minute

// await calls is until it returns true, and fails the test after waitLimit. It polls, because no event reports what it
// waits for.
func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	began := time.Now()
	for !is() {
		if time.Since(began) > waitLimit {
			t.Fatalf("not within %v: %s\n%s", waitLimit, what, serviceLog())
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Logf("%s: after %.1f s", what, time.Since(began).Seconds())
}

// serviceLog returns the last 40 lines that systemd and the service have logged about the service.
func serviceLog() string {
	out, _ := try("journalctl", "--no-pager", "-n", "40", "-u", "tcpshift.service")
	return out
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
