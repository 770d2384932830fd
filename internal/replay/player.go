package replay

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Player passes the inputs of a recording to an engine.
type Player struct {
	Header

	// Event, if it is not nil, is called with each transition, which has its time on the wall clock. It must not keep it. Its
	// error ends the run.
	Event func(t *tcp.Transition) error
	// Pace, if it is not nil, is called before each tick with the time of the tick. It may wait. Its error ends the run.
	Pace func(at time.Duration) error
	// Filter decides which transitions and sockets the engine and Event get; nil: all.
	Filter Filter

	gate
	in      *Reader
	over    detect.Config
	emit    func(alerts []detect.Alert) error
	engine  *detect.Engine
	now     time.Duration
	alerts  []detect.Alert // of the last tick, not emitted yet
	offset  time.Duration  // of the wall clock
	timed   bool           // offset is known
	gaps    uint64
	ended   bool
	gone    map[detect.Process]bool
	cgroups map[int]*tcp.Cgroup    // by number
	named   map[uint64]*tcp.Cgroup // by id
}

// FirstBytes is how many bytes of a file IsRecording needs.
const FirstBytes = len(`{"input":"` + inputRecording + `"`)

// IsRecording reports whether a file is a recording of inputs. line is its first line, or its first FirstBytes bytes.
func IsRecording(line []byte) bool { return inputOf(line) == inputRecording }

// Open reads the first line of a recording. The engine has the recorded thresholds; a threshold of over that is not zero
// takes the place of the recorded one. Open fails with a [*LineError], also for a version that this package does not know.
func Open(in *Reader, over detect.Config) (*Player, error) {
	p := &Player{in: in, over: over, gone: make(map[detect.Process]bool), cgroups: make(map[int]*tcp.Cgroup), named: make(map[uint64]*tcp.Cgroup)}
	line, err := in.Next()
	switch {
	case errors.Is(err, io.EOF):
		return nil, in.Errorf("the recording is empty")
	case err != nil:
		return nil, err
	}
	if err := json.Unmarshal(line, &p.Header); err != nil {
		return nil, in.Errorf("%w", explain(err))
	}
	switch {
	case p.Input != inputRecording:
		return nil, in.Errorf("does not begin a recording")
	case p.Version < 1 || p.Version > Version:
		return nil, in.Errorf("version %d of recordings is not known: use the tcpshift that has written it (%q), or a newer one", p.Version, p.Program)
	}
	p.Arch = plain(p.Arch)
	c := p.Thresholds.config(over)
	c.Gone = func(process detect.Process) bool { return p.gone[process] }
	p.engine = detect.New(c, p.at(p.Began))
	return p, nil
}

// Run passes all inputs to the engine, and the alerts to emit, with their time on the wall clock. If the recording ends
// before the trace did, Run closes the open alerts. It returns a [*LineError], or the error of emit, Event or Pace.
func (p *Player) Run(emit func(alerts []detect.Alert) error) error {
	p.emit, p.filter = emit, p.Filter
	for {
		line, err := p.in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return errors.Join(p.flush(), err)
		}
		if err := p.take(line); err != nil {
			return err
		}
	}
	if err := p.flush(); err != nil || p.ended {
		return err
	}
	p.alerts = p.engine.Finish(p.now)
	return p.flush()
}

// Counts returns how many transitions the recording has, so far, and how many of them Filter has left out.
func (p *Player) Counts() (seen, filtered uint64) { return p.seen, p.filtered }

// Gaps returns how many lines the recording lacks, because its disk had no room for them when it was written.
func (p *Player) Gaps() uint64 { return p.gaps }

// flush emits the alerts of the last tick. It is called when all lines that belong to these alerts are read.
func (p *Player) flush() error {
	alerts := p.alerts
	if p.alerts = nil; len(alerts) == 0 {
		return nil
	}
	for i := range alerts {
		a := &alerts[i]
		a.Time = time.Unix(0, int64(a.Monotonic+p.offset))
		a.Culprit.Rename(func(id uint64) *tcp.Cgroup { return p.named[id] })
	}
	return p.emit(alerts)
}

// inputOf returns the value of the key input, which a recorder writes first.
func inputOf(line []byte) string {
	if rest, found := bytes.CutPrefix(line, []byte(`{"input":"`)); found {
		if name, _, found := bytes.Cut(rest, []byte{'"'}); found {
			return string(name)
		}
	}
	var read struct {
		Input string `json:"input"`
	}
	_ = json.Unmarshal(line, &read) // the input is not known then
	return read.Input
}

