package record

import (
	"strings"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// This file has what ECS and OpenTelemetry say of a process besides its pid and its name. Their consumers
// expect it on every record that has an owner. In the native schema it stands in process records only.

// Bounds of the texts of a process in these schemas, in bytes of the line.
const (
	maxMappedExe  = 512
	maxMappedArgs = 1024
)

// ecsProcess appends nothing if p is nil. It reports whether a text was cut.
func (o object) ecsProcess(p *tcp.Process) (_ object, cut bool) {
	if p == nil {
		return o, false
	}
	exe, exeCut := cutBegin(p.Exe, maxMappedExe)
	args, argsCut := cutEnd(strings.Join(p.Args, " "), maxMappedArgs)
	o = o.startOf(p, "process.start").
		stringIfSet("process.executable", exe).
		stringIfSet("process.command_line", args).
		uintIfSet("process.parent.pid", uint64(p.Parent))
	return o, exeCut || argsCut || p.ArgsCut
}

// otelProcess appends nothing if p is nil. It reports whether a text was cut.
func (o object) otelProcess(p *tcp.Process) (_ object, cut bool) {
	if p == nil {
		return o, false
	}
	exe, exeCut := cutBegin(p.Exe, maxMappedExe)
	o = o.startOf(p, "process.creation.time").
		stringIfSet("process.executable.path", exe)
	o, argsCut := o.strings("process.command_args", p.Args, maxMappedArgs)
	return o.uintIfSet("process.parent_pid", uint64(p.Parent)), exeCut || argsCut || p.ArgsCut
}

func (o object) startOf(p *tcp.Process, key string) object {
	if p.Started.IsZero() {
		return o
	}
	return o.time(key, new(timeCache), p.Started)
}

// strings appends a list of strings, which take at most maxBytes of the line with the quotes and commas that
// separate them. It appends nothing if the list is empty, and reports whether it has cut the list.
func (o object) strings(key string, list []string, maxBytes int) (_ object, cut bool) {
	if len(list) == 0 {
		return o, false
	}
	o.line = append(o.key(key), '[')
	for i, s := range list {
		if i > 0 {
			maxBytes -= len(`","`)
			if maxBytes < 0 {
				cut = true
				break
			}
			o.line = append(o.line, ',')
		}
		s, cut = cutEnd(s, maxBytes)
		o.line = appendString(o.line, s)
		if cut {
			break
		}
		maxBytes -= encodedLen(s)
	}
	o.line = append(o.line, ']')
	return o, cut
}

// ecsUser appends the user of the process behind user.id, which is that of the socket.
func (o object) ecsUser(socket uint32, p *tcp.Process) object {
	switch {
	case p == nil || !p.UIDKnown:
		return o
	case p.UID == socket:
		return o.stringIfSet("user.name", p.User)
	}
	return o.idString("process.user.id", p.UID).
		stringIfSet("process.user.name", p.User)
}

// otelUser does what ecsUser does.
func (o object) otelUser(socket uint32, p *tcp.Process) object {
	if p == nil || !p.UIDKnown {
		return o
	}
	if p.UID != socket {
		o = o.uint("process.user.id", uint64(p.UID))
	}
	return o.stringIfSet("process.owner", p.User)
}

// processUser appends the user of the process in a record that is of no socket.
func (o object) processUser(p *tcp.Process, nameKey string) object {
	if p == nil {
		return o
	}
	if p.UIDKnown {
		o = o.userID(p.UID)
	}
	return o.stringIfSet(nameKey, p.User)
}

// truncatedIf appends tcpshift.truncated, unless [object.path] has appended it for the path of c.
func (o object) truncatedIf(cut bool, c *tcp.Cgroup) object {
	return o.trueIf("tcpshift.truncated", cut && (c == nil || encodedLen(c.Path) <= maxMappedPath))
}
