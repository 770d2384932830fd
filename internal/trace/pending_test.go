package trace

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/bpfobj"
	"github.com/tcpshift/tcpshift/internal/decode"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// awaited is an end that a reset may follow; with received, tcp_reset() has made it.
func awaited(cookie uint64, old tcp.State, received bool) []byte {
	b := event(152, 2, cookie, old, tcp.Close)
	flags := uint32(bpfobj.ProbeEventFlagEVENT_RESET_AWAITED)
	if received {
		flags |= uint32(bpfobj.ProbeEventFlagEVENT_TCP_RESET)
		binary.NativeEndian.PutUint32(b[92:], 104)
	}
	binary.NativeEndian.PutUint32(b[108:], flags)
	return b
}

// resetOf is the event of a reset that a socket has sent.
func resetOf(cookie uint64, code byte) []byte {
	b := make([]byte, 64)
	binary.NativeEndian.PutUint64(b[0:], uint64(time.Now().UnixNano()))
	binary.NativeEndian.PutUint64(b[8:], cookie)
	copy(b[56:], []byte{5, 4, code})
	return b
}

// resetCase is the events of one run, and what its records should have: type, conn,
// closed_by and reset_reason.
type resetCase struct {
	name   string
	events [][]byte
	want   []resetLine
}

type resetLine struct{ kind, conn, closedBy, reason string }

func transitionOf(conn, reason string) resetLine { return resetLine{"transition", conn, "", reason} }

var resetCases = []resetCase{
	{
		"a reset follows", [][]byte{awaited(1, tcp.Established, false), resetOf(1, 9)},
		[]resetLine{transitionOf("1", "EIGHT"), {"connection", "1", "reset_sent", "EIGHT"}},
	},
	{
		"data after the peer's FIN", [][]byte{awaited(1, tcp.FinWait2, true), resetOf(1, 9)},
		[]resetLine{transitionOf("1", "EIGHT"), {"connection", "1", "reset_sent", "EIGHT"}},
	},
	{
		"no reset follows", [][]byte{awaited(1, tcp.FinWait2, true)},
		[]resetLine{transitionOf("1", ""), {"connection", "1", "reset_received", ""}},
	},
	{
		"a reason without a name", [][]byte{awaited(1, tcp.Established, false), resetOf(1, 0)},
		[]resetLine{transitionOf("1", ""), {"connection", "1", "reset_sent", ""}},
	},
	{
		"events of other sockets come between",
		[][]byte{awaited(1, tcp.Established, false), awaited(2, tcp.Established, true), sample(3), resetOf(1, 9)},
		[]resetLine{
			transitionOf("3", ""), transitionOf("1", "EIGHT"), {"connection", "1", "reset_sent", "EIGHT"},
			transitionOf("2", ""), {"connection", "2", "reset_received", ""},
		},
	},
	{
		"the socket is used again", [][]byte{awaited(1, tcp.Established, true), sample(1), sample(2)},
		[]resetLine{transitionOf("1", ""), {"connection", "1", "reset_received", ""}, transitionOf("1", ""), transitionOf("2", "")},
	},
	{
		"the end was filtered", [][]byte{resetOf(1, 9), sample(2), resetOf(2, 9)},
		[]resetLine{transitionOf("2", "")},
	},
}

// The records of an end wait for the event of a reset, and show who reset the
// connection. The records of a socket keep their order, and every one is accounted for.
func TestReset_PendingEnds(t *testing.T) {
	for _, tt := range resetCases {
		t.Run(tt.name, func(t *testing.T) {
			monitor := &fakeMonitor{}
			got := play(t, Config{Monitor: monitor, ResetReasons: map[tcp.ResetCode]string{9: "EIGHT"}}, tt.events...)
			if got.err != nil {
				t.Fatal(got.err)
			}
			var lines []resetLine
			for _, l := range got.lines {
				if l.Type == "transition" || l.Type == "connection" {
					lines = append(lines, resetLine{l.Type, l.Conn, l.ClosedBy, l.ResetReason})
				}
			}
			if !slices.Equal(lines, tt.want) {
				t.Errorf("got %v, want %v", lines, tt.want)
			}
			stop := last(t, got.lines)
			transitions, connections := uint64(len(ofType(got.lines, "transition"))), uint64(len(ofType(got.lines, "connection")))
			if stop.Read != transitions || stop.Written != transitions || stop.Connections != connections {
				t.Errorf("stop is %+v, want %d transitions and %d connections", stop, transitions, connections)
			}
			if monitor.seen != transitions || uint64(len(monitor.closed)) != connections {
				t.Errorf("the monitor saw %d transitions and %d ends, want %d and %d", monitor.seen, len(monitor.closed), transitions, connections)
			}
		})
	}
}

// An end is written in the turn after its own at the latest.
func TestReset_PendingForOneTurn(t *testing.T) {
	var p pendingEnds
	e := decode.Event{Transition: tcp.Transition{Cookie: 1}}
	written := 0
	write := func(*decode.Event) error { written++; return nil }
	if !p.add(&e) || p.count != 1 {
		t.Fatal("the end is not pending")
	}
	if err := p.endTurn(write); err != nil || written != 0 || p.count != 1 {
		t.Errorf("%d ends written in the turn in which it came, want 0", written)
	}
	if err := p.endTurn(write); err != nil || written != 1 || p.count != 0 {
		t.Errorf("%d ends written after the next turn, want 1", written)
	}
}

// The number of pending ends is bounded; an end for which there is no room is written, and counts
// as a reset that may be missing.
func TestReset_PendingBound(t *testing.T) {
	var events [][]byte
	for i := range uint64(maxPending + 10) {
		events = append(events, awaited(i+1, tcp.Established, true))
	}
	got := play(t, Config{Outputs: selecting([]string{"connection"})}, events...)
	connections := ofType(got.lines, "connection")
	if got.err != nil || len(connections) != len(events) {
		t.Fatalf("%d connections and the error %v, want %d", len(connections), got.err, len(events))
	}
	if stop := last(t, got.lines); stop.Read != uint64(len(events)) || stop.Dropped != stop.Read || stop.LostResets != 10 {
		t.Errorf("stop is %+v, want %d read and dropped, and 10 lost resets", stop, len(events))
	}
}

// A pending end counts towards --count, and the run ends after it.
func TestReset_PendingAtCountLimit(t *testing.T) {
	got := play(t, Config{Count: 1}, awaited(1, tcp.Established, true), awaited(2, tcp.Established, true))
	if types := typesOf(got.lines); got.err != nil || !slices.Equal(types, []string{"start", "transition", "connection", "stop"}) {
		t.Errorf("got %v and the error %v", types, got.err)
	}
	if stop := last(t, got.lines); stop.Read != 2 || stop.Written != 1 || stop.Dropped != 1 || stop.Reason != "count" {
		t.Errorf("stop is %+v, want 2 read, 1 written, 1 dropped", stop)
	}
}
