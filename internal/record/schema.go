package record

import (
	"slices"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Schema is the vocabulary of the NDJSON records: their keys, and how some values are spelled.
type Schema string

// The schemas. docs/schemas.md has a table of all keys.
const (
	SchemaNative Schema = "native" // docs/output.md
	SchemaECS    Schema = "ecs"    // Elastic Common Schema, see [ECSVersion]
	SchemaOTel   Schema = "otel"   // OpenTelemetry's log data model and semantic conventions
)

// Schemas returns all schemas, the default first.
func Schemas() []Schema { return []Schema{SchemaNative, SchemaECS, SchemaOTel} }

// MaxLine bounds a line of this schema, in bytes, its newline included.
func (s Schema) MaxLine() int {
	if s == SchemaNative {
		return MaxLine
	}
	return 2 * MaxLine // the keys are longer, and all records have all names of the owner
}

// SocketEncoder is an Encoder that can encode a snapshot, too.
type SocketEncoder interface {
	Encoder
	// Header appends the header that the format has for a list of sockets, if it has one.
	Header(dst []byte) []byte
	// Socket appends a socket record, which is one socket of a snapshot.
	Socket(dst []byte, s *tcp.Socket) []byte
	// CountHeader appends the header of the format for counts by these keys, if it has one.
	CountHeader(dst []byte, by []tcp.SocketKey) []byte
	// SocketCount appends a socket_count record of a group by these keys.
	SocketCount(dst []byte, c *tcp.SocketCount, by []tcp.SocketKey) []byte
}

// NewEncoder returns the NDJSON encoder of a schema, which appends the labels, in their order, to
// every record. An unknown schema is the native one.
func NewEncoder(schema Schema, labels []Label) SocketEncoder {
	switch schema {
	case SchemaECS:
		return NewECS(labels)
	case SchemaOTel:
		return NewOTel(labels)
	}
	return NewNative(labels)
}

// OriginEncoder is an Encoder whose records can name the host that they come from.
type OriginEncoder interface {
	// AddOrigin adds the host and the boot id to all records that do not have them anyway, before the
	// labels. A host name that does not fit is left out.
	AddOrigin(host, bootID string)
}

// OwnerEncoder is an Encoder whose records may have what is known of the owner's process: Process of a
// transition and of a culprit.
type OwnerEncoder interface {
	// DescribesOwner reports whether they have.
	DescribesOwner() bool
}

// DescribesOwner reports whether transitions, connections and alerts of a schema have what is known of their
// owner's process. fields are the keys that they have; nil: all.
func DescribesOwner(schema Schema, fields []string) bool {
	if schema == SchemaNative || len(fields) == 0 {
		return schema != SchemaNative
	}
	return slices.ContainsFunc(ownerFields(schema), func(key string) bool { return slices.Contains(fields, key) })
}

// ownerFields are the keys of a schema that come from a process record.
func ownerFields(schema Schema) (keys []string) {
	for _, native := range []string{"started", "exe", "args", "parent", "user"} {
		keys = append(keys, namesOf(schema, native)...)
	}
	return append(keys, "process.user.id", "process.user.name")
}

// SamplingEncoder is an Encoder whose records can report that they belong to a sample.
type SamplingEncoder interface {
	// SetSample adds the key sampled, with the value oneIn, to the transitions and connections of all
	// sockets to which a sample applies ([tcp.Transition.SampleApplies]). It chooses no records. It must
	// be called before the first record.
	SetSample(oneIn uint64)
}

// maxHost bounds the encoded host name, in bytes; the kernel's is no longer than 64.
const maxHost = 128

// originMembers returns the members of [OriginEncoder.AddOrigin], each with its leading comma.
func originMembers(hostKey, host, bootKey, bootID string) []byte {
	var o object
	if o = o.stringIfSet(hostKey, host); len(o.line) > maxHost {
		o.line = nil
	}
	return o.stringIfSet(bootKey, bootID).line
}

// mappedEncoder is what the encoders of the other schemas have in common: the number and the labels
// of the records, and the caches that [Native] has as well.
type mappedEncoder struct {
	seq    uint64
	labels []byte // encoded members, each with its leading comma
	origin []byte // in the same way; empty: none
	sample uint64 // see [SamplingEncoder]; 0: none

	times  timeCache
	opened timeCache

	identities memberCache
	owners     ownerCache
}

func newMapped(labels []Label) mappedEncoder {
	var o object
	for _, l := range labels {
		o = o.string(l.Key, l.Value)
	}
	return mappedEncoder{labels: o.line}
}

// DescribesOwner implements [OwnerEncoder].
func (m *mappedEncoder) DescribesOwner() bool { return true }

// SetSample implements [SamplingEncoder].
func (m *mappedEncoder) SetSample(oneIn uint64) { m.sample = oneIn }

// sampled appends the size of the sample that the socket is one of. Only an encoder with a sample
// calls it.
func (m *mappedEncoder) sampled(o object, t *tcp.Transition) object {
	if t.SampleApplies() {
		return o.uint("tcpshift.sampled", m.sample)
	}
	return o
}

// SetSeq implements [Encoder].
func (m *mappedEncoder) SetSeq(seq uint64) { m.seq = seq }

// Header appends nothing: NDJSON has no header.
func (m *mappedEncoder) Header(dst []byte) []byte { return dst }

// memberCache is an [identityCache] for members of any length.
type memberCache [512]struct {
	key     identityKey
	members []byte // empty: the slot is empty
}

// append does what encode does, which must read nothing of t that is not in [identityKey].
// All calls for one cache must pass the same encode.
func (c *memberCache) append(o object, t *tcp.Transition, encode func(object, *tcp.Transition) object) object {
	slot := &c[(t.Cookie^t.Cookie>>12)%uint64(len(c))]
	if len(slot.members) > 0 && slot.key.matches(t) {
		o.line = append(o.line, slot.members...)
		return o
	}
	before := len(o.line)
	o = encode(o, t)
	slot.key = identityKey{t.Cookie, t.Local, t.Peer, t.Netns, t.Role, t.Mapped, t.IPv6}
	slot.members = append(slot.members[:0], o.line[before:]...)
	return o
}