// take passes the input in one line to the engine.
func (p *Player) take(line []byte) error {
	name := inputOf(line)
	read, known := inputs[name]
	switch {
	case !known && name == "":
		return p.in.Errorf("is not an input of detection: it has no key \"input\"")
	case !known:
		return p.in.Errorf("input: %q is not known: use a newer tcpshift", name)
	case p.ended && !read.concernsAlerts:
		return p.in.Errorf("input: %q comes after the end", name)
	}
	if !read.concernsAlerts {
		if err := p.flush(); err != nil {
			return err
		}
	}
	err := read.take(p, line)
	var failed paceError
	switch {
	case errors.As(err, &failed):
		return failed.error
	case err != nil:
		return p.in.Errorf("%w", explain(err))
	}
	return nil
}

// paceError is an error of Pace or Event: Run returns it without the number of a line.
type paceError struct{ error }

// explain returns an error that names the key, if encoding/json could not decode the value of one.
func explain(err error) error {
	var wrong *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &wrong) && wrong.Field != "":
		return fmt.Errorf("%s: %s does not fit", wrong.Field, wrong.Value)
	case errors.As(err, &syntax):
		return fmt.Errorf("is not JSON: %w", err)
	}
	return err
}

// inputKind says what Player does with the inputs of one kind.
type inputKind struct {
	take           func(p *Player, line []byte) error
	concernsAlerts bool // it belongs to the alerts of the tick before
}

// on returns the kind of an input that is decoded into T and passed to take.
func on[T any](take func(p *Player, in *T) error) inputKind {
	return inputKind{take: func(p *Player, line []byte) error {
		var in T
		if err := json.Unmarshal(line, &in); err != nil {
			return err
		}
		return take(p, &in)
	}}
}

// about is as on, for an input that belongs to the alerts of the tick before.
func about[T any](take func(p *Player, in *T) error) inputKind {
	kind := on(take)
	kind.concernsAlerts = true
	return kind
}

var inputs = map[string]inputKind{
	inputTransition: on((*Player).observe),
	inputReset:      on((*Player).resetDecided),
	inputLost:       on(func(p *Player, in *countInput) error { p.engine.AddLost(p.at(in.Now), in.Count); return nil }),
	inputLeftOut:    on(func(p *Player, in *countInput) error { p.engine.AddLeftOut(in.Count); return nil }),
	inputThresholds: on(func(p *Player, in *thresholdsInput) error {
		p.engine.SetThresholds(in.Thresholds.config(p.over))
		return nil
	}),
	inputSeed: on(func(p *Player, in *seedInput) error {
		s, err := in.Socket.value(p.cgroups)
		if now := p.at(in.Now); err == nil && p.passesSeed(in.Netns, &s) {
			p.engine.Seed(now, in.Netns, &s)
		}
		return err
	}),
	inputSeedingDone: on(func(p *Player, in *timeInput) error { p.engine.SeedingDone(p.at(in.Now)); return nil }),
	inputLimits: on(func(p *Player, in *limitsInput) error {
		if now := p.at(in.Now); p.passesNetns(in.Netns) {
			p.engine.Update(now, in.Netns, in.Limits.value())
		}
		return nil
	}),
	inputHalfClosed: on((*Player).halfClosed),
	inputCloseWait: on(func(p *Player, in *closeWaitInput) error {
		p.engine.UpdateCloseWait(p.at(in.Now), in.ReadAt, in.Netns, in.Sockets)
		return nil
	}),
	inputOpen: on(func(p *Player, in *openInput) error {
		if in.Open == nil {
			return errors.New("open: is missing")
		}
		p.engine.UpdateOpen(p.at(in.Now), in.Since, in.Netns, in.Open)
		return nil
	}),
	inputSuspects: on(func(p *Player, in *suspectsInput) error {
		if in.Counts == nil {
			return errors.New("counts: is missing")
		}
		p.engine.UpdateSuspects(p.at(in.Now), in.Counts)
		return nil
	}),
	inputListeners: on((*Player).listeners),
	inputUsage:     on(func(p *Player, in *timeInput) error { p.engine.Usage(p.at(in.Now)); return nil }),
	inputRequests:  on(func(p *Player, in *timeInput) error { p.engine.Requests(p.at(in.Now)); return nil }),
	inputTick:      on((*Player).tick),
	inputFinish: on(func(p *Player, in *timeInput) error {
		p.alerts, p.ended = p.engine.Finish(p.at(in.Now)), true
		return nil
	}),

	inputGone: on(func(p *Player, in *goneInput) error {
		if len(p.gone) == maxGone {
			clear(p.gone)
		}
		p.gone[detect.Process{PID: in.PID, At: in.At}] = true
		return nil
	}),
	inputGap:    about(func(p *Player, in *gapInput) error { p.gaps += in.Lines; return nil }),
	inputWall:   about(func(p *Player, in *wallInput) error { p.offset, p.timed = in.Offset, true; return nil }),
	inputCgroup: about((*Player).cgroup),
	inputNamed: about(func(p *Player, in *namedInput) error {
		if len(p.named) == maxCgroups {
			clear(p.named)
		}
		p.named[in.ID] = p.cgroups[in.Number]
		return nil
	}),
}

