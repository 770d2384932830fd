package flight

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// sampleOf is a sample whose bytes show its number.
func sampleOf(n uint64) []byte {
	sample := make([]byte, 64+56*(n%3)) // the lengths of events differ
	binary.LittleEndian.PutUint64(sample, n)
	return sample
}

// numbersOf returns the numbers of the samples of a snapshot, and checks what comes with them.
func numbersOf(t *testing.T, s *Snapshot, cgroups []*tcp.Cgroup) (numbers []uint64) {
	t.Helper()
	err := s.Each(func(e Event) error {
		n := binary.LittleEndian.Uint64(e.Sample)
		numbers = append(numbers, n)
		port := uint16(n)
		if want := sampleOf(n); !bytes.Equal(e.Sample, want) || e.Offset != time.Duration(n)-5 || e.Port != port || e.Cgroup != cgroups[n%uint64(len(cgroups))] {
			return fmt.Errorf("event %d is %+v", n, e)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return numbers
}

func addTo(r *Ring, n uint64, cgroups []*tcp.Cgroup) {
	r.Add(Event{Sample: sampleOf(n), Offset: time.Duration(n) - 5, Port: uint16(n), Cgroup: cgroups[n%uint64(len(cgroups))]})
}

// A ring has the newest events without a gap, in order and unchanged, and fills its memory but for a chunk.
func TestRing_NewestEvents(t *testing.T) {
	cgroups := []*tcp.Cgroup{nil, {Path: "/a"}, {Path: "/b"}}
	r := NewRing(MinSize)
	const last = 200_000
	for n := range uint64(last) {
		addTo(r, n, cgroups)
	}
	s := r.Snapshot()
	defer s.Release()
	numbers := numbersOf(t, s, cgroups)
	if uint64(len(numbers)) != s.Count || numbers[len(numbers)-1] != last-1 {
		t.Errorf("%d events, the last one is %d; Count is %d", len(numbers), numbers[len(numbers)-1], s.Count)
	}
	for i, n := range numbers {
		if n != numbers[0]+uint64(i) {
			t.Fatalf("event %d follows %d", n, numbers[0]+uint64(i)-1)
		}
	}
	if size := len(numbers) * (headerSize + 64 + 56); size < MinSize-2*chunkSize || size > MinSize {
		t.Errorf("the events take %d bytes of %d", size, MinSize)
	}
}

// A snapshot stays as it is while the ring goes on, in another goroutine.
func TestRing_SnapshotStays(t *testing.T) {
	cgroups := []*tcp.Cgroup{{Path: "/a"}}
	r := NewRing(MinSize)
	var all sync.WaitGroup
	for n := range uint64(300_000) {
		addTo(r, n, cgroups)
		if n%50_000 != 777 {
			continue
		}
		s := r.Snapshot()
		all.Go(func() {
			defer s.Release()
			for range 3 {
				if numbers := numbersOf(t, s, cgroups); numbers[len(numbers)-1] != n || uint64(len(numbers)) != s.Count {
					t.Errorf("the snapshot of event %d ends with %d", n, numbers[len(numbers)-1])
				}
			}
		})
	}
	all.Wait()
	if len(r.chunks) != MinSize/chunkSize {
		t.Errorf("the ring has %d chunks", len(r.chunks))
	}
}

// More cgroups than are kept: the events of the newest have theirs, older ones have none, and never another's.
func TestRing_ManyCgroups(t *testing.T) {
	r := NewRing(4 * MinSize)
	cgroups := make([]*tcp.Cgroup, maxCgroups+100)
	for n := range cgroups {
		cgroups[n] = &tcp.Cgroup{Path: fmt.Sprint(n)}
		r.Add(Event{Sample: binary.LittleEndian.AppendUint64(nil, uint64(n)), Cgroup: cgroups[n]})
	}
	s := r.Snapshot()
	defer s.Release()
	with := 0
	_ = s.Each(func(e Event) error {
		if n := binary.LittleEndian.Uint64(e.Sample); e.Cgroup != nil {
			with++
			if e.Cgroup != cgroups[n] {
				t.Fatalf("event %d has the cgroup %s", n, e.Cgroup.Path)
			}
		}
		return nil
	})
	if with < maxCgroups-1 || with >= len(cgroups) || len(r.numbers) > maxCgroups {
		t.Errorf("%d events have a cgroup, %d are known", with, len(r.numbers))
	}
}

func openRoot(t *testing.T) (root *os.Root, path string) {
	t.Helper()
	path = t.TempDir()
	root, err := os.OpenRoot(path)
	if err != nil {
		t.Fatal(err)
	}
	return root, path
}

func namesIn(t *testing.T, path string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// At most ten files stay, the newest ones, with mode 0600; what a crash has left goes, and other files are not touched.
func TestRecorder_Files(t *testing.T) {
	root, path := openRoot(t)
	for _, name := range []string{"20260101T000000.000000000Z-asked.ndjson.part", "mine.ndjson", "20260101T000000.000000000Z-asked.txt"} {
		if err := os.WriteFile(filepath.Join(path, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r := New(MinSize, root, func(string) {})
	at := time.Date(2026, 2, 3, 4, 5, 6, 7, time.UTC)
	written := make(chan struct{})
	for i := range 13 {
		addTo(r.Ring, uint64(i), []*tcp.Cgroup{nil})
		r.Dump(at.Add(time.Duration(i)*time.Second), "time_wait_storm", func(s *Snapshot, w *Writer) error {
			_, err := fmt.Fprintf(w, "%d\n", s.Count)
			defer func() { written <- struct{}{} }()
			return err
		})
		<-written
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	names := namesIn(t, path)
	want := []string{"20260101T000000.000000000Z-asked.txt"}
	for i := 3; i < 13; i++ {
		want = append(want, fmt.Sprintf("20260203T0405%02d.000000007Z-time_wait_storm.ndjson", 6+i))
	}
	if want = append(want, "mine.ndjson"); !slices.Equal(names, want) {
		t.Errorf("the files are\n%s, want\n%s", strings.Join(names, "\n"), strings.Join(want, "\n"))
	}
	info, err := os.Stat(filepath.Join(path, want[1]))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the mode is %v, %v", info.Mode(), err)
	}
	if r.Files() != 13 || r.Lost() != 0 {
		t.Errorf("%d files and %d lost, want 13 and 0", r.Files(), r.Lost())
	}
}

// Old files go where their room is needed; a file that is too large by itself does not stay, and its events count as
// lost.
func TestDirectory_MaxBytes(t *testing.T) {
	root, path := openRoot(t)
	defer root.Close()
	at := time.Date(2026, 2, 3, 4, 5, 6, 7, time.UTC)
	d := &directory{root}
	for i := range 3 {
		name := filepath.Join(path, at.Add(time.Duration(i)*time.Second).Format(timeFormat)+"-asked.ndjson")
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(name, 400<<20); err != nil { // a hole takes no room
			t.Fatal(err)
		}
	}
	if err := d.makeRoom(300<<20, "other"); err != nil || len(namesIn(t, path)) != 1 {
		t.Errorf("%v, and %v stay", err, namesIn(t, path))
	}
	if err := d.makeRoom(1<<30+1, "other"); err == nil {
		t.Error("a file of more than 1 GiB has room")
	}
	_, err := d.create(at, "asked", func(*Writer) error { return errors.New("broken") })
	if names := namesIn(t, path); err == nil || len(names) != 1 {
		t.Errorf("%v, and %v stay", err, names)
	}
}

// A disk that hangs makes nobody wait: the files that have no room to wait count as lost, and Close ends when it is
// abandoned.
func TestRecorder_SlowDisk(t *testing.T) {
	root, _ := openRoot(t)
	r := New(MinSize, root, func(string) {})
	addTo(r.Ring, 1, []*tcp.Cgroup{nil})
	begun, hang := make(chan struct{}, 2), make(chan struct{})
	defer func() {
		close(hang)
		<-r.done
	}()
	write := func(*Snapshot, *Writer) error {
		begun <- struct{}{}
		<-hang
		return nil
	}
	r.Dump(time.Now(), "a", write)
	<-begun
	r.Dump(time.Now(), "b", write)
	r.Dump(time.Now(), "c", write)
	if r.Lost() != 1 {
		t.Errorf("%d events are lost, want 1", r.Lost())
	}
	r.Abandon()
	if err := r.Close(); err == nil {
		t.Error("Close does not say that a file is not written")
	}
}

// There is one file a minute for each reason.
func TestRecorder_Admit(t *testing.T) {
	root, _ := openRoot(t)
	r := New(MinSize, root, func(string) {})
	defer r.Close()
	at := time.Now()
	for _, c := range []struct {
		reason string
		after  time.Duration
		want   bool
	}{
		{"a", 0, true}, {"b", time.Second, true}, {"a", 59 * time.Second, false}, {"b", 60 * time.Second, false},
		{"a", 60 * time.Second, true}, {"a", 119 * time.Second, false}, {"b", 61 * time.Second, true},
		{"a", -time.Hour, true}, // the clock was set
	} {
		if got := r.Admit(c.reason, at.Add(c.after)); got != c.want {
			t.Errorf("after %v, a file for %s is admitted: %v", c.after, c.reason, got)
		}
	}
	r.Ask()
	if !r.Asked() || r.Asked() {
		t.Error("what was asked once is not reported once")
	}
}

func BenchmarkRing_Add(b *testing.B) {
	r, e := NewRing(64<<20), Event{Sample: make([]byte, 112), Cgroup: &tcp.Cgroup{}}
	b.ReportAllocs()
	for b.Loop() {
		r.Add(e)
	}
}
