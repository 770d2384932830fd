package output

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// BenchmarkWrite is the cost of writing one transition to a file, by the size of the
// writes, which are of whole lines. A transition has 520 bytes, and with its share of
// the connection record 624.
func BenchmarkWrite(b *testing.B) {
	const perTransition, most = 624, 256 << 20 // in the file
	line := append(bytes.Repeat([]byte{'x'}, perTransition-1), '\n')
	for _, size := range []int{64 << 10, 256 << 10} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			dir, err := os.MkdirTemp(".", "write-") // not the temporary directory, which may be memory
			if err != nil {
				b.Fatal(err)
			}
			defer os.RemoveAll(dir)
			path := filepath.Join(dir, "lines")
			out, err := Open(context.Background(), path, false)
			if err != nil {
				b.Fatal(err)
			}
			piece := bytes.Repeat(line, size/perTransition)
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
				if written > most {
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
