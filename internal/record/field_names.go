package record

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tcpshift/tcpshift/internal/spelling"
)

const featuresOffKey = ownPrefix + "features_off" // a dot and the feature's name follow

// renamed has a line for each native key whose name in a schema is not the native key after
// "tcpshift.": the native key and its names. A line that begins with "-" has names without a native
// key. docs/schemas.md has the same table.
var renamed = map[Schema]string{
	SchemaECS: `
type event.dataset
time @timestamp event.end
seq event.sequence
- ecs.version event.kind event.category event.type event.action event.outcome
- network.transport network.direction network.community_id tcpshift.truncated
- process.user.id process.user.name
- agent.type host.os.type tcpshift.features_off
version agent.version
host host.name
boot_id host.boot.id
kernel host.os.kernel
arch host.architecture
pid process.pid
comm process.name
started process.start
exe process.executable
args process.command_line
parent process.parent.pid
user user.name
uid user.id
container container.id
container_runtime container.runtime
pod_uid orchestrator.resource.id orchestrator.resource.type orchestrator.type
pod orchestrator.resource.name
namespace orchestrator.namespace
container_name container.name
image container.image.name
family network.type
local_addr source.ip destination.ip
local_port source.port destination.port
peer_addr source.ip destination.ip
peer_port source.port destination.port
error error.code
opened event.start
duration_ns event.duration
sent_bytes source.bytes destination.bytes tcpshift.sent_bytes
received_bytes source.bytes destination.bytes tcpshift.received_bytes
kind rule.name
phase event.action
severity log.level event.severity
service service.name
lasted_ns event.duration
cause event.reason
reason event.reason`,
	SchemaOTel: `
type event_name
time timestamp
- severity_number severity_text network.transport tcpshift.truncated process.user.id
- service.name os.type tcpshift.features_off
version service.version
host host.name
arch host.arch
pid process.pid
comm process.title
started process.creation.time
exe process.executable.path
args process.command_args
parent process.parent_pid
user process.owner
uid user.id
cgroup process.linux.cgroup
container container.id
container_runtime container.runtime.name
pod_uid k8s.pod.uid
pod k8s.pod.name
namespace k8s.namespace.name
container_name k8s.container.name container.name
image container.image.name
family network.type
local_addr network.local.address
local_port network.local.port
peer_addr network.peer.address
peer_port network.peer.port
new_state network.connection.state tcpshift.new_state
final_state network.connection.state tcpshift.final_state
state network.connection.state tcpshift.state
error error.type
severity severity_text
cause body tcpshift.cause`,
}

// namesOf returns the names of a native key in a schema.
func namesOf(schema Schema, native string) []string {
	if schema == SchemaNative {
		return []string{native}
	}
	for line := range strings.SplitSeq(renamed[schema], "\n") {
		if key, names, _ := strings.Cut(line, " "); key == native {
			return strings.Fields(names)
		}
	}
	return []string{ownPrefix + native}
}

// fieldNames are all keys of a schema, except labels.
func fieldNames(schema Schema) (names []string) {
	for _, native := range schemaKeys {
		names = append(names, namesOf(schema, native)...)
	}
	for line := range strings.SplitSeq(renamed[schema], "\n") {
		if others, found := strings.CutPrefix(line, "- "); found {
			names = append(names, strings.Fields(others)...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// CheckFields returns an error that names the first of fields that is neither a key of the schema
// nor one of the labels, and the key that is nearest to it.
func CheckFields(schema Schema, labels []Label, fields []string) error {
	known := fieldNames(schema)
	for _, field := range fields {
		isLabel := slices.ContainsFunc(labels, func(l Label) bool { return l.Key == field })
		if !isLabel && !slices.Contains(known, field) {
			return fmt.Errorf("%q is not a key of the schema %s: use one such as %s, which is the nearest", field, schema, nearest(schema, known, field))
		}
	}
	return nil
}

// nearest returns the name of a native key in this schema, else the name that ends in the word, else
// the one with the fewest changes.
func nearest(schema Schema, known []string, word string) string {
	if native := strings.TrimPrefix(word, ownPrefix); slices.Contains(schemaKeys, native) {
		return namesOf(schema, native)[0]
	}
	lastPart := word[strings.LastIndexByte(word, '.')+1:]
	best, least := "", 0
	for _, name := range known {
		if strings.HasSuffix(name, "."+word) || name == lastPart {
			return name
		}
		if d := spelling.Distance(name, word); best == "" || d < least {
			best, least = name, d
		}
	}
	return best
}
