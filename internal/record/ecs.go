package record

import (
	"bytes"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// ECSVersion is the version of the Elastic Common Schema that [ECS] follows.
const ECSVersion = "8.17.0"

// ECS encodes each record as one line of JSON in the Elastic Common Schema. Keys are written
// with their dots, which Elasticsearch reads as it reads nested objects; the labels are one
// object. What the schema has no field for has the native key after "tcpshift.". A value that
// is not known is left out. An ECS must be used by one goroutine at a time.
//
// The source is the client and the destination is the server, whichever of them is this host.
// A listener is a destination. Where the role is not known, the local end is the source.
type ECS struct{ mappedEncoder }

// NewECS returns an encoder that appends the labels, in their order, to every record.
func NewECS(labels []Label) *ECS { return &ECS{newMapped(labels)} }

// The members that all records of one type have: the categories, and event.action, which
// names what happened. event.type follows from the record in a transition and a connection.
const (
	ecsTransition  = ecsAbout + `"event","event.dataset":"tcpshift.transition","event.category":["network"],"event.action":"state_changed"`
	ecsConnection  = ecsAbout + `"event","event.dataset":"tcpshift.connection","event.category":["network"],"event.action":"connection_ended"`
	ecsUpdate      = ecsAbout + `"event","event.dataset":"tcpshift.connection","event.category":["network"],"event.type":["connection","info"],"event.action":"connection_updated"`
	ecsSocket      = ecsAbout + `"state","event.dataset":"tcpshift.socket","event.category":["network"],"event.type":["info"],"event.action":"socket_listed"`
	ecsAlert       = ecsAbout + `"alert","event.dataset":"tcpshift.alert","event.category":["network"],"event.type":["info"]`
	ecsSummary     = ecsAbout + `"metric","event.dataset":"tcpshift.summary","event.category":["network"],"event.type":["info"],"event.action":"connections_summed"`
	ecsSocketCount = ecsAbout + `"metric","event.dataset":"tcpshift.socket_count","event.category":["network"],"event.type":["info"],"event.action":"sockets_counted"`
	ecsStats       = ecsAbout + `"metric","event.dataset":"tcpshift.stats","event.category":["network"],"event.type":["info"],"event.action":"events_counted"`
	ecsLoss        = ecsAbout + `"pipeline_error","event.dataset":"tcpshift.loss","event.category":["network"],"event.type":["info"],"event.action":"events_lost"`
	ecsStart       = ecsAbout + `"event","event.dataset":"tcpshift.start","event.category":["process"],"event.type":["start"],"event.action":"tracer_started"`
	ecsStop        = ecsAbout + `"event","event.dataset":"tcpshift.stop","event.category":["process"],"event.type":["end"],"event.action":"tracer_stopped"`
	ecsProcess     = ecsAbout + `"event","event.dataset":"tcpshift.process","event.category":["process"],"event.type":["info"],"event.action":"process_named"`

	ecsAbout = `,"ecs.version":"` + ECSVersion + `","event.kind":`
)

// begin appends the members that every record begins with.
func (e *ECS) begin(dst []byte, at time.Time, about string) object {
	dst = append(dst, `{"@timestamp":"`...)
	dst = e.times.append(dst, at)
	dst = append(dst, '"')
	if e.seq != 0 {
		dst = appendECSSequence(dst, e.seq)
	}
	return object{append(dst, about...)}
}

// AddOrigin implements [OriginEncoder].
func (e *ECS) AddOrigin(host, bootID string) {
	e.origin = originMembers("host.name", host, "host.boot.id", bootID)
}

// end appends the origin and the labels, as one object, and returns the whole line.
func (e *ECS) end(o object) []byte {
	o.line = append(o.line, e.origin...)
	return e.endStart(o)
}

// endStart is end for a record that has the members of the origin.
func (e *ECS) endStart(o object) []byte {
	if len(e.labels) > 0 {
		o.line = append(o.line, `,"labels":{`...)
		o.line = append(o.line, e.labels[1:]...) // without the first comma
		o.line = append(o.line, '}')
	}
	return append(o.line, "}\n"...)
}

// WithSeq implements [Encoder]. The member event.sequence follows @timestamp, whose Z is the
// first one of a line.
func (e *ECS) WithSeq(dst, line []byte, seq uint64) []byte {
	after := bytes.IndexByte(line, 'Z') + len(`Z"`)
	dst = append(dst, line[:after]...)
	dst = appendECSSequence(dst, seq)
	return append(dst, line[after:]...)
}

func appendECSSequence(dst []byte, seq uint64) []byte {
	return appendUint(append(dst, `,"event.sequence":`...), seq)
}

// Start implements [Encoder].
func (e *ECS) Start(dst []byte, r *Start) []byte {
	o := e.begin(dst, r.Time, ecsStart).
		literal("agent.type", "tcpshift").
		string("agent.version", r.Version).
		literal("tcpshift.schema", SchemaVersion).
		stringIfSet("host.name", r.Host).
		stringIfSet("host.boot.id", r.BootID).
		literal("host.os.type", "linux").
		stringIfSet("host.os.kernel", r.Kernel).
		literal("host.architecture", r.Arch).
		uint("process.pid", uint64(r.PID)).
		ownFeatures(r.Features)
	return e.endStart(o)
}

// Alert implements [Encoder].
func (e *ECS) Alert(dst []byte, a *detect.Alert) []byte {
	o := e.begin(dst, a.Time, ecsAlert).
		literal("event.action", ecsActions[a.Phase]).
		literal("rule.name", a.Kind).
		literal("log.level", string(a.Severity)).
		uint("event.severity", ecsSeverities[a.Severity])
	if c := &a.Culprit; c.Known {
		o = o.string("service.name", c.Service)
		if c.PID != 0 {
			o = o.uint("process.pid", uint64(c.PID))
		}
		o = o.bytes("process.name", c.Comm.Bytes())
		var cut bool
		o, cut = o.ecsProcess(c.Process)
		o = o.processUser(c.Process, "user.name").
			ecsCgroup(c.Cgroup).
			truncatedIf(cut, c.Cgroup)
	}
	o = o.ecsEndpoints(a.Role, a.Local, a.Peer).
		uint("event.duration", uint64(a.Lasted)).
		ownCulprit(&a.Culprit).
		ownFinding(a).
		string("event.reason", clip(a.Cause, maxAlertCause))
	return e.end(o)
}

var (
	ecsActions = map[detect.Phase]string{
		detect.Open: "alert_opened", detect.Update: "alert_updated", detect.Close: "alert_closed",
	}
	// ecsSeverities are the numbers that Elastic's detection rules give to the severities
	// medium and critical.
	ecsSeverities = map[detect.Severity]uint64{detect.Warning: 47, detect.Critical: 99}
)

// Stats implements [Encoder].
func (e *ECS) Stats(dst []byte, r *Stats) []byte {
	return e.end(e.begin(dst, r.Time, ecsStats).counts(ownPrefix, &r.Counts))
}

// Loss implements [Encoder].
func (e *ECS) Loss(dst []byte, r *Loss) []byte {
	o := e.begin(dst, r.Time, ecsLoss).
		literal("event.reason", string(r.Cause)).
		ownLoss(r)
	return e.end(o)
}

// Stop implements [Encoder].
func (e *ECS) Stop(dst []byte, r *Stop) []byte {
	o := e.begin(dst, r.Time, ecsStop).
		literal("event.reason", r.Reason).
		literalIfSet("tcpshift.signal", r.Signal).
		counts(ownPrefix, &r.Counts)
	return e.end(o)
}

// ecsEndpoints leaves out the addresses and ports that are not known.
func (o object) ecsEndpoints(role tcp.Role, local, peer tcp.Endpoint) object {
	source, destination := local, peer
	if isDestination(role) {
		source, destination = peer, local
	}
	return o.addrIfSet("source.ip", source.Addr).
		uintIfSet("source.port", uint64(source.Port)).
		addrIfSet("destination.ip", destination.Addr).
		uintIfSet("destination.port", uint64(destination.Port))
}

// isDestination reports whether the local end of a socket with this role is the destination.
func isDestination(role tcp.Role) bool { return role == tcp.RoleServer || role == tcp.RoleListener }
