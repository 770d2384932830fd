package load_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"strings"
	"testing"
)

// subject is a way to trace, or none.
type subject struct {
	name    string
	command []string // empty: nothing runs
	ready   string   // what its output holds once it traces
	// captured counts the transitions told in its output; nil: it tells none
	captured func(t *testing.T, output *os.File) uint64
}

func subjects() []subject {
	return []subject{
		{name: "bare hook", command: []string{bare}, ready: "ready"},
		{name: "tcpshift", command: []string{tcpshift}, ready: `"type":"start"`, captured: told},
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

// told is what tcpshift says that it has written.
func told(t *testing.T, output *os.File) uint64 {
	t.Helper()
	stop := lastLine(t, output)
	var r struct {
		Type    string
		Written uint64
	}
	if err := json.Unmarshal(stop, &r); err != nil || r.Type != "stop" {
		t.Fatalf("no stop record at the end: %s", stop)
	}
	return r.Written
}

func lastLine(t *testing.T, output *os.File) []byte {
	t.Helper()
	info, err := output.Stat()
	if err != nil {
		t.Fatal(err)
	}
	end := make([]byte, min(info.Size(), 8<<10))
	if _, err := output.ReadAt(end, info.Size()-int64(len(end))); err != nil {
		t.Fatal(err)
	}
	end = bytes.TrimSuffix(end, []byte("\n"))
	return end[bytes.LastIndexByte(end, '\n')+1:]
}

// lines counts those that hold the text and a port of the storm.
func lines(text string) func(*testing.T, *os.File) uint64 {
	return func(t *testing.T, output *os.File) uint64 {
		t.Helper()
		if _, err := output.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		count := uint64(0)
		for each := bufio.NewScanner(output); each.Scan(); {
			if line := each.Text(); strings.Contains(line, text) && strings.Contains(line, "700") {
				count++
			}
		}
		return count
	}
}
