package record

import (
	"strconv"
	"strings"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Process describes the owner of sockets, once for all records that name it.
type Process struct {
	Time time.Time // when the record was made, which is after /proc was read
	tcp.Process
}

// processBounds bound members of a process record, in bytes of the line; 0: left out.
type processBounds struct {
	exe, args, path int
	names           bool // those of a workload
}

// processAttempts are tried in this order until the line is short enough. Escapes may make names six times as
// long.
var processAttempts = [...]processBounds{
	{512, 1024, maxAlertPath, true}, {512, 1024, 0, true}, {256, 256, 0, true}, {256, 256, 0, false},
}

// Process implements [Encoder]. Of a long path it keeps the end, of arguments the beginning.
func (n *Native) Process(dst []byte, r *Process) (line []byte) {
	const maxSeq = len(`,"seq":18446744073709551615`) // may be added later
	for _, bounds := range processAttempts {
		if line = n.process(dst, r, bounds); len(line)-len(dst)+maxSeq <= MaxLine {
			break
		}
	}
	return line
}

func (n *Native) process(dst []byte, r *Process, bounds processBounds) []byte {
	exe, exeCut := cutBegin(r.Exe, bounds.exe)
	args, argsCut := cutEnd(strings.Join(r.Args, " "), bounds.args)
	o := n.begin(dst, "process", r.Time).
		uint("pid", uint64(r.PID))
	if !r.Started.IsZero() {
		o = o.time("started", &n.opened, r.Started)
	}
	o = o.bytes("comm", r.Comm.Bytes()).
		stringIfSet("exe", exe).
		stringIfSet("args", args).
		trueIf("truncated", exeCut || argsCut || r.ArgsCut).
		uintIfSet("parent", uint64(r.Parent))
	if r.UIDKnown {
		o = o.uint("uid", uint64(r.UID))
	}
	o = o.stringIfSet("user", r.User).
		cgroup(r.Cgroup, bounds.path)
	if r.Cgroup != nil && bounds.names {
		o = o.workload(r.Cgroup).
			stringIfSet("image", r.Cgroup.Image)
	}
	return n.end(o)
}

// Process implements [Encoder].
func (e *ECS) Process(dst []byte, r *Process) []byte {
	o := e.begin(dst, r.Time, ecsProcess).
		uint("process.pid", uint64(r.PID)).
		bytes("process.name", r.Comm.Bytes())
	o, cut := o.ecsProcess(&r.Process)
	return e.end(o.processUser(&r.Process, "user.name").
		ecsCgroup(r.Cgroup).
		truncatedIf(cut, r.Cgroup))
}

// Process implements [Encoder].
func (e *OTel) Process(dst []byte, r *Process) []byte {
	o := e.begin(dst, r.Time, otelProcess).
		uint("process.pid", uint64(r.PID)).
		bytes("process.title", r.Comm.Bytes())
	o, cut := o.otelProcess(&r.Process)
	return e.end(o.processUser(&r.Process, "process.owner").
		otelCgroup(r.Cgroup).
		truncatedIf(cut, r.Cgroup), len(dst))
}

// Process implements [Encoder].
func (t Text) Process(dst []byte, r *Process) []byte {
	begin := len(dst)
	dst = append(appendClock(append(dst, "# "...), r.Time), " process "...)
	dst = append(strconv.AppendUint(dst, uint64(r.PID), 10), ' ')
	dst = append(appendPrintable(dst, r.Comm.Bytes()), ':')
	for _, part := range [...]struct{ before, known string }{
		{" ", r.Exe}, {", args ", strings.Join(r.Args, " ")}, {", user ", r.User},
	} {
		if part.known != "" {
			dst = appendPrintable(append(dst, part.before...), []byte(part.known))
		}
	}
	if r.Parent != 0 {
		dst = strconv.AppendUint(append(dst, ", parent "...), uint64(r.Parent), 10)
	}
	return t.finishRemark(append(dst, '\n'), begin, sgrDim)
}
