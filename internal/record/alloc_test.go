package record

import (
	"maps"
	"slices"
	"testing"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// encoders and events are what the hot path meets.
func encoders() map[string]Encoder {
	return map[string]Encoder{
		"ndjson": NewNDJSON(nil), "ndjson with labels": NewNDJSON(goldenLabels), "text": Text{},
	}
}

func events() map[string]tcp.Transition {
	unowned, hostile := fullV4(), fullV4()
	unowned.Owner, unowned.Cgroup = tcp.Owner{}, nil
	hostile.Owner, hostile.Cgroup = task(1, "\x1b\xff\u0085\u2028\u202e"), &tcp.Cgroup{Path: longestPath("\xff")}
	return map[string]tcp.Transition{
		"IPv4": fullV4(), "IPv6": fullV6(), "mapped": mapped(), "no owner": unowned, "hostile": hostile,
		"TIME_WAIT": timeWait(tcp.TimeWait),
	}
}

// room is for a path that turns out too long only when it has been escaped, too.
const room = 4 * MaxLine

// encoded are the records of an event that are made in numbers.
func encoded(e Encoder, event tcp.Transition) map[string]func(dst []byte) []byte {
	end, socket := fullConnection(), tcp.Socket{Transition: event, ExpiresIn: 1}
	return map[string]func(dst []byte) []byte{
		"transition": func(dst []byte) []byte { return e.Transition(dst, 1, &event) },
		"connection": func(dst []byte) []byte { return e.Connection(dst, 1, &event, &end) },
		"socket":     func(dst []byte) []byte { return e.(socketEncoder).Socket(dst, 1, &socket) },
	}
}

func TestEncodingIntoAReusedBufferDoesNotAllocate(t *testing.T) {
	buf := make([]byte, 0, room)
	for encoder, e := range encoders() {
		for name, event := range events() {
			for record, encode := range encoded(e, event) {
				if encoder == "text" && record != "transition" {
					continue // people do not read that fast
				}
				allocs := testing.AllocsPerRun(1000, func() { buf = encode(buf[:0]) })
				if allocs != 0 {
					t.Errorf("%s, %s, %s: %v allocations, want 0", encoder, record, name, allocs)
				}
			}
		}
	}
}

func BenchmarkTransition(b *testing.B) { benchmarkRecord(b, "transition") }
func BenchmarkConnection(b *testing.B) { benchmarkRecord(b, "connection") }
func BenchmarkSocket(b *testing.B)     { benchmarkRecord(b, "socket") }

func benchmarkRecord(b *testing.B, record string) {
	for _, encoder := range slices.Sorted(maps.Keys(encoders())) {
		for _, name := range slices.Sorted(maps.Keys(events())) {
			encode := encoded(encoders()[encoder], events()[name])[record]
			b.Run(encoder+"/"+name, func(b *testing.B) {
				buf := encode(make([]byte, 0, room))
				b.SetBytes(int64(len(buf)))
				b.ReportAllocs()
				for b.Loop() {
					buf = encode(buf[:0])
				}
			})
		}
	}
}
