package output

import (
	"path/filepath"
	"testing"
)

// Each new file and each new connection is counted, but not the first.
func TestQueue_Begun(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records")
	q := NewQueue(rotating(t, path, Rotation{Size: 10, Keep: 9}), 1<<20, func(message string) { t.Error(message) })
	stream := NewStream(q, nil, func() {})
	put := func(line string) {
		t.Helper()
		stream.Lines = append(stream.Lines, line...)
		if err := stream.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	put("line one\n")
	if err := q.Drain(); err != nil || stream.Begun() != 0 {
		t.Errorf("%d files are begun after the first, want 0; %v", stream.Begun(), err)
	}
	put("line two\n")
	put("line three\n")
	eventually(t, "two rotations", func() bool { return stream.Begun() == 2 })
	q.Reopen()
	eventually(t, "a reopened file", func() bool { return stream.Begun() == 3 })
	if !q.Close() {
		t.Error("the queue has not ended")
	}

	l := listenTCP(t)
	q, _ = remoteTo(t, Remote{Network: "tcp", Address: l.Addr().String()})
	stream = NewStream(q, nil, func() {})
	for want := range uint64(3) {
		put("line\n")
		conn := accept(t, l)
		eventually(t, "the connection", func() bool { return stream.Begun() == want })
		conn.Close()
	}
}
