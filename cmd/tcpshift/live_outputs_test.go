package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/output"
)

// fifoOutput is an output to a FIFO whose reader reads nothing, with more to write than the FIFO takes.
func fifoOutput(t *testing.T, path string) (*queuedOutput, *os.File) {
	t.Helper()
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reader.Close() })
	v, err := newOutputValue(path)
	if err != nil {
		t.Fatal(err)
	}
	out, err := output.Open(t.Context(), path, false)
	if err != nil {
		t.Fatal(err)
	}
	q := output.NewQueue(out, 256<<10, func(string) {})
	if _, err := q.Put([]byte(strings.Repeat("a line\n", 20_000))); err != nil {
		t.Fatal(err)
	}
	return &queuedOutput{v, out, q}, reader
}

// Outputs that reloads have removed wait for their readers, a bounded number of them: the one that was removed first
// ends without its reader. What it has not written is counted, said at once, and an error at the end.
func TestLiveOutputs_RemovedAreBounded(t *testing.T) {
	dir := t.TempDir()
	live, messages := &liveOutputs{}, make(chan string, 2*maxRetired)
	var readers []*os.File
	for i := range maxRetired + 1 {
		each, reader := fifoOutput(t, filepath.Join(dir, fmt.Sprint(i)))
		live.all, readers = append(live.all, each), append(readers, reader)
	}
	first := live.all[0]
	for len(live.get()) > 0 {
		live.replace(live.get()[1:], func(message string) { messages <- message })
	}
	select {
	case got := <-messages:
		var bytes int
		if n, err := fmt.Sscanf(got, first.name+": %d bytes of output were not written", &bytes); n != 1 || bytes < 7*20_000-64<<10-7 {
			t.Errorf("the message is %q, %v", got, err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the output that was removed first does not end")
	}
	if left := live.everything(); len(left) != maxRetired || left.has(first) {
		t.Errorf("%d outputs are left, want %d without the first", len(left), maxRetired)
	}
	for _, reader := range readers[1:] {
		go func() { _, _ = io.Copy(io.Discard, reader) }()
	}
	if err := live.close(); err == nil || !strings.HasPrefix(err.Error(), first.name+": ") || strings.Contains(err.Error(), "\n") {
		t.Errorf("the error at the end is %v, want that of the first output alone", err)
	}
}
