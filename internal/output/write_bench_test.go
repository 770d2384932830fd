package output

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// perTransition is the size of a transition, 520 bytes, with its share of the connection record.
	perTransition = 624
	// mostInFile bounds the file of a benchmark, in bytes.
	mostInFile = 256 << 20
)

var benchLine = append(bytes.Repeat([]byte{'x'}, perTransition-1), '\n')

// openForBench opens a file that is removed after the benchmark. It is not in the temporary
// directory, which may be memory.
func openForBench(b *testing.B) (out Output, path string) {
	b.Helper()
	dir, err := os.MkdirTemp(".", "write-")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	path = filepath.Join(dir, "lines")
	if out, err = Open(context.Background(), path, false); err != nil {
		b.Fatal(err)
	}
	return out, path
}

// BenchmarkWrite is the cost of writing one transition to a file, by the size of the writes, which
// are of whole lines.
func BenchmarkWrite(b *testing.B) {
	for _, size := range []int{64 << 10, 256 << 10} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			out, path := openForBench(b)
			piece := bytes.Repeat(benchLine, size/perTransition)
			b.SetBytes(perTransition)
			waiting, written := 0, 0
			for b.Loop() {
				if waiting += perTransition; waiting < len(piece) {
					continue
				}
				if _, err := out.Write(piece); err != nil {
					b.Fatal(err)
				}
				waiting, written = 0, written+len(piece)
				if written > mostInFile {
					b.StopTimer()
					if err := os.Truncate(path, 0); err != nil {
						b.Fatal(err)
					}
					written = 0
					b.StartTimer()
				}
			}
			if err := out.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkQueue is BenchmarkWrite through a Queue, and with the CPU time of all threads: the
// goroutine that gathers the lines and the one that writes them may be on two CPUs.
func BenchmarkQueue(b *testing.B) {
	out, path := openForBench(b)
	q := NewQueue(out, 16<<20, func(string) {})
	s := NewStream(q, noRing{}, func() {})
	b.SetBytes(perTransition)
	b.ReportAllocs()
	before, written := cpuTime(b), 0
	for b.Loop() {
		for s.Stalled() {
			time.Sleep(time.Millisecond)
		}
		s.Lines = append(s.Lines, benchLine...)
		if err := s.FlushBatch(); err != nil {
			b.Fatal(err)
		}
		if written += perTransition; written > mostInFile {
			b.StopTimer()
			if err := errors.Join(q.Drain(), os.Truncate(path, 0)); err != nil {
				b.Fatal(err)
			}
			written = 0
			b.StartTimer()
		}
	}
	b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
	q.Close()
	if err := out.Close(); err != nil {
		b.Fatal(err)
	}
}

// noRing makes a Stream wait for nothing when its queue is full.
type noRing struct{}

func (noRing) Crowded() bool { return true }

func cpuTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
