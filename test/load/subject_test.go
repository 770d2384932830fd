package load_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// subject is a tracer under measurement, or none.
type subject struct {
	name    string
	command []string // empty for none
	ready   string   // text in its output that shows that it traces
	// captured counts the transitions in its output, and those of them that some kernels hide;
	// nil if the output has none.
	captured func(t *testing.T, output *os.File, netns uint32) (all, hideable uint64)
}

// bareHook is the tracer that all others are compared with.
const bareHook = "bare hook"

func subjects() []subject {
	// All transitions and ends are read, and no record of them is written.
	unwritten := []string{tcpshift, "--only", "connection", "--closed-by", "no_port"}
	return []subject{
		{name: bareHook, command: []string{bare}, ready: "ready"},
		{name: "tcpshift", command: []string{tcpshift}, ready: `"type":"start"`, captured: recorded},
		{name: "tcpshift alerts", command: []string{tcpshift, "alerts"}, ready: `"type":"start"`},
		{name: "tcpshift --only connection", command: []string{tcpshift, "--only", "connection"}, ready: `"type":"start"`},
		{name: "tcpshift --only connection,alert", command: []string{tcpshift, "--only", "connection,alert"}, ready: `"type":"start"`},
		{name: "tcpshift, a filter that matches nothing", command: []string{tcpshift, "--port", "1"}, ready: `"type":"start"`},
		{name: "tcpshift, the full stream without encoding", command: append(slices.Clone(unwritten), "--count", "1000000000000"), ready: `"type":"start"`},
		{name: "tcpshift, the same with recorder", command: append(slices.Clone(unwritten), "--recorder", "64MiB", "--recorder-dir", filepath.Join(filepath.Dir(tcpshift), "recorder")), ready: `"type":"start"`},
		{name: "tcpstates", command: []string{"tcpstates"}, ready: "", captured: lines("->")},
		{name: "bpftrace, printing JSON", command: []string{"bpftrace", "-e", script}, ready: "Attaching", captured: lines(`{"old"`)},
	}
}

// script is a bpftrace program for JSON output.
const script = `BEGIN { printf("Attached\n"); }
tracepoint:sock:inet_sock_set_state /args->protocol == 6/ {
	printf("{\"old\":%d,\"new\":%d,\"pid\":%d,\"comm\":\"%s\",\"local_addr\":\"%s\",\"local_port\":%d,\"peer_addr\":\"%s\",\"peer_port\":%d}\n",
		args->oldstate, args->newstate, pid, comm, ntop(args->saddr), args->sport, ntop(args->daddr), args->dport);
}`

// recorded counts the transitions of the storm's namespace, and those to and from FIN_WAIT2: see
// docs/accuracy.md.
func recorded(t *testing.T, output *os.File, netns uint32) (all, hideable uint64) {
	t.Helper()
	all = count(t, output, func(line []byte) bool {
		of := bytes.HasPrefix(line, []byte(`{"type":"transition"`)) &&
			bytes.Contains(line, fmt.Appendf(nil, `"netns":%d,`, netns))
		if of && bytes.Contains(line, []byte(`_state":"FIN_WAIT2"`)) {
			hideable++
		}
		return of
	})
	return all, hideable
}

// lines counts the lines with the text and a port of the storm.
func lines(text string) func(*testing.T, *os.File, uint32) (all, hideable uint64) {
	return func(t *testing.T, output *os.File, _ uint32) (all, hideable uint64) {
		t.Helper()
		return count(t, output, func(line []byte) bool {
			return bytes.Contains(line, []byte(text)) && bytes.Contains(line, []byte("700"))
		}), 0
	}
}

func count(t *testing.T, output *os.File, wanted func(line []byte) bool) (n uint64) {
	t.Helper()
	if _, err := output.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	each := bufio.NewScanner(output)
	for each.Scan() {
		if wanted(each.Bytes()) {
			n++
		}
	}
	if err := each.Err(); err != nil {
		t.Fatalf("read the output: %v", err)
	}
	return n
}
