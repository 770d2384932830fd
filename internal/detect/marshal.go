package detect

import (
	"encoding/json"
	"errors"
	"net/netip"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// The types below are the JSON of [OpenSockets] and [SuspectCounts] in a recording. They have what the engine uses of
// these, which is less than what Add needs: a value that was decoded takes no more sockets.

type destinationJSON struct {
	Local    netip.Addr `json:"local"`
	Peer     netip.Addr `json:"peer"`
	Netns    uint32     `json:"netns"`
	PeerPort uint16     `json:"peer_port"`
	OwnRange bool       `json:"own_range,omitempty"`
}

func (d destination) asJSON() destinationJSON {
	return destinationJSON{d.local, d.peer, d.netns, d.peerPort, d.ownRange}
}

func (d destinationJSON) value() destination {
	return destination{local: d.Local, peer: d.Peer, netns: d.Netns, peerPort: d.PeerPort, ownRange: d.OwnRange}
}

type openSocketsJSON struct {
	Destinations []destinationJSON `json:"destinations"`
	Counts       []int             `json:"counts"` // of each destination
	Ports        []uint16          `json:"ports"`
	Full         bool              `json:"full,omitempty"`
}

// MarshalJSON encodes the counts for a recording.
func (o *OpenSockets) MarshalJSON() ([]byte, error) {
	j := openSocketsJSON{Full: o.full}
	for d, count := range o.byDestination {
		j.Destinations, j.Counts = append(j.Destinations, d.asJSON()), append(j.Counts, count)
	}
	for port := range o.ports.Within(0, 65535) {
		j.Ports = append(j.Ports, port)
	}
	return json.Marshal(&j)
}

// UnmarshalJSON decodes what MarshalJSON has encoded.
func (o *OpenSockets) UnmarshalJSON(data []byte) error {
	var j openSocketsJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return err
	}
	if len(j.Counts) != len(j.Destinations) {
		return errors.New("the destinations and their counts are not equally many")
	}
	*o = OpenSockets{byDestination: make(map[destination]int, len(j.Counts)), ports: *tcp.PortSetOf(j.Ports...), full: j.Full}
	for i, d := range j.Destinations {
		o.byDestination[d.value()] = j.Counts[i]
	}
	return nil
}

type suspectJSON struct {
	destinationJSON
	At        time.Duration `json:"at_ns"`
	Moves     int64         `json:"moves"`
	Open      int64         `json:"open"`
	TimeWaits float64       `json:"time_waits"`
	RefusedAt time.Duration `json:"refused_at_ns,omitempty"`
	Count     countJSON     `json:"count"`
}

type countJSON struct {
	Open        int           `json:"open"`
	LastAck     int           `json:"last_ack"`
	TimeWaits   int           `json:"time_waits"`
	FinWait2    int           `json:"fin_wait2"`
	Oldest      time.Duration `json:"oldest_ns"`
	Young       int           `json:"young"`
	Reusable    int           `json:"reusable"`
	Old         int           `json:"old"`
	OldReusable int           `json:"old_reusable"`
	ReusableIn  []int32       `json:"reusable_in"`
	RefusedIn   []int32       `json:"refused_in"`
	Expires     []int32       `json:"expires"`
	Created     []int32       `json:"created"`
	WaitingIn   []int32       `json:"waiting_in"`
	Ends        []int32       `json:"waiting_ends,omitempty"`
}

type suspectCountsJSON struct {
	Since      time.Duration `json:"since_ns"`
	Urgent     bool          `json:"urgent,omitempty"`
	LostBefore uint64        `json:"lost_before"`
	ReadAt     time.Duration `json:"read_at_ns"`
	ReadUntil  time.Duration `json:"read_until_ns"`
	Suspects   []suspectJSON `json:"suspects"`
}

// MarshalJSON encodes the counts for a recording.
func (c *SuspectCounts) MarshalJSON() ([]byte, error) {
	j := suspectCountsJSON{Since: c.of.since, Urgent: c.of.Urgent, LostBefore: c.of.lostBefore, ReadAt: c.readAt, ReadUntil: c.readUntil}
	for i := range c.of.list {
		s, n := &c.of.list[i], &c.counts[i]
		j.Suspects = append(j.Suspects, suspectJSON{
			destinationJSON: s.key.asJSON(), At: s.atRequest.at, Moves: s.atRequest.moves, Open: s.atRequest.open,
			TimeWaits: s.atRequest.timeWaits, RefusedAt: s.refusedAt, Count: n.asJSON(),
		})
	}
	return json.Marshal(&j)
}

func (n *suspectCount) asJSON() countJSON {
	var ends []int32
	if n.ends != nil {
		ends = n.ends[:]
	}
	return countJSON{
		Ends: ends,
		Open: n.open, LastAck: n.lastAck, TimeWaits: n.timeWaits, FinWait2: n.finWait2, Oldest: n.oldest, Young: n.young,
		Reusable: n.reusable, Old: n.old, OldReusable: n.oldReusable,
		ReusableIn: n.reusableIn[:], RefusedIn: n.refusedIn[:], Expires: n.expires[:], Created: n.created[:], WaitingIn: n.waitingIn[:],
	}
}

// UnmarshalJSON decodes what MarshalJSON has encoded.
func (c *SuspectCounts) UnmarshalJSON(data []byte) error {
	var j suspectCountsJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return err
	}
	*c = SuspectCounts{of: &Suspects{Urgent: j.Urgent, since: j.Since, lostBefore: j.LostBefore}, readAt: j.ReadAt, readUntil: j.ReadUntil}
	for i := range j.Suspects {
		s := &j.Suspects[i]
		c.of.list = append(c.of.list, suspect{key: s.value(), atRequest: mark{s.At, s.Moves, s.Open, s.TimeWaits}, refusedAt: s.RefusedAt})
		n, err := s.Count.value()
		if err != nil {
			return err
		}
		c.counts = append(c.counts, n)
	}
	return nil
}

func (j *countJSON) value() (suspectCount, error) {
	n := suspectCount{
		open: j.Open, lastAck: j.LastAck, timeWaits: j.TimeWaits, finWait2: j.FinWait2, oldest: j.Oldest, young: j.Young,
		reusable: j.Reusable, old: j.Old, oldReusable: j.OldReusable,
	}
	if len(j.Ends) > 0 {
		n.ends = &waitingEnds{}
	}
	for _, seconds := range []struct{ to, from []int32 }{
		{n.ends.seconds(), j.Ends},
		{n.reusableIn[:], j.ReusableIn}, {n.refusedIn[:], j.RefusedIn}, {n.expires[:], j.Expires},
		{n.created[:], j.Created}, {n.waitingIn[:], j.WaitingIn},
	} {
		if copy(seconds.to, seconds.from) < len(seconds.from) {
			return n, errors.New("a count has more seconds than the engine keeps")
		}
	}
	return n, nil
}
