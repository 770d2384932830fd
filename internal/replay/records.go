package replay

import (
	"cmp"
	"errors"
	"hash/fnv"
	"io"
	"math"
	"net/netip"
	"strconv"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/recording"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

const (
	// tickInterval is the least time between two ticks, in the time of the records. Where there is no record, the engine
	// ticks every idleInterval, and no more after idleAfter without a record, until the next one.
	tickInterval, idleInterval, idleAfter = 100 * time.Millisecond, time.Second, 3 * time.Minute
	// maxPaths bounds the cgroups and the names of errors that are kept.
	maxPaths = 4096
	// maxDisorder is how much older a record may be than those before it. If it is older than that, the wall clock was set
	// back, or files are not in order.
	maxDisorder = 10 * time.Second
	// maxNow bounds the time of the engine, which goes on at each time that is set back: the year after is room for sums.
	maxNow = time.Duration(math.MaxInt64) - 365*24*time.Hour
)

// Records passes the transitions and losses of a stream of records to an engine. A record has less than detection uses:
// the kernel cannot be asked, limits are the kernel's defaults, and which side has sent a reset is not known. So all
// alerts are unverified.
type Records struct {
	// First is the first record.
	First recording.Record
	// Pace is as Pace of [Player].
	Pace func(at time.Duration) error
	// Watch gets the transitions, connections and alerts of the records; nil: it is not called.
	Watch Watcher
	// Event, if it is not nil, is called with each transition (c is nil), and with each connection and its last transition. It
	// must not keep them. Its error ends the run.
	Event func(t *tcp.Transition, c *tcp.Connection) error
	// Filter is as Filter of [Player]. It also decides what Watch and Event get. Watch gets all alerts.
	Filter Filter

	gate
	in     *recording.Reader
	engine *detect.Engine
	emit   func(alerts []detect.Alert) error
	now    time.Duration // the engine's, which never goes back
	ticked time.Duration // the last tick
	behind time.Duration // now − the time of the records
	others
	lost uint64 // transitions, by the records
	// deferred is a transition to CLOSE that the engine has not seen yet: the connection record that follows may say that
	// there was no free port.
	deferred *tcp.Transition
	errors   map[string]tcp.Errno
	cgroups  map[recording.Owner]*numberedCgroup
	last     tcp.Transition // the newest: a connection record may belong to it
}

type numberedCgroup struct {
	tcp.Cgroup
	id uint64
}

// OpenRecords reads the first record. The time of the records becomes the time of the engine. It fails with a
// [*LineError] if more than one line before the first record is no record, and if there is no record: the first line of a
// piece of a file may be cut.
func OpenRecords(in *recording.Reader, c detect.Config) (*Records, error) {
	r := &Records{in: in, errors: make(map[string]tcp.Errno), cgroups: make(map[recording.Owner]*numberedCgroup)}
	err := in.Next(&r.First)
	if shown := in.Summary().Shown; len(shown) > 0 && (len(shown) > 1 || err != nil || !shown[0].MayBeCut()) {
		return nil, &LineError{int(shown[0].Line), errors.New(shown[0].Why)}
	}
	if errors.Is(err, io.EOF) {
		return nil, errors.New("has no record")
	}
	if err != nil {
		return nil, err
	}
	r.First.Arch = plain(r.First.Arch)
	r.now = time.Duration(r.First.Time)
	r.ticked = r.now
	r.engine = detect.New(c, r.now)
	r.engine.SeedingDone(r.now)
	return r, nil
}

// Run passes all records to the engine, and the alerts to emit, with their times. It skips lines that are no records. It
// returns the errors of the stream, of emit, of Event and of Pace.
func (r *Records) Run(emit func(alerts []detect.Alert) error) error {
	r.emit, r.filter = emit, r.Filter
	rec := r.First
	for {
		if err := r.take(&rec); err != nil {
			return err
		}
		switch err := r.in.Next(&rec); {
		case errors.Is(err, io.EOF):
			r.observeDeferred()
			if err := r.tick(r.now); err != nil {
				return err
			}
			return r.raise(r.engine.Finish(r.now))
		case err != nil:
			return err
		}
	}
}

// take passes one record to the engine, after the ticks that are due before it. A record of another host goes
// to Event only.
func (r *Records) take(rec *recording.Record) error {
	if r.isOfOtherHost(rec) {
		return r.takeOfOtherHost(rec)
	}
	if err := r.advance(r.engineTime(rec.Time)); err != nil {
		return err
	}
	switch rec.Type {
	case "transition":
		return r.takeTransition(rec)
	case "connection":
		return r.takeConnection(rec)
	case "alert":
		if r.Watch != nil {
			a := alertOf(rec)
			r.Watch.Alert(&a)
		}
	case "loss":
		r.lost += rec.Lost
		r.engine.AddLost(r.now, rec.Lost)
	}
	return nil
}

// takeTransition passes on a transition that Filter passes and whose states have names.
func (r *Records) takeTransition(rec *recording.Record) error {
	r.observeDeferred()
	t, known := r.transition(rec)
	if !known {
		return nil
	}
	if r.last = t; !r.passes(r.forFilter(&t, rec)) {
		return nil
	}
	if r.Watch != nil {
		r.Watch.Observe(&t)
	}
	if err := r.event(&t, nil); err != nil {
		return err
	}
	switch {
	case t.IsTimeWaitEnd(), t.IsSelfTransition(): // the engine ignores them
	case t.New == tcp.Close:
		r.deferred = &t
	default:
		r.engine.Observe(&t)
	}
	return nil
}

// takeConnection passes on a connection record that Filter passes, with the last transition of its socket. Event does not
// get one whose state has no name.
func (r *Records) takeConnection(rec *recording.Record) error {
	if r.deferred != nil && r.deferred.Cookie == cookieOf(rec) && rec.ClosedBy == string(tcp.ClosedByNoPort) {
		r.deferred.NoPort = true
	}
	r.observeDeferred()
	t, c := r.connectionOf(rec)
	if !r.connectionPasses(rec, &t, &c) {
		return nil
	}
	if r.Watch != nil && c.Phase != tcp.PhaseUpdate {
		r.Watch.Add(&t, &c)
	}
	return r.event(&t, &c)
}

// event passes a transition or a connection to Event, unless its state has no name.
func (r *Records) event(t *tcp.Transition, c *tcp.Connection) error {
	if r.Event == nil || t.New == 0 {
		return nil
	}
	return r.Event(t, c)
}

// observeDeferred passes the deferred transition to the engine, if there is one.
func (r *Records) observeDeferred() {
	if t := r.deferred; t != nil {
		r.deferred = nil
		r.engine.Observe(t)
	}
}

// engineTime returns the time of the engine for a time of the records, maxNow at most.
func (r *Records) engineTime(t recording.Time) time.Duration {
	return min(time.Duration(t), maxNow-r.behind) + r.behind
}

// advance makes the ticks that are due until a time, and sets the time.
func (r *Records) advance(at time.Duration) error {
	if at < r.now-maxDisorder {
		r.setBack++
		r.behind += r.now - at
		at = r.now
	}
	if at <= r.now {
		return nil // records are nearly in order
	}
	before := r.now
	for next := r.ticked + idleInterval; next < at && next < before+idleAfter; next += idleInterval {
		if err := r.tick(next); err != nil {
			return err
		}
	}
	r.now = at
	if at-r.ticked < tickInterval {
		return nil
	}
	return r.tick(at)
}

// tick makes one tick. It answers requests for limits and listeners with nil: they are not known.
func (r *Records) tick(at time.Duration) error {
	if r.Pace != nil {
		if err := r.Pace(at); err != nil {
			return err
		}
	}
	r.now, r.ticked = max(r.now, at), at
	for _, request := range r.engine.Requests(at) {
		if request.Listeners != nil {
			r.engine.UpdateListeners(at, request.Netns, nil)
		}
		if !request.OnlyListeners {
			r.engine.Update(at, request.Netns, nil)
		}
	}
	return r.raise(r.engine.Tick(at))
}

// raise emits alerts with their time on the wall clock, as unverified.
func (r *Records) raise(alerts []detect.Alert) error {
	if len(alerts) == 0 {
		return nil
	}
	for i := range alerts {
		alerts[i].Time, alerts[i].Unverified = r.Wall(alerts[i].Monotonic), true
	}
	return r.emit(alerts)
}

// connectionOf returns the connection of a record with its last transition: r.last if that is of the same socket, else
// what the record itself has. Its New is 0 for a state that has no name.
func (r *Records) connectionOf(rec *recording.Record) (t tcp.Transition, c tcp.Connection) {
	r.identify(&t, rec)
	if isSameSocket(&t, &r.last) {
		t = r.last
		r.identify(&t, rec)
	}
	t.New, _ = tcp.ParseState(cmp.Or(rec.State, rec.FinalState))
	t.ResetReason = plain(rec.ResetReason)
	c = tcp.Connection{
		Phase: tcp.Phase(plain(rec.Phase)), EstablishedFor: time.Duration(rec.Established), Sent: rec.Sent, Received: rec.Received,
		Retransmits: uint32(min(rec.Retransmits, 1<<32-1)), RTT: time.Duration(rec.RTT), Cwnd: rec.Cwnd, ClosedBy: tcp.ClosedBy(plain(rec.ClosedBy)),
	}
	if rec.Opened != 0 {
		c.Opened, c.OpenedAt = rec.Opened.Std(), r.engineTime(rec.Opened)
		if rec.Duration != nil {
			c.OpenedAt = t.Monotonic - time.Duration(*rec.Duration)
		}
	}
	return t, c
}

// isSameSocket reports whether a connection record belongs to a transition: both have the same time. Kernels may have no
// cookies.
func isSameSocket(a, b *tcp.Transition) bool {
	return a.Monotonic == b.Monotonic && a.Cookie == b.Cookie && a.Netns == b.Netns && a.Local == b.Local && a.Peer == b.Peer
}

func cookieOf(rec *recording.Record) uint64 {
	cookie, _ := strconv.ParseUint(rec.Conn, 16, 64) // 0: it is not known
	return cookie
}

// transition returns the transition of a record. known is false if a state has no name.
func (r *Records) transition(rec *recording.Record) (t tcp.Transition, known bool) {
	var oldKnown, newKnown bool
	t.Old, oldKnown = tcp.ParseState(rec.OldState)
	t.New, newKnown = tcp.ParseState(rec.NewState)
	if !oldKnown || !newKnown {
		return t, false
	}
	r.identify(&t, rec)
	t.TimeWaitUnknown, t.Expired, t.ResetReason = rec.TimeWaitUnknown == true, rec.TimeWaitEnd == "expired", plain(rec.ResetReason)
	if rec.InState != nil {
		t.InState = time.Duration(*rec.InState)
	}
	if t.New == tcp.TimeWait {
		t.Substate, _ = tcp.ParseState(rec.Substate)
		t.PeerFIN, t.PeerTimestamp = t.Substate == tcp.TimeWait, true // nearly all peers send timestamps
	}
	return t, true
}

// plain returns a word that encoders write as it is, or "" if it has other characters than printable ASCII without quotes
// and backslashes: tcpshift itself writes no such word, but a recording may be anybody's.
func plain(word string) string {
	for i := range len(word) {
		if c := word[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return ""
		}
	}
	return word
}

// identify sets what a record says of the socket and of its owner.
func (r *Records) identify(t *tcp.Transition, rec *recording.Record) {
	t.Time, t.Monotonic, t.Cookie, t.Netns = rec.Time.Std(), r.engineTime(rec.Time), cookieOf(rec), uint32(rec.Netns)
	t.Role, _ = tcp.ParseRole(rec.Role)
	t.Local, t.Peer = endpoint(rec.LocalAddr, rec.LocalPort), endpoint(rec.PeerAddr, rec.PeerPort)
	t.IPv6, t.Mapped, t.UID = rec.Family == "ipv6", rec.Mapped, 0
	if rec.Family == "" { // as with --fields
		t.IPv6 = t.Local.Addr.Is6() || t.Peer.Addr.Is6()
	}
	if rec.UID != nil {
		t.UID = *rec.UID
	}
	t.Error = r.errno(rec.Error)
	t.Owner, t.CgroupID, t.Cgroup = tcp.Owner{}, 0, nil
	if rec.PID != 0 {
		t.Owner = tcp.Owner{PID: rec.PID, Source: tcp.PIDStored}
		if source, known := tcp.ParsePIDSource(rec.PIDSource); known {
			t.Owner.Source = source
		}
		copy(t.Owner.Comm[:len(t.Owner.Comm)-1], rec.Comm)
	}
	if c := r.cgroup(&rec.Owner); c != nil {
		t.CgroupID, t.Cgroup = c.id, &c.Cgroup
	}
}

func endpoint(addr string, port uint16) tcp.Endpoint {
	a, err := netip.ParseAddr(addr)
	if err != nil || a.Zone() != "" { // a zone may be any text, and tcpshift writes none
		a = netip.Addr{} // not known
	}
	return tcp.Endpoint{Addr: a, Port: port}
}

// errno returns the number of an error name; 0: it is not known. It keeps maxPaths names.
func (r *Records) errno(name string) tcp.Errno {
	if name == "" {
		return 0
	}
	e, known := r.errors[name]
	if !known && len(r.errors) < maxPaths {
		e, _ = tcp.ParseErrno(name)
		r.errors[name] = e
	}
	return e
}

// cgroup returns the cgroup of an owner, with an id made from its path; nil: it is not known.
func (r *Records) cgroup(o *recording.Owner) *numberedCgroup {
	key := *o
	if key.PID, key.Comm, key.UID, key.PIDSource = 0, "", nil, ""; key == (recording.Owner{}) {
		return nil
	}
	c := r.cgroups[key]
	if c == nil {
		if len(r.cgroups) == maxPaths {
			clear(r.cgroups)
		}
		c = &numberedCgroup{id: idOf(key.Cgroup), Cgroup: tcp.Cgroup{
			Path: key.Cgroup, Unit: key.Unit, Container: plain(key.Container), Runtime: plain(key.ContainerRuntime), PodUID: plain(key.PodUID), ContainerName: key.ContainerName, Pod: key.Pod, Namespace: key.Namespace,
			UnitClaimed: key.UnitClaimed, ContainerClaimed: key.ContainerClaimed,
		}}
		r.cgroups[key] = c
	}
	return c
}

// idOf makes an id of a path: FNV-1a. Two paths seldom have the same id.
func idOf(path string) uint64 {
	h := fnv.New64a()
	_, _ = io.WriteString(h, path) // it cannot fail
	return h.Sum64()
}
