// Package flight keeps the last events of a trace in bounded memory, and on request writes them to a file of their own, in
// the background. It must not know what the events mean, nor make the goroutine wait that adds them.
package flight

import (
	"encoding/binary"
	"sync/atomic"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

const (
	// chunkSize is the size of one chunk of a ring, in bytes. A full ring removes its oldest chunk as a whole.
	chunkSize = 1 << 20
	// MinSize is the least size of a ring, in bytes.
	MinSize = 4 * chunkSize
	// MaxSize is the largest size of a ring, in bytes. As records, the events of such a ring take about 1 GiB.
	MaxSize = 256 * chunkSize
	// headerSize is the size of the header before each sample, in bytes: the sample's length, a port, the number of a
	// cgroup, and the offset of the wall clock.
	headerSize = 16
	// maxCgroups bounds the cgroups that are kept. The newest ones stay.
	maxCgroups = 1 << 16
)

// Event is one event of a ring. An event of a [Snapshot] is valid until Release.
type Event struct {
	Sample []byte        // as the kernel has emitted it, less than 64 KiB; in a Snapshot its address is a multiple of 8
	Offset time.Duration // wall-clock time − monotonic time
	Port   uint16        // of a listener that was not bound; 0: none
	Cgroup *tcp.Cgroup   // nil: not known
}

// Ring keeps the last events, as many as it has room for. Its methods are for one goroutine; a [Snapshot] may be read by
// another one.
type Ring struct {
	limit   int      // chunks
	chunks  []*chunk // the oldest first; the last one is being filled
	cgroups []numbered
	numbers map[*tcp.Cgroup]uint32
	next    uint32 // number of the next cgroup, from 1
	last    numbered
}

type chunk struct {
	data    []byte // its capacity is chunkSize
	count   uint64
	readers atomic.Int32
}

// numbered is a cgroup with its number. It is kept at the index number % maxCgroups, until a newer one takes its place.
type numbered struct {
	cgroup *tcp.Cgroup
	number uint32
}

// NewRing returns an empty ring that takes up to size bytes of memory, as events come. size is from MinSize to MaxSize; the
// caller checks that.
func NewRing(size int) *Ring {
	return &Ring{limit: size / chunkSize, numbers: make(map[*tcp.Cgroup]uint32), next: 1}
}

// Add adds a copy of an event. If the ring is full, it first removes the oldest chunk.
func (r *Ring) Add(e Event) {
	room := headerSize + (len(e.Sample)+7)&^7
	var c *chunk
	if n := len(r.chunks); n > 0 {
		c = r.chunks[n-1]
	}
	if c == nil || len(c.data)+room > cap(c.data) {
		c = r.advance()
	}
	at := len(c.data)
	c.data = c.data[:at+room]
	header := c.data[at:]
	binary.LittleEndian.PutUint16(header, uint16(len(e.Sample)))
	binary.LittleEndian.PutUint16(header[2:], e.Port)
	binary.LittleEndian.PutUint32(header[4:], r.number(e.Cgroup))
	binary.LittleEndian.PutUint64(header[8:], uint64(e.Offset))
	copy(header[headerSize:], e.Sample)
	c.count++
}

// advance appends an empty chunk and returns it. If the ring is full, it removes the oldest chunk, and reuses its memory
// unless a snapshot has it.
func (r *Ring) advance() *chunk {
	c := &chunk{}
	if len(r.chunks) == r.limit {
		oldest := r.chunks[0]
		r.chunks = append(r.chunks[:0], r.chunks[1:]...)
		if oldest.readers.Load() == 0 {
			c = oldest
			c.data, c.count = c.data[:0], 0
		}
	}
	if c.data == nil {
		c.data = make([]byte, 0, chunkSize)
	}
	r.chunks = append(r.chunks, c)
	return c
}

// number returns the number of a cgroup, a new one if it is not kept; 0: the cgroup is nil.
func (r *Ring) number(c *tcp.Cgroup) uint32 {
	if c == r.last.cgroup {
		return r.last.number
	}
	if c == nil {
		return 0
	}
	n, known := r.numbers[c]
	if !known {
		n = r.next
		r.next++
		if at := int(n % maxCgroups); at < len(r.cgroups) {
			delete(r.numbers, r.cgroups[at].cgroup)
			r.cgroups[at] = numbered{c, n}
		} else {
			for len(r.cgroups) < at { // number 0 stands for none
				r.cgroups = append(r.cgroups, numbered{})
			}
			r.cgroups = append(r.cgroups, numbered{c, n})
		}
		r.numbers[c] = n
	}
	r.last = numbered{c, n}
	return n
}

// Snapshot has the events of a ring at one moment. It is for one goroutine, which may be another one than the ring's.
type Snapshot struct {
	Count   uint64 // events
	chunks  []*chunk
	data    [][]byte
	cgroups []numbered
}

// Snapshot returns the events that the ring has now. It copies none of them.
func (r *Ring) Snapshot() *Snapshot {
	s := &Snapshot{cgroups: append([]numbered(nil), r.cgroups...)}
	for _, c := range r.chunks {
		c.readers.Add(1)
		s.Count += c.count
		s.chunks, s.data = append(s.chunks, c), append(s.data, c.data)
	}
	return s
}

// Release lets the ring use the memory of the events again. It must be called once.
func (s *Snapshot) Release() {
	for _, c := range s.chunks {
		c.readers.Add(-1)
	}
	s.chunks, s.data = nil, nil
}

// Each calls f for each event, the oldest first. It stops at the first error of f, and returns that error.
func (s *Snapshot) Each(f func(e Event) error) error {
	for _, data := range s.data {
		for len(data) > 0 {
			size := int(binary.LittleEndian.Uint16(data))
			e := Event{
				Sample: data[headerSize : headerSize+size],
				Offset: time.Duration(binary.LittleEndian.Uint64(data[8:])),
				Port:   binary.LittleEndian.Uint16(data[2:]),
				Cgroup: s.cgroup(binary.LittleEndian.Uint32(data[4:])),
			}
			data = data[headerSize+(size+7)&^7:]
			if err := f(e); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Snapshot) cgroup(number uint32) *tcp.Cgroup {
	if at := int(number % maxCgroups); number != 0 && at < len(s.cgroups) && s.cgroups[at].number == number {
		return s.cgroups[at].cgroup
	}
	return nil
}
