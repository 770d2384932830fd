package record

import (
	"maps"
	"slices"
	"testing"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// encoders and events are those of the benchmarks and of the test of allocations.
func encoders() map[string]Encoder {
	return map[string]Encoder{
		"ndjson": NewNative(nil), "ndjson with labels": NewNative(goldenLabels), "text": Text{},
		"ecs": NewECS(goldenLabels), "otel": NewOTel(goldenLabels),
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

// room is enough for a path that is left out only after it has been escaped.
const room = 4 * MaxLine

// encoded are the records that are frequent, of one event.
func encoded(e Encoder, event tcp.Transition) map[string]func(dst []byte) []byte {
	end, socket := fullConnection(), tcp.Socket{Transition: event, ExpiresIn: 1}
	return map[string]func(dst []byte) []byte{
		"transition": func(dst []byte) []byte { return e.Transition(dst, &event) },
		"connection": func(dst []byte) []byte { return e.Connection(dst, &event, &end) },
		"socket":     func(dst []byte) []byte { return e.(SocketEncoder).Socket(dst, &socket) },
	}
}

// Encoding into a buffer that has room does not allocate.
func TestEncoder_NoAllocations(t *testing.T) {
	buf := make([]byte, 0, room)
	for encoder, e := range encoders() {
		for name, event := range events() {
			for record, encode := range encoded(e, event) {
				if encoder == "text" && record != "transition" {
					continue // is not frequent
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
