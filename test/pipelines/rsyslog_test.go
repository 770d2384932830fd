package pipelines_test

import (
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
)

const collected = "/var/log/collected/tcpshift.ndjson"

func storedLines() []string { return readLines(collected) }

// rsyslog follows the file and stores each line as it is, also when logrotate renames the file. It may then store
// lines twice.
func TestRsyslog_File(t *testing.T) {
	needs(t, "rsyslogd")
	e := openExample(t, "rsyslog-file.conf")
	freshFiles(t)
	e.trace()
	e.start(e.command("rsyslogd"))
	makeConnections(t)
	if err := os.Rename(followed, followed+".1"); err != nil {
		t.Fatal(err)
	}
	e.signal(syscall.SIGHUP)
	e.await("new file after SIGHUP", func() bool { _, err := os.Stat(followed); return err == nil })
	makeConnections(t)
	want := e.stop()
	stored := func() []string { return firstOfEach(storedLines()) }
	e.awaitLines(want, stored)
	more := extremeLines(t, want)
	appendLines(t, followed, more)
	want = append(want, more...)
	e.awaitLines(want, stored)
}

// firstOfEach leaves out lines that have come before.
func firstOfEach(lines []string) (different []string) {
	had := make(map[string]bool, len(lines))
	for _, line := range lines {
		if !had[line] {
			different = append(different, line)
		}
		had[line] = true
	}
	return different
}

// rsyslog stores each line that comes through the Unix socket or over TCP as it is.
func TestRsyslog_Socket(t *testing.T) {
	needs(t, "rsyslogd")
	e := openExample(t, "rsyslog-tcp.conf")
	testSocket(e, "rsyslogd", "unix", "/run/tcpshift/rsyslog.sock")
	testSocket(e, "", "tcp", "127.0.0.1:5140")
}

// syslog-ng does so, too.
func TestSyslogNG_Socket(t *testing.T) {
	needs(t, "syslog-ng")
	e := openExample(t, "syslog-ng.conf")
	testSocket(e, "syslog-ng -F", "unix", "/run/tcpshift/syslog-ng.sock")
	testSocket(e, "", "tcp", "127.0.0.1:5141")
}

// testSocket compares what a consumer stores with what it gets at a socket. It starts the consumer if
// it has a name.
func testSocket(e *example, consumer, network, address string) {
	e.t.Helper()
	if consumer != "" {
		freshFiles(e.t)
		e.start(e.command(consumer))
		e.trace()
	} else {
		if err := os.Truncate(collected, 0); err != nil {
			e.t.Fatal(err)
		}
		e.traceTo(network + "://" + address)
	}
	makeConnections(e.t)
	want := e.stop()
	e.awaitLines(want, storedLines)
	more := extremeLines(e.t, want)
	sendLines(e.t, network, address, more)
	e.awaitLines(append(want, more...), storedLines)
}

// sendLines sends lines to a socket, one connection for all.
func sendLines(t testing.TB, network, address string, lines []string) {
	t.Helper()
	conn, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(strings.Join(lines, "\n") + "\n")); err != nil {
		t.Fatal(err)
	}
}

// freshFiles removes what earlier tests have stored.
func freshFiles(t testing.TB) {
	t.Helper()
	for _, dir := range []string{"/var/log", "/var/log/collected", "/var/spool/rsyslog", "/var/lib/otelcol"} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, each := range entries {
			if !each.IsDir() {
				if err := os.Remove(dir + "/" + each.Name()); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

func appendLines(t testing.TB, path string, lines []string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(strings.Join(lines, "\n") + "\n"); err != nil {
		t.Fatal(err)
	}
}
