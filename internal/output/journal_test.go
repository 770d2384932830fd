package output

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/journal"
)

const journald = "/lib/systemd/systemd-journald"

// startJournald runs the host's journald with a /run of its own. It returns the paths of its socket and of
// the directory with its files.
func startJournald(t *testing.T) (socket, files string) {
	t.Helper()
	if _, err := os.Stat(journald); err != nil || os.Geteuid() != 0 {
		why := fmt.Sprintf("needs root and %s: install the package systemd: %v", journald, err)
		if os.Getenv("CI") == "true" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	dir, err := os.MkdirTemp("", "journal") // short: the path of a socket has 107 bytes at most
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	const script = `
		set -e
		mkdir -p $0/run/systemd/journal $0/run/log/journal
		printf '[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=no\nRateLimitIntervalSec=0\n' >$0/run/journald.conf
		echo 0123456789abcdef0123456789abcdef >$0/run/machine-id
		mount --bind $0/run/machine-id /etc/machine-id
		mount --bind $0/run/journald.conf /etc/systemd/journald.conf
		mount --bind $0/run /run
		exec ` + journald
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", script, dir)
	var messages bytes.Buffer
	cmd.Stdout, cmd.Stderr = &messages, &messages
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(unix.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(messages.String())
		}
	})
	socket = filepath.Join(dir, "run", "systemd", "journal", "socket")
	eventually(t, "socket of journald", func() bool { _, err := os.Stat(socket); return err == nil })
	return socket, filepath.Join(dir, "run", "log", "journal")
}

// entriesOf are the entries that journalctl shows of tcpshift, in their order.
func entriesOf(t *testing.T, files string, count int) (entries []map[string]any) {
	t.Helper()
	for began := time.Now(); len(entries) < count; time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > tooLong {
			t.Fatalf("%d entries within %v, want %d", len(entries), tooLong, count)
		}
		out, _ := exec.Command("journalctl", "--directory", files, "--output", "json", "--all", "SYSLOG_IDENTIFIER=tcpshift").Output()
		entries = nil
		for line := range strings.Lines(string(out)) {
			var e map[string]any
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatal(err)
			}
			entries = append(entries, e)
		}
	}
	return entries
}

// The real journald stores each record with its fields: names that a process has made to look like other
// fields, too, and one that is too large for a datagram. Nanoseconds and large numbers stay exact.
func TestJournal_RealDaemon(t *testing.T) {
	socket, files := startJournald(t)
	o := openRemote(t, Remote{Network: "unixgram", Address: socket, Encode: journal.AppendEntry, Notify: func(m string) { t.Error(m) }})
	defer o.Close()
	o.begin()
	o.dialedWithin(tooLong)
	if o.conn == nil {
		t.Fatal("no connection")
	}
	if err := o.conn.(*net.UnixConn).SetWriteBuffer(1); err != nil { // the least that the kernel has
		t.Fatal(err)
	}
	long := strings.Repeat("x", 100_000)
	lines := fmt.Sprintf(`{"type":"transition","time":"2026-11-22T12:23:23.972490505Z","seq":18446744073709551615,"new_state":"LISTEN","pid":1,"comm":"a\nPRIORITY=0\nMESSAGE=b"}
{"type":"alert","seq":2,"phase":"open","severity":"critical","kind":"time_wait_storm","cause":"too many"}
{"type":"connection","seq":3,"comm":"%s"}
`, long)
	if n, err := o.Write([]byte(lines)); n != len(lines) || err != nil {
		t.Fatalf("Write returns %d, %v", n, err)
	}
	got := entriesOf(t, files, 3)
	for i, want := range []map[string]string{
		{"TCPSHIFT_TIME": "2026-11-22T12:23:23.972490505Z", "TCPSHIFT_SEQ": "18446744073709551615", "PRIORITY": "6", "TCPSHIFT_COMM": `a\x0aPRIORITY=0\x0aMESSAGE=b`},
		{"MESSAGE": "alert open: time_wait_storm: too many", "PRIORITY": "2", "TCPSHIFT_KIND": "time_wait_storm", "SYSLOG_IDENTIFIER": "tcpshift", "_TRANSPORT": "journal"},
		{"TCPSHIFT_TYPE": "connection", "TCPSHIFT_COMM": long},
	} {
		for key, value := range want {
			if got[i][key] != value {
				t.Errorf("entry %d: %s is %.100v, want %.100s", i, key, got[i][key], value)
			}
		}
	}
}

