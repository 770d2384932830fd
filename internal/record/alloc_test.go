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
	unowned.Owner = tcp.Owner{}
	hostile.Owner = task(1, "\x1b\xff\u0085\u2028\u202e")
	return map[string]tcp.Transition{
		"IPv4": fullV4(), "IPv6": fullV6(), "mapped": mapped(), "no owner": unowned, "hostile comm": hostile,
	}
}

func TestEncodingATransitionIntoAReusedBufferDoesNotAllocate(t *testing.T) {
	buf := make([]byte, 0, MaxLine)
	for encoder, e := range encoders() {
		for name, event := range events() {
			allocs := testing.AllocsPerRun(1000, func() {
				buf = e.Transition(buf[:0], 1, &event)
			})
			if allocs != 0 {
				t.Errorf("%s, %s: %v allocations, want 0", encoder, name, allocs)
			}
		}
	}
}

func BenchmarkTransition(b *testing.B) {
	for _, encoder := range slices.Sorted(maps.Keys(encoders())) {
		for _, name := range slices.Sorted(maps.Keys(events())) {
			e, event := encoders()[encoder], events()[name]
			b.Run(encoder+"/"+name, func(b *testing.B) {
				buf := e.Transition(make([]byte, 0, MaxLine), 1, &event)
				b.SetBytes(int64(len(buf)))
				b.ReportAllocs()
				for b.Loop() {
					buf = e.Transition(buf[:0], 1, &event)
				}
			})
		}
	}
}
