package guest_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// reload checks that a reload with a wrong file changes nothing and prints where the file is wrong, and that a reload with
// a right file changes the records.
func reload(t *testing.T) {
	const drop = "/etc/tcpshift/config.d/50-test.yaml"
	pid := property(t, "MainPID")
	write(t, drop, "stats-interval: 1m\nlabel: [where=here]\nstats-intervall: 1m\n")
	out, err := try("systemctl", "reload", "tcpshift.service")
	if err == nil {
		t.Errorf("systemctl reload accepts a wrong file: %s", out)
	}
	if want := drop + ":3:1: "; !strings.Contains(serviceLog(), want) {
		t.Errorf("no %q in\n%s", want, serviceLog())
	}
	if now := property(t, "MainPID"); now != pid || property(t, "ActiveState") != "active" {
		t.Errorf("the process was %s, and is %s\n%s", pid, now, serviceLog())
	}
	if text := string(read(t, connections)); strings.Contains(text, `"type":"reload"`) || strings.Contains(text, `"where":"here"`) {
		t.Error("the wrong file has changed the stream")
	}
	write(t, drop, "stats-interval: 1m\nlabel: [where=here]\n")
	run(t, "systemctl", "reload", "tcpshift.service")
	await(t, "the label of the right file is in a record", func() bool { return recordWith(t, connections, "where", "here") })
	if now := property(t, "MainPID"); now != pid {
		t.Errorf("the reload has started another process: %s, %s", pid, now)
	}
}

// kill kills the service in a storm: nothing stays attached, and systemd starts it again.
func kill(t *testing.T, before []uint32) {
	s := startStorm(t, 3)
	attached := slices.DeleteFunc(links(t), func(id uint32) bool { return slices.Contains(before, id) })
	if len(attached) == 0 {
		t.Fatal("the test is wrong: the service has attached nothing")
	}
	pid := property(t, "MainPID")
	run(t, "systemctl", "kill", "--signal=SIGKILL", "--kill-who=main", "tcpshift.service")
	// The kernel gives no id twice.
	await(t, "the programs are detached", func() bool {
		return !slices.ContainsFunc(links(t), func(id uint32) bool { return slices.Contains(attached, id) })
	})
	restarted(t, pid, "1")
	if len(links(t)) <= len(before) {
		t.Error("the restarted service has attached nothing")
	}
	s.end()
}

// watchdog stops the process with SIGSTOP: systemd's watchdog ends it, and systemd starts it again.
func watchdog(t *testing.T) {
	pid := property(t, "MainPID")
	run(t, "systemctl", "kill", "--signal=SIGSTOP", "--kill-who=main", "tcpshift.service")
	restarted(t, pid, "2")
	// The traceback of the process comes after this line, and may be long.
	const want = "Failed with result 'watchdog'"
	if text := run(t, "journalctl", "--no-pager", "-o", "cat", "_PID=1", "UNIT=tcpshift.service"); !strings.Contains(text, want) {
		t.Errorf("no %q in\n%s", want, text)
	}
}

// restarted waits until systemd has started another process than pid. restarts is how many restarts there are in all.
func restarted(t *testing.T, pid, restarts string) {
	t.Helper()
	await(t, "systemd has started it again", func() bool {
		return property(t, "ActiveState") == "active" && property(t, "MainPID") != pid
	})
	if got := property(t, "NRestarts"); got != restarts {
		t.Errorf("%s restarts, want %s\n%s", got, restarts, serviceLog())
	}
}

// upgrade installs a later version: the configuration is kept, and the new program runs.
func upgrade(t *testing.T) {
	const edited = "\n# by hand\nstats-interval: 2m\n"
	write(t, config, string(read(t, config))+edited)
	old := property(t, "MainPID")
	run(t, "apt-get", "-qq", "install", "-y", payload+"/new.deb")
	if !strings.HasSuffix(string(read(t, config)), edited) {
		t.Errorf("the configuration is not kept:\n%s", read(t, config))
	}
	if property(t, "ActiveState") != "active" || property(t, "MainPID") == old {
		t.Errorf("the new program does not run\n%s", serviceLog())
	}
	if others, _ := filepath.Glob("/etc/tcpshift/*.dpkg-*"); len(others) > 0 {
		t.Errorf("the upgrade leaves %s", others)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// links returns the ids of all BPF links (bpf(2), BPF_LINK_GET_NEXT_ID): tcpshift attaches each program with a link. If
// systemd has links of its own, these stay the same.
func links(t *testing.T) (all []uint32) {
	t.Helper()
	const getNextID = 31
	attr := struct{ start, next, flags uint32 }{}
	for {
		_, _, errno := unix.Syscall(unix.SYS_BPF, getNextID, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
		if errors.Is(errno, unix.ENOENT) {
			return all
		}
		if errno != 0 {
			t.Fatalf("BPF_LINK_GET_NEXT_ID: %v", errno)
		}
		all = append(all, attr.next)
		attr.start = attr.next
	}
}
