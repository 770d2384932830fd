// Package replay writes the inputs of detection, each with its time, as lines of NDJSON, and passes recorded ones to
// an engine again, which then raises the same alerts. It must not decide anything, read clocks, or open files.
//
// A recording is for [Player]: its keys are not those of records (docs/output.md). Its first line has the version of
// the format. Each other line is one input: a call of a method of [detect.Engine], or what else alerts depend on.
// Times are CLOCK_BOOTTIME in nanoseconds, states and roles the numbers of package tcp.
package replay

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Version is the format that this package writes, and the newest that it reads.
const Version = 1

// Sink takes whole lines and writes them in the background; [*output.Queue] is one.
type Sink interface {
	// BatchSize is the number of bytes that one Put should have under load.
	BatchSize() int
	// Put takes the lines and their buffer, and returns an empty buffer in exchange. After an error it takes no more.
	Put(lines []byte) (empty []byte, err error)
	// Room is the number of bytes that may still be put.
	Room() int
}

// Recorder is an engine that also writes its inputs. While the sink has no room, the recorder leaves lines out, and later
// writes how many: alerts of a replay may differ from there on. Its methods are for one goroutine.
type Recorder struct {
	*detect.Engine
	sink   Sink
	notify func(message string)
	lines  []byte
	left   uint64 // lines that are left out and not yet reported
	failed bool   // the sink takes no more lines

	gone    func(detect.Process) bool
	asked   map[detect.Process]bool // in this tick, so that each process has one answer
	cgroups map[*tcp.Cgroup]int     // number in the recording
	named   map[uint64]*tcp.Cgroup  // what Named has written last, by the cgroup's id
	offset  time.Duration           // what Wall has written last
}

// maxCgroups bounds the cgroups that have a number at a time. When all numbers are in use, they begin again at 1.
const maxCgroups = 16384

// New makes an engine as [detect.New] does, and writes h as the first line. It sets Input, Version, Began and Thresholds
// of h. notify gets messages for the operator, and must not wait.
func New(c detect.Config, now time.Duration, h Header, sink Sink, notify func(message string)) *Recorder {
	r := &Recorder{
		sink: sink, notify: notify, gone: c.Gone, asked: make(map[detect.Process]bool),
		cgroups: make(map[*tcp.Cgroup]int), named: make(map[uint64]*tcp.Cgroup),
	}
	if c.Gone != nil {
		c.Gone = r.isGone
	}
	h.Input, h.Version, h.Began, h.Thresholds = inputRecording, Version, now, thresholdsOf(c)
	r.Engine = detect.New(c, now)
	r.write(&h)
	r.flush()
	return r
}

// write writes an input with encoding/json. Transitions are frequent: transition writes them without.
func (r *Recorder) write(input any) {
	line, err := json.Marshal(input)
	if err != nil { // all types can be encoded, except for a number that is not finite
		r.fail(err)
		return
	}
	at := len(r.lines)
	r.lines = append(append(r.lines, line...), '\n')
	r.end(at)
}

// end is called when a line is complete that begins at r.lines[at]. It removes the line if the sink has no room for it.
func (r *Recorder) end(at int) {
	if r.failed || len(r.lines) > r.sink.Room() {
		if r.left == 0 && !r.failed {
			r.notify("the recording leaves out lines, because its disk does not take them: alerts of a replay may differ from here on")
		}
		r.lines = r.lines[:at]
		r.left++
		return
	}
	if r.left > 0 {
		line, _ := json.Marshal(&gapInput{Input: inputGap, Lines: r.left})
		whole := append(append(line, '\n'), r.lines[at:]...)
		r.lines, r.left = append(r.lines[:at], whole...), 0
	}
	if len(r.lines) >= r.sink.BatchSize() {
		r.flush()
	}
}

// flush puts the lines into the sink.
func (r *Recorder) flush() {
	if len(r.lines) == 0 || r.failed {
		return
	}
	lines, err := r.sink.Put(r.lines)
	r.lines = lines
	if err != nil {
		r.fail(err)
	}
}

