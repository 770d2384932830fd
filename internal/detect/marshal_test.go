package detect

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Counts of suspects come back from a recording with all that the engine uses. A new field of these types must be added
// to their JSON, and here.
func TestMarshal_SuspectCounts(t *testing.T) {
	t.Parallel()
	key := destination{local: netip.MustParseAddr("10.0.0.1"), peer: netip.MustParseAddr("fd00::2"), netns: 7, peerPort: 80, ownRange: true}
	want := &SuspectCounts{
		of: &Suspects{
			Urgent: true, since: 5, lostBefore: 6,
			list: []suspect{{key: key, atRequest: mark{at: 1, moves: 2, open: 3, timeWaits: 0.1}, refusedAt: 4}},
		},
		readAt: time.Hour, readUntil: time.Hour + 1,
		counts: []suspectCount{{open: 1, lastAck: 2, timeWaits: 3, finWait2: 4, oldest: 5, young: 6, reusable: 7, old: 8, oldReusable: 9, ends: &waitingEnds{0: 3, 61: 4}}},
	}
	c := &want.counts[0]
	for i := range c.created {
		c.reusableIn[i], c.refusedIn[i], c.created[i], c.waitingIn[i] = int32(i), int32(2*i), int32(3*i), int32(4*i)
	}
	for i := range c.expires {
		c.expires[i] = int32(-i)
	}
	for kind, fields := range map[reflect.Type]int{
		reflect.TypeFor[SuspectCounts](): 9, reflect.TypeFor[Suspects](): 5, reflect.TypeFor[suspect](): 4, reflect.TypeFor[mark](): 4,
		reflect.TypeFor[suspectCount](): 16, reflect.TypeFor[destination](): 5, reflect.TypeFor[OpenSockets](): 3,
	} {
		if kind.NumField() != fields {
			t.Errorf("%v has %d fields, not %d: does its JSON have all that the engine uses?", kind, kind.NumField(), fields)
		}
	}
	var got SuspectCounts
	line, err := json.Marshal(want)
	if err == nil {
		err = json.Unmarshal(line, &got)
	}
	if err != nil || !reflect.DeepEqual(&got, want) {
		t.Errorf("%v; got\n%+v, want\n%+v", err, got, want)
	}
}

// The connections of the kernel's table come back from a recording.
func TestMarshal_OpenSockets(t *testing.T) {
	t.Parallel()
	want, l := &OpenSockets{full: true}, tcp.DefaultLimits()
	for port := range uint16(3) {
		s := &tcp.Socket{Transition: tcp.Transition{New: tcp.Established}}
		s.Local, s.Peer = tcp.Endpoint{Addr: netip.MustParseAddr("10.0.0.1"), Port: 40000 + port/2}, tcp.Endpoint{Addr: netip.MustParseAddr("10.0.0.2"), Port: port}
		want.Add(7, s, &l)
	}
	var got OpenSockets
	line, err := json.Marshal(want)
	if err == nil {
		err = json.Unmarshal(line, &got)
	}
	if err != nil || !reflect.DeepEqual(&got, want) {
		t.Errorf("%v; got\n%+v, want\n%+v", err, got, want)
	}
}
