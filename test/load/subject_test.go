package load_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"testing"
)

// subject is a way to trace, or none.
type subject struct {
	name    string
	command []string // empty: nothing runs
	ready   string   // what its output holds once it traces
	// captured counts the transitions told in its output; nil: it tells none
	captured func(t *testing.T, output *os.File, netns uint32) uint64
}

// bareHook is what all others are measured against.
const bareHook = "bare hook"

func subjects() []subject {
	return []subject{
		{name: bareHook, command: []string{bare}, ready: "ready"},
		{name: "tcpshift", command: []string{tcpshift}, ready: `"type":"start"`, captured: told},
		{name: "tcpshift alerts", command: []string{tcpshift, "alerts"}, ready: `"type":"start"`},
		{name: "tcpshift, a filter that matches nothing", command: []string{tcpshift, "--port", "1"}, ready: `"type":"start"`},
		{name: "tcpstates", command: []string{"tcpstates"}, ready: "", captured: lines("->")},
		{name: "bpftrace, printing JSON", command: []string{"bpftrace", "-e", script}, ready: "Attaching", captured: lines(`{"old"`)},
	}
}

// script is what somebody would write who needs JSON today.
const script = `BEGIN { printf("Attached\n"); }
tracepoint:sock:inet_sock_set_state /args->protocol == 6/ {
	printf("{\"old\":%d,\"new\":%d,\"pid\":%d,\"comm\":\"%s\",\"local_addr\":\"%s\",\"local_port\":%d,\"peer_addr\":\"%s\",\"peer_port\":%d}\n",
		args->oldstate, args->newstate, pid, comm, ntop(args->saddr), args->sport, ntop(args->daddr), args->dport);
}`

// told counts the transitions of the storm's namespace.
func told(t *testing.T, output *os.File, netns uint32) uint64 {
	t.Helper()
	return count(t, output, func(line []byte) bool {
		return bytes.HasPrefix(line, []byte(`{"type":"transition"`)) &&
			bytes.Contains(line, fmt.Appendf(nil, `"netns":%d,`, netns))
	})
}

// lines counts those that hold the text and a port of the storm.
func lines(text string) func(*testing.T, *os.File, uint32) uint64 {
	return func(t *testing.T, output *os.File, _ uint32) uint64 {
		t.Helper()
		return count(t, output, func(line []byte) bool {
			return bytes.Contains(line, []byte(text)) && bytes.Contains(line, []byte("700"))
		})
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
