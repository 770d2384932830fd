package kubernetes_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The test binary, started again with one of these variables, becomes the container or a process of a pod.
const (
	containerEnv = "TCPSHIFT_TEST_CONTAINER"
	podEnv       = "TCPSHIFT_TEST_POD"
)

// TestMain becomes the container or a process of a pod, if one of the variables is set, and else runs the tests.
func TestMain(m *testing.M) {
	var err error
	switch {
	case os.Getenv(containerEnv) != "":
		var c container
		if err = json.Unmarshal([]byte(os.Getenv(containerEnv)), &c); err == nil {
			err = c.become()
		}
	case os.Getenv(podEnv) != "":
		err = runPod(strings.Split(os.Getenv(podEnv), "\n"))
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// container describes a container, as a runtime needs it.
type container struct {
	Root         string
	Mounts       [][2]string // from, to; read-only
	Capabilities []string    // without CAP_
	Arguments    []string
	Env          []string
}

// capabilities has the numbers of capabilities (include/uapi/linux/capability.h) by their names.
var capabilities = map[string]uintptr{
	"DAC_READ_SEARCH": unix.CAP_DAC_READ_SEARCH, "SYS_PTRACE": unix.CAP_SYS_PTRACE, "SYS_ADMIN": unix.CAP_SYS_ADMIN,
	"PERFMON": unix.CAP_PERFMON, "BPF": unix.CAP_BPF,
}

// become turns this process, which has namespaces of its own, into the container: it executes Arguments.
func (c *container) become() error {
	runtime.LockOSThread() // capabilities and no_new_privs belong to a thread
	if err := loopbackUp(); err != nil {
		return err
	}
	if err := c.mount(); err != nil {
		return err
	}
	kept := map[uintptr]bool{}
	for _, name := range c.Capabilities {
		number, ok := capabilities[name]
		if !ok {
			return fmt.Errorf("no number of CAP_%s", name)
		}
		kept[number] = true
	}
	for number := uintptr(0); number <= unix.CAP_LAST_CAP; number++ {
		if kept[number] {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, number, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("drop capability %d: %w", number, err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if err := refuseAsRuntime(); err != nil {
		return err
	}
	// Root gets all that is left in the bounding set.
	return unix.Exec("/usr/bin/tcpshift", append([]string{"tcpshift"}, c.Arguments...), c.Env)
}

// mount makes Root the root directory, with /proc, /sys, /dev/null and Mounts. No file of the image or of Mounts is
// writable.
func (c *container) mount() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount(c.Root, c.Root, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	for _, m := range append([][2]string{{"proc", "/proc"}, {"sysfs", "/sys"}, {"/dev/null", "/dev/null"}}, c.Mounts...) {
		to := filepath.Join(c.Root, m[1])
		if err := mountOne(m[0], to); err != nil {
			return fmt.Errorf("mount %s: %w", m[1], err)
		}
	}
	if err := unix.Mount("", c.Root, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return err
	}
	if err := unix.Chdir(c.Root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	return errors.Join(unix.Unmount(".", unix.MNT_DETACH), unix.Chdir("/"))
}

// mountOne mounts proc, sysfs, /dev/null, or a directory, which is read-only then.
func mountOne(from, to string) error {
	if from == "/dev/null" {
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, nil, 0o644)); err != nil {
			return err
		}
		return unix.Mount(from, to, "", unix.MS_BIND, "")
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	switch from {
	case "proc":
		return unix.Mount("proc", to, "proc", 0, "")
	case "sysfs":
		return unix.Mount("sysfs", to, "sysfs", unix.MS_RDONLY, "")
	}
	if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	return unix.Mount("", to, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
}

// loopbackUp enables the loopback device of a new network namespace.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request)
}

// runPod enters cgroups, and makes a connection in a network namespace of its own for each byte that it reads.
func runPod(cgroups []string) error {
	for _, dir := range cgroups {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0); err != nil {
			return err
		}
	}
	if err := loopbackUp(); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:8080")
	if err != nil {
		return err
	}
	for {
		if _, err := os.Stdin.Read(make([]byte, 1)); errors.Is(err, io.EOF) {
			return listener.Close()
		}
		if err := connectOnce(listener); err != nil {
			return err
		}
	}
}

// connectOnce makes a connection to a listener.
func connectOnce(listener net.Listener) error {
	connection, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		return err
	}
	accepted, err := listener.Accept()
	if err != nil {
		return errors.Join(err, connection.Close())
	}
	return errors.Join(connection.Close(), accepted.Close())
}