// fail ends the recording, and notifies the operator once. The engine goes on.
func (r *Recorder) fail(err error) {
	if !r.failed {
		r.notify(fmt.Sprintf("the recording ends here: %v", err))
	}
	r.failed, r.lines = true, r.lines[:0]
}

// isGone reports whether a process is gone, and writes it if so. It asks the host at most once a tick for each process,
// so that all answers of one tick agree.
func (r *Recorder) isGone(p detect.Process) bool {
	gone, asked := r.asked[p]
	if !asked {
		gone = r.gone(p)
		r.asked[p] = gone
		if gone {
			r.write(&goneInput{Input: inputGone, PID: p.PID, At: p.At})
		}
	}
	return gone
}

// number returns the number of a cgroup in the recording. It writes the line that gives this number, if the cgroup has
// none yet. 0: the cgroup is nil.
func (r *Recorder) number(c *tcp.Cgroup) int {
	if c == nil {
		return 0
	}
	if n := r.cgroups[c]; n != 0 {
		return n
	}
	if len(r.cgroups) == maxCgroups {
		clear(r.cgroups)
	}
	n := len(r.cgroups) + 1
	r.cgroups[c] = n
	r.write(&cgroupInput{Input: inputCgroup, Number: n, Cgroup: *c})
	return n
}

// transition writes a transition.
func (r *Recorder) transition(input string, t *tcp.Transition) {
	n := r.number(t.Cgroup)
	at := len(r.lines)
	r.lines = append(r.lines, `{"input":"`...)
	r.lines = append(r.lines, input...)
	r.lines = append(r.lines, '"')
	r.lines = appendTransition(r.lines, t, n)
	r.lines = append(r.lines, "}\n"...)
	r.end(at)
}

// Observe writes the transition and passes it to the engine, unless the engine ignores it. This method and the next ones
// have the contracts of the methods of [detect.Engine] with the same names.
func (r *Recorder) Observe(t *tcp.Transition) {
	if !t.IsTimeWaitEnd() && !t.IsSelfTransition() { // the engine ignores these
		r.transition(inputTransition, t)
	}
	r.Engine.Observe(t)
}

// ResetDecided writes the input and passes it to the engine.
func (r *Recorder) ResetDecided(t *tcp.Transition) {
	r.transition(inputReset, t)
	r.Engine.ResetDecided(t)
}

// AddLost writes the input and passes it to the engine.
func (r *Recorder) AddLost(now time.Duration, count uint64) {
	r.write(&countInput{Input: inputLost, Now: now, Count: count})
	r.Engine.AddLost(now, count)
}

// AddLeftOut writes the input and passes it to the engine.
func (r *Recorder) AddLeftOut(sockets uint64) {
	if sockets > 0 {
		r.write(&countInput{Input: inputLeftOut, Count: sockets})
	}
	r.Engine.AddLeftOut(sockets)
}

// SetThresholds writes the input and passes it to the engine.
func (r *Recorder) SetThresholds(c detect.Config) {
	r.write(&thresholdsInput{Input: inputThresholds, Thresholds: thresholdsOf(c)})
	r.Engine.SetThresholds(c)
}

// Seed writes the input and passes it to the engine.
func (r *Recorder) Seed(now time.Duration, netns uint32, s *tcp.Socket) {
	r.write(&seedInput{Input: inputSeed, Now: now, Netns: netns, Socket: r.socket(s)})
	r.Engine.Seed(now, netns, s)
}

// SeedingDone writes the input and passes it to the engine.
func (r *Recorder) SeedingDone(now time.Duration) {
	r.write(&timeInput{Input: inputSeedingDone, Now: now})
	r.Engine.SeedingDone(now)
}

// Update writes the input and passes it to the engine.
func (r *Recorder) Update(now time.Duration, netns uint32, l *tcp.Limits) {
	r.write(&limitsInput{Input: inputLimits, Now: now, Netns: netns, Limits: limitsOf(l)})
	r.Engine.Update(now, netns, l)
}

