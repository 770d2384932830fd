package cli_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// transitionLine is a recording with one transition.
const transitionLine = `{"type":"transition","time":"2026-11-22T12:23:24.112530594Z","seq":1,"conn":"2b","netns":7,"family":"ipv4","local_addr":"10.0.0.1","local_port":80,"role":"listener","old_state":"CLOSE","new_state":"LISTEN","uid":0}` + "\n"

// inputLines are a recording of inputs with the same transition.
const inputLines = `{"input":"recording","version":1,"tcpshift":"test","arch":"amd64","began_ns":1,"thresholds":{}}
{"input":"wall","offset_ns":1763814204000000000}
{"input":"transition","at_ns":112530594,"conn":"2b","old":7,"new":10,"role":3,"local":"10.0.0.1","local_port":80,"netns":7}
{"input":"finish","now_ns":200000000}
`

func zipped(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := io.WriteString(w, text)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// replay takes recordings of both kinds, compressed or not, and says what is wrong with others.
func TestReplay_Files(t *testing.T) {
	const cut = "the end of the file is missing or damaged: the replay ends there"
	path := filepath.Join(t.TempDir(), "file")
	whole := string(zipped(t, strings.Repeat(transitionLine, 1000)))
	for name, c := range map[string]struct {
		content     string
		transitions int
		status      int
		message     string
	}{
		"records":                        {transitionLine, 1, 0, ""},
		"records, compressed":            {string(zipped(t, transitionLine)), 1, 0, ""},
		"two compressed files":           {string(zipped(t, transitionLine)) + string(zipped(t, transitionLine)), 2, 0, ""},
		"records, compressed, damaged":   {whole[:len(whole)-8] + "\x00" + whole[len(whole)-7:], 1000, 0, cut},
		"inputs":                         {inputLines, 1, 0, ""},
		"inputs, compressed":             {string(zipped(t, inputLines)), 1, 0, ""},
		"a last line that is not whole":  {transitionLine + transitionLine[:90], 1, 0, cut},
		"a first line that is not whole": {transitionLine[90:] + transitionLine, 1, 0, "1 lines are no records; line 1: it is not JSON"},
		"a newer type":                   {transitionLine + `{"type":"galaxy","time":"2026-11-22T12:23:25Z","pid":"x"}` + "\n", 1, 0, ""},
		"another schema":                 {strings.Replace(transitionLine, `"transition"`, `"start","schema":"2.3"`, 1), 0, 1, "line 1: the records have the schema 2.3, and this tcpshift reads 1.0: use a newer tcpshift"},
		"newer inputs":                   {strings.Replace(inputLines, `"version":1`, `"version":9`, 1), 0, 1, `line 1: version 9 of recordings is not known: use the tcpshift that has written it ("test"), or a newer one`},
		"zstd":                           {"\x28\xb5\x2f\xfd\x04\x58", 0, 1, "it is compressed with zstd: decompress it first, such as with 'zstd -dc FILE'"},
		"the clock was set back":         {transitionLine + strings.Replace(transitionLine, "T12:23", "T12:22", 1), 2, 0, "the time goes back by more than 10 s, 1 times: the clock was set back, or files are not in order"},
		"another host": {strings.Replace(transitionLine, `"conn"`, `"host":"a","boot_id":"1","conn"`, 1) + strings.Replace(transitionLine, `"conn"`, `"host":"b","boot_id":"2","conn"`, 1), 2, 0,
			"1 records are of other hosts than the first: they are in no alert"},
	} {
		if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		r := run(flags("replay", "--only", "transition", path))
		if r.status != c.status {
			t.Errorf("%s: status %d, want %d\n%v", name, r.status, c.status, r)
		}
		if c.message != "" {
			c.message = path + ": " + c.message
		}
		r.mustPrintError(t, c.message)
		if n := strings.Count(r.stdout, `"type":"transition"`); n != c.transitions {
			t.Errorf("%s: %d transitions, want %d\n%v", name, n, c.transitions, r)
		}
	}
}

// awaitOpen waits until a thread of the program is in open(2) for longer than any file takes but a FIFO.
func awaitOpen(tr *tracer) {
	tr.t.Helper()
	began := time.Now()
	for same := 0; same < 10; time.Sleep(10 * time.Millisecond) {
		if same++; !isInSystemCall(tr.t, tr.cmd.Process.Pid, unix.SYS_OPENAT, 2, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOCTTY|unix.O_LARGEFILE) {
			same = 0
		}
		if time.Since(began) > waitLimit {
			tr.fatalf("the FIFO was not opened within %v", waitLimit)
		}
	}
}

// A signal ends a replay that waits for the writer of a pipe, in order: what was read is written.
func TestReplay_SignalWhileItWaits(t *testing.T) {
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	tr := launch(t, flags("replay", "--only", "transition", "-"), func(cmd *exec.Cmd) { cmd.Stdin = out })
	out.Close()
	if _, err := in.WriteString(transitionLine); err != nil {
		t.Fatal(err)
	}
	tr.awaitStart()
	got := tr.stop()
	if n := len(got.of("transition")); n != 1 {
		t.Errorf("%d transitions, want 1\n%v", n, got.result)
	}

	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, opened := range []bool{false, true} {
		tr := launch(t, flags("replay", fifo))
		if opened {
			writer, err := os.OpenFile(fifo, os.O_WRONLY, 0) // waits until the replay has opened it
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { writer.Close() })
		} else {
			awaitOpen(tr)
		}
		tr.signal(syscall.SIGINT)
		r := tr.wait()
		r.mustEnd(t, 0)
		r.mustPrintError(t, "")
		r.mustPrintNothing(t)
	}
}