// maxGone bounds the processes that are remembered as gone.
const maxGone = 1 << 20

// maxTime bounds the times of inputs, to 146 years: sums of two of them do not overflow.
const maxTime = time.Duration(1 << 62)

// at returns the time of an input, brought into the range from 0 to maxTime, and notes the latest one.
func (p *Player) at(now time.Duration) time.Duration {
	now = min(max(0, now), maxTime)
	p.now = max(p.now, now)
	return now
}

// transition returns the transition of an input, at its time.
func (p *Player) transition(in *transitionJSON) (tcp.Transition, error) {
	t, err := in.value(p.cgroups)
	t.Monotonic = p.at(t.Monotonic)
	return t, err
}

func (p *Player) resetDecided(in *transitionJSON) error {
	t, err := p.transition(in)
	if err == nil && p.matches(&t) {
		p.engine.ResetDecided(&t)
	}
	return err
}

// errNoTime is the error of a transition without a wall-clock time in the recording.
var errNoTime = errors.New("has no time: an older tcpshift has written this recording, with the times of alerts only: leave out transition")

// observe passes a transition to the engine and to Event.
func (p *Player) observe(in *transitionJSON) error {
	t, err := p.transition(in)
	if err != nil || !p.passes(&t) {
		return err
	}
	p.engine.Observe(&t)
	switch {
	case p.Event == nil:
		return nil
	case !p.timed:
		return errNoTime
	}
	t.Time = time.Unix(0, int64(t.Monotonic+p.offset))
	if err := p.Event(&t); err != nil {
		return paceError{err}
	}
	return nil
}

func (p *Player) halfClosed(in *socketsInput) error {
	sockets := make([]tcp.Socket, 0, len(in.Sockets))
	for i := range in.Sockets {
		s, err := in.Sockets[i].value(p.cgroups)
		if err != nil {
			return err
		}
		if p.passesSocket(&s) {
			sockets = append(sockets, s)
		}
	}
	p.engine.UpdateHalfClosed(p.at(in.Now), in.ReadAt, in.Netns, sockets)
	return nil
}

func (p *Player) listeners(in *listenersInput) error {
	if t := in.Table; t != nil {
		for i := range t.Listeners {
			if t.Listeners[i].Local.Addr.Zone() != "" {
				return errZone
			}
		}
		for i := range t.Unaccepted {
			if t.Unaccepted[i].Local.Addr.Zone() != "" {
				return errZone
			}
		}
	}
	if now := p.at(in.Now); p.passesNetns(in.Netns) {
		p.keepListeners(in.Table)
		p.engine.UpdateListeners(now, in.Netns, in.Table)
	}
	return nil
}

func (p *Player) tick(in *timeInput) error {
	if p.Pace != nil {
		if err := p.Pace(in.Now); err != nil {
			return paceError{err}
		}
	}
	p.alerts = p.engine.Tick(p.at(in.Now))
	return nil
}

func (p *Player) cgroup(in *cgroupInput) error {
	if in.Number < 1 || in.Number > maxCgroups {
		return fmt.Errorf("number: %d is not one from 1 to %d", in.Number, maxCgroups)
	}
	c := in.Cgroup
	c.Container, c.Runtime, c.PodUID = plain(c.Container), plain(c.Runtime), plain(c.PodUID)
	p.cgroups[in.Number] = &c
	return nil
}