// What journalctl writes to a terminal as it is has no character of a hostile name that rules it.
func TestJournal_HostileNames(t *testing.T) {
	socket, files := startJournald(t)
	o := openRemote(t, Remote{Network: "unixgram", Address: socket, Encode: journal.AppendEntry, Notify: func(m string) { t.Error(m) }})
	defer o.Close()
	o.begin()
	o.dialedWithin(tooLong)
	line := `{"type":"transition","new_state":"LISTEN","pid":1,"comm":"\u001b[2J\r\nalert open: \u202eab\u200b"}` + "\n"
	if _, err := o.Write([]byte(line)); err != nil {
		t.Fatal(err)
	}
	entriesOf(t, files, 1)
	for _, how := range [][]string{{"--output", "cat"}, {"--output", "verbose"}, {"--field", "TCPSHIFT_COMM"}} {
		out, err := exec.Command("journalctl", append([]string{"--directory", files, "--no-pager"}, how...)...).Output()
		if err != nil || !bytes.Contains(out, []byte("ab")) || bytes.ContainsAny(out, "\x1b\r\u202e\u200b") || bytes.Contains(out, []byte("\nalert")) {
			t.Errorf("%q: %q, %v", how, out, err)
		}
	}
}

// What is too large for a datagram comes as a memfd with all seals, so that journald maps it. Its content is the
// entry. The next entry is a datagram again.
func TestJournal_Memfd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	o := openRemote(t, Remote{Network: "unixgram", Address: path, Encode: journal.AppendEntry, Notify: func(m string) { t.Error(m) }})
	defer o.Close()
	o.begin()
	o.dialedWithin(tooLong)
	if err := o.conn.(*net.UnixConn).SetWriteBuffer(1); err != nil {
		t.Fatal(err)
	}
	large := `{"type":"alert","cause":"` + strings.Repeat("x", 50_000) + `"}` + "\n"
	small := `{"type":"stop","reason":"signal"}` + "\n"
	if _, err := o.Write([]byte(large + small)); err != nil {
		t.Fatal(err)
	}
	for i, line := range []string{large, small} {
		want, err := journal.AppendEntry(nil, []byte(line))
		if err != nil {
			t.Fatal(err)
		}
		b, oob := make([]byte, 8192), make([]byte, 64)
		n, oobn, _, _, err := l.ReadMsgUnix(b, oob)
		if err != nil {
			t.Fatal(err)
		}
		content := b[:n]
		if i == 0 {
			messages, err := unix.ParseSocketControlMessage(oob[:oobn])
			if err != nil || len(messages) != 1 || n != 0 {
				t.Fatalf("%d bytes and %d control messages, %v; want one descriptor", n, len(messages), err)
			}
			fds, _ := unix.ParseUnixRights(&messages[0])
			file := os.NewFile(uintptr(fds[0]), "memfd")
			t.Cleanup(func() { file.Close() })
			const all = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_SEAL
			if seals, err := unix.FcntlInt(file.Fd(), unix.F_GET_SEALS, 0); err != nil || seals&all != all {
				t.Errorf("the seals are %x, %v; want %x", seals, err, all)
			}
			content, _ = io.ReadAll(io.NewSectionReader(file, 0, 1<<20))
		}
		if !bytes.Equal(content, want) {
			t.Errorf("entry %d has %d bytes, want %d", i, len(content), len(want))
		}
	}
}