// UpdateHalfClosed writes the input and passes it to the engine.
func (r *Recorder) UpdateHalfClosed(now, readAt time.Duration, netns uint32, sockets []tcp.Socket) {
	input := socketsInput{Input: inputHalfClosed, Now: now, ReadAt: readAt, Netns: netns}
	for i := range sockets {
		input.Sockets = append(input.Sockets, r.socket(&sockets[i]))
	}
	r.write(&input)
	r.Engine.UpdateHalfClosed(now, readAt, netns, sockets)
}

// UpdateCloseWait writes the input and passes it to the engine.
func (r *Recorder) UpdateCloseWait(now, readAt time.Duration, netns uint32, sockets []tcp.CloseWaitSocket) {
	r.write(&closeWaitInput{Input: inputCloseWait, Now: now, ReadAt: readAt, Netns: netns, Sockets: sockets})
	r.Engine.UpdateCloseWait(now, readAt, netns, sockets)
}

// UpdateOpen writes the input and passes it to the engine.
func (r *Recorder) UpdateOpen(now, since time.Duration, netns uint32, o *detect.OpenSockets) {
	r.write(&openInput{Input: inputOpen, Now: now, Since: since, Netns: netns, Open: o})
	r.Engine.UpdateOpen(now, since, netns, o)
}

// UpdateSuspects writes the input and passes it to the engine.
func (r *Recorder) UpdateSuspects(now time.Duration, c *detect.SuspectCounts) {
	r.write(&suspectsInput{Input: inputSuspects, Now: now, Counts: c})
	r.Engine.UpdateSuspects(now, c)
}

// UpdateListeners writes the input and passes it to the engine.
func (r *Recorder) UpdateListeners(now time.Duration, netns uint32, t *detect.ListenTable) {
	r.write(&listenersInput{Input: inputListeners, Now: now, Netns: netns, Table: t})
	r.Engine.UpdateListeners(now, netns, t)
}

// Usage writes the time and calls the engine. It is an input because it brings the engine's numbers up to date.
func (r *Recorder) Usage(now time.Duration) []detect.Usage {
	r.write(&timeInput{Input: inputUsage, Now: now})
	return r.Engine.Usage(now)
}

// Destinations writes the input and passes it to the engine: it brings the engine's numbers up to date, as Usage does.
func (r *Recorder) Destinations(now time.Duration, limit int) []detect.DestinationUsage {
	r.write(&timeInput{Input: inputUsage, Now: now})
	return r.Engine.Destinations(now, limit)
}

// Requests writes the input and passes it to the engine.
func (r *Recorder) Requests(now time.Duration) []detect.Request {
	r.write(&timeInput{Input: inputRequests, Now: now})
	return r.Engine.Requests(now)
}

// Tick calls the engine, then writes the time. So the lines of what the engine asks for in this tick come before it.
func (r *Recorder) Tick(now time.Duration) []detect.Alert {
	clear(r.asked)
	alerts := r.Engine.Tick(now)
	r.write(&timeInput{Input: inputTick, Now: now})
	r.flush()
	return alerts
}

// Finish calls the engine, then writes the time, as Tick.
func (r *Recorder) Finish(now time.Duration) []detect.Alert {
	clear(r.asked)
	alerts := r.Engine.Finish(now)
	r.write(&timeInput{Input: inputFinish, Now: now})
	r.flush()
	return alerts
}

// Wall writes by how much the wall clock is ahead of CLOCK_BOOTTIME for the alerts that Tick or Finish has just returned.
func (r *Recorder) Wall(offset time.Duration) {
	if offset != r.offset {
		r.offset = offset
		r.write(&wallInput{Input: inputWall, Offset: offset})
		r.flush()
	}
}

// Named writes what is known of a cgroup, by its id, for the names in the alerts that Tick or Finish has just returned.
// nil: nothing is known.
func (r *Recorder) Named(id uint64, c *tcp.Cgroup) {
	if r.named[id] == c {
		return
	}
	if len(r.named) == maxCgroups {
		clear(r.named)
	}
	r.named[id] = c
	r.write(&namedInput{Input: inputNamed, ID: id, Number: r.number(c)})
	r.flush()
}
