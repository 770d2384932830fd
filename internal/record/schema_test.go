package record

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

const schemaDir = "../../docs/schema"

// schemas are the schemas of docs/schema by record type. They check formats too.
func schemas(t *testing.T) map[string]*jsonschema.Schema {
	t.Helper()
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	all := make(map[string]*jsonschema.Schema)
	for name := range goldenFiles {
		schema, err := compiler.Compile(filepath.Join(schemaDir, name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		all[name] = schema
	}
	return all
}

// validate checks a line by the schema of its type.
func validate(t *testing.T, all map[string]*jsonschema.Schema, line string) error {
	t.Helper()
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(line))
	if err != nil {
		t.Fatalf("%v in %s", err, line)
	}
	recordType, _ := value.(map[string]any)["type"].(string)
	schema, found := all[recordType]
	if !found {
		t.Fatalf("no schema for the type %q of %s", recordType, line)
	}
	return schema.Validate(value)
}

// docs/schema has one schema per record type, and one of the configuration.
func TestSchema_OnePerType(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(schemaDir, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, file := range files {
		names = append(names, strings.TrimSuffix(filepath.Base(file), ".json"))
	}
	want := append(SelectableTypes(), "start", "reload", "stop", "socket", "socket_count", "config")
	slices.Sort(names)
	slices.Sort(want)
	if !slices.Equal(names, want) {
		t.Errorf("docs/schema is of %v, want %v", names, want)
	}
}

// Every golden line is valid.
func TestSchema_GoldenFiles(t *testing.T) {
	all := schemas(t)
	for _, lines := range goldenLines(t) {
		for _, line := range lines {
			if err := validate(t, all, line); err != nil {
				t.Errorf("%v\n%s", err, line)
			}
		}
	}
	labelled, err := os.ReadFile("testdata/labels.ndjson")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(labelled)) {
		if err := validate(t, all, line); err != nil {
			t.Errorf("%v\n%s", err, line)
		}
	}
}

// Records are valid with every state, role, pid_source and error.
func TestSchema_EveryValue(t *testing.T) {
	all, encoder := schemas(t), NewNative(nil)
	event, end := fullV4(), fullConnection()
	check := func() {
		socket := tcp.Socket{Transition: event}
		for _, line := range [][]byte{
			encoder.Transition(nil, &event), encoder.Connection(nil, &event, &end), encoder.Socket(nil, &socket),
		} {
			line = encoder.WithSeq(nil, line, 1)
			if err := validate(t, all, string(line)); err != nil {
				t.Errorf("%v\n%s", err, line)
			}
		}
	}
	for n := range 256 {
		event.Old, event.New, event.Substate, event.Error = tcp.State(n), tcp.State(255-n), 0, tcp.Errno(n)
		if event.New == tcp.TimeWait {
			event.Substate = tcp.FinWait2
		}
		check()
	}
	for _, event.Role = range []tcp.Role{tcp.RoleUnknown, tcp.RoleClient, tcp.RoleServer, tcp.RoleListener} {
		check()
	}
	for _, event.Owner.Source = range []tcp.PIDSource{
		tcp.PIDUnknown, tcp.PIDTask, tcp.PIDStored, tcp.PIDAccept, tcp.PIDListener, tcp.PIDScan,
	} {
		check()
	}
	for _, state := range tcp.States() {
		for _, event.Error = range []tcp.Errno{0, 103, 104, 110} {
			event.Old, event.New, event.Substate = state, tcp.Close, 0
			end.ClosedBy = tcp.ClosedByOf(&event)
			check()
		}
	}
}

// schemaFile is what the tests read of a schema besides using it.
type schemaFile struct {
	ID         string                     `json:"$id"`
	Schema     string                     `json:"$schema"`
	Properties map[string]json.RawMessage `json:"properties"`
}

func readSchema(t *testing.T, name string) (s schemaFile) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(schemaDir, name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return s
}

// originKeys are on every record of some outputs: AddOrigin.
var originKeys = []string{"host", "boot_id"}

// The schemas have exactly the keys of the golden records, and describe each.
func TestSchema_Keys(t *testing.T) {
	for name, lines := range goldenLines(t) {
		s := readSchema(t, name)
		if want := "https://json-schema.org/draft/2020-12/schema"; s.Schema != want {
			t.Errorf("%s: $schema is %q, want %q", name, s.Schema, want)
		}
		if want := "https://github.com/tcpshift/tcpshift/docs/schema/" + name + ".json"; s.ID != want {
			t.Errorf("%s: $id is %q, want %q", name, s.ID, want)
		}
		inRecords := make(map[string]bool)
		for _, line := range lines {
			for _, key := range keysOf(t, []byte(line)) {
				inRecords[key] = true
			}
		}
		if !strings.HasPrefix(name, "socket") { // a snapshot has no origin
			for _, key := range originKeys {
				inRecords[key] = true
			}
		}
		got, want := slices.Sorted(maps.Keys(s.Properties)), slices.Sorted(maps.Keys(inRecords))
		if !slices.Equal(got, want) {
			t.Errorf("%s: the schema has the keys %v, want those of the golden records: %v", name, got, want)
		}
		for key, raw := range s.Properties {
			var property struct{ Description string }
			if err := json.Unmarshal(raw, &property); err != nil || property.Description == "" {
				t.Errorf("%s: %s has no description: %s, %v", name, key, raw, err)
			}
		}
	}
}

// A key that several record types have is described alike in all of them.
func TestSchema_SharedKeys(t *testing.T) {
	stats, stop := readSchema(t, "stats"), readSchema(t, "stop")
	for key, raw := range stats.Properties {
		if key != "type" && !reflect.DeepEqual(raw, stop.Properties[key]) {
			t.Errorf("%s is %s in stop, want it as in stats: %s", key, stop.Properties[key], raw)
		}
	}
	transition := readSchema(t, "transition")
	for _, name := range []string{"connection", "socket"} {
		for key, raw := range readSchema(t, name).Properties {
			own := slices.Contains([]string{"type", "time", "seq"}, key)
			if there, found := transition.Properties[key]; found && !own && !reflect.DeepEqual(raw, there) {
				t.Errorf("%s is %s in %s, want it as in transition: %s", key, raw, name, there)
			}
		}
	}
}

// wrongRecord is a golden line with one change, which its schema must reject.
type wrongRecord struct {
	name, line, old, new string
	at                   string // where the error is; empty: in the record as a whole
}

func wrongRecords(t *testing.T) []wrongRecord {
	t.Helper()
	golden := goldenLines(t)
	line := func(file string, n int) string { return golden[file][n-1] }
	return []wrongRecord{
		{"another type", line("start", 1), `"type":"start"`, `"type":"stop"`, "/type"},
		{"start that is not the first", line("start", 1), `"seq":1`, `"seq":2`, "/seq"},
		{"start of another major version", line("start", 1), `"schema":"1.0"`, `"schema":"2.0"`, "/schema"},
		{"an empty host name", line("start", 1), `"host":"web-1"`, `"host":""`, "/host"},
		{"a feature off without a reason", line("start", 1), `"socket_cookie":true`, `"socket_cookie":false`, "/features/socket_cookie"},
		{"a feature with an empty reason", line("start", 1), `"socket_cookie":true`, `"socket_cookie":""`, "/features/socket_cookie"},
		{"no features", line("start", 3), `,"features":{}`, ``, ""},

		{"six digits after the second", line("transition", 1), `.000008000Z`, `.000008Z`, "/time"},
		{"an offset for Z", line("transition", 1), `8000Z`, `8000+00:00`, "/time"},
		{"month 13", line("transition", 1), `2026-03`, `2026-13`, "/time"},
		{"record number 0", line("transition", 1), `"seq":1`, `"seq":0`, "/seq"},
		{"a number in place of a cookie", line("transition", 1), `"fedcba9876543210"`, `7`, "/conn"},
		{"cookie 0", line("transition", 1), `"fedcba9876543210"`, `"0"`, "/conn"},
		{"port 0", line("transition", 1), `"local_port":50388`, `"local_port":0`, "/local_port"},
		{"a port too large", line("transition", 1), `"peer_port":443`, `"peer_port":65536`, "/peer_port"},
		{"an address that is none", line("transition", 1), `"192.0.2.1"`, `"192.0.2.256"`, "/local_addr"},
		{"an address of the other family", line("transition", 1), `"192.0.2.1"`, `"2001:db8::1"`, "/local_addr"},
		{"an address of the other family", line("transition", 2), `"2001:db8::1"`, `"192.0.2.1"`, "/local_addr"},
		{"an empty address", line("transition", 1), `"198.51.100.7"`, `""`, "/peer_addr"},
		{"another family", line("transition", 1), `"ipv4"`, `"unix"`, "/family"},
		{"mapped, but IPv6", line("transition", 3), `"ipv4"`, `"ipv6"`, "/family"},
		{"mapped, but not", line("transition", 3), `"mapped":true`, `"mapped":false`, "/mapped"},
		{"another role", line("transition", 1), `"client"`, `"unknown"`, "/role"},
		{"a state by the name that ss has", line("transition", 1), `"ESTABLISHED"`, `"ESTAB"`, "/old_state"},
		{"a state's number that has a name", line("transition", 1), `"CLOSE"`, `"STATE_7"`, "/new_state"},
		{"a state beyond a byte", line("transition", 1), `"CLOSE"`, `"STATE_256"`, "/new_state"},
		{"no state", line("transition", 1), `"new_state":"CLOSE",`, ``, ""},
		{"no user", line("transition", 1), `"uid":1000,`, ``, ""},
		{"an owner without its source", line("transition", 1), `,"pid_source":"task"`, ``, ""},
		{"an owner without its name", line("transition", 1), `"comm":"curl",`, ``, ""},
		{"a source without an owner", line("transition", 1), `"pid":4242,"comm":"curl",`, ``, ""},
		{"an error by its number", line("transition", 1), `"ECONNRESET"`, `104`, "/error"},
		{"a key that is no label", line("transition", 1), `}`, `,"extra":1}`, "/extra"},
		{"a label that is not snake_case", line("transition", 1), `}`, `,"Extra":"x"}`, ""},

		{"a source that is not named", line("transition", 1), `"task"`, `"guess"`, "/pid_source"},
		{"a time in the state of 0", line("transition", 1), `"in_state_ns":1500000000`, `"in_state_ns":0`, "/in_state_ns"},
		{"a path that does not begin at the root", line("transition", 1), `"cgroup":"/`, `"cgroup":"`, "/cgroup"},
		{"a short container id", line("transition", 1), `"container":"0`, `"container":"`, "/container"},
		{"another runtime", line("transition", 1), `"containerd"`, `"lxc"`, "/container_runtime"},
		{"a runtime without its container", line("transition", 1), `"container":"` + containerID + `",`, ``, ""},
		{"a pod uid that is none", line("transition", 1), `"pod_uid":"2e8`, `"pod_uid":"2x8`, "/pod_uid"},
		{"a TIME_WAIT without its substate", line("transition", 14), `,"time_wait_substate":"TIME_WAIT"`, ``, ""},
		{"a TIME_WAIT without the kernel's state", line("transition", 14), `,"kernel_new_state":"CLOSE"`, ``, ""},
		{"a substate of another state", line("transition", 14), `"new_state":"TIME_WAIT"`, `"new_state":"CLOSE"`, "/new_state"},
		{"another substate", line("transition", 14), `substate":"TIME_WAIT"`, `substate":"CLOSING"`, "/time_wait_substate"},
		{"the kernel's state where it is no other", line("transition", 14), `"kernel_new_state":"CLOSE"`,
			`"kernel_new_state":"TIME_WAIT"`, "/kernel_new_state"},
		{"known and not known", line("transition", 14), `"in_state_ns"`, `"time_wait_unknown":true,"in_state_ns"`, "/time_wait_unknown"},
		{"not known of another state", line("transition", 16), `"new_state":"CLOSE"`, `"new_state":"CLOSING"`, "/new_state"},
		{"to itself, but not", line("transition", 19), `"self":true`, `"self":false`, "/self"},

		{"a TIME_WAIT that ends in no way", line("transition", 17), `"time_wait_end":"expired",`, ``, ""},
		{"a TIME_WAIT that ends in another way", line("transition", 17), `"expired"`, `"late"`, "/time_wait_end"},
		{"the end of another state", line("transition", 17), `"old_state":"TIME_WAIT"`, `"old_state":"LAST_ACK"`, "/old_state"},

		{"another end", line("connection", 1), `"reset_received"`, `"luck"`, "/closed_by"},
		{"an end that is not known", line("connection", 1), `"reset_received"`, `""`, "/closed_by"},
		{"no final state", line("connection", 1), `"final_state":"CLOSE",`, ``, ""},
		{"a duration without its beginning", line("connection", 1), `"opened":"2026-03-04T05:06:05.000008000Z",`, ``, ""},
		{"a beginning without its duration", line("connection", 1), `"duration_ns":2000000000,`, ``, ""},
		{"a beginning that is no time", line("connection", 1), `"opened":"2026-03-04`, `"opened":"2026-03-32`, "/opened"},
		{"no sent_bytes", line("connection", 1), `"sent_bytes":123456789,`, ``, ""},
		{"negative bytes", line("connection", 1), `"received_bytes":9`, `"received_bytes":-9`, "/received_bytes"},
		{"a round trip of 0", line("connection", 1), `"rtt_ns":250000`, `"rtt_ns":0`, "/rtt_ns"},
		{"established for less than no time", line("connection", 1), `"established_ns":1`, `"established_ns":-1`, "/established_ns"},
		{"a beginning, and not known whether established", line("connection", 1), `"established_ns":1500000000,`, ``, ""},
		{"partial, and yet its beginning known", line("connection", 1), `}`, `,"partial":true}`, "/opened"},
		{"neither partial nor begun", line("connection", 5), `,"partial":true`, ``, ""},

		{"a count of nothing", line("socket_count", 1), `"sockets":1204`, `"sockets":0`, "/sockets"},
		{"a socket without a state", line("socket", 1), `"state":"ESTABLISHED",`, ``, ""},
		{"a socket in a state of another name", line("socket", 1), `"ESTABLISHED"`, `"ESTAB"`, "/state"},
		{"a socket without a user", line("socket", 1), `"uid":1000,`, ``, ""},
		{"a TIME_WAIT without its substate", line("socket", 6), `,"time_wait_substate":"TIME_WAIT"`, ``, ""},
		{"a TIME_WAIT with an owner", line("socket", 6), `}`, `,"pid":1,"comm":"x","pid_source":"task"}`, "/pid"},
		{"a TIME_WAIT with a user", line("socket", 6), `}`, `,"uid":0}`, "/uid"},
		{"a TIME_WAIT with nothing left", line("socket", 6), `"expires_in_ns":59960000000`, `"expires_in_ns":0`, "/expires_in_ns"},
		{"a time left to another state", line("socket", 1), `"pid"`, `"expires_in_ns":1,"pid"`, "/state"},

		{"an alert of another kind", line("alert", 1), `"time_wait_storm"`, `"bad_weather"`, "/kind"},
		{"another phase", line("alert", 1), `"open"`, `"begin"`, "/phase"},
		{"another severity", line("alert", 1), `"critical"`, `"bad"`, "/severity"},
		{"a share beyond all", line("alert", 1), `"share":0.788`, `"share":1.1`, "/share"},
		{"a service without its share", line("alert", 1), `"share":0.788,`, ``, ""},
		{"a pid without its share", line("alert", 1), `"pid_share":0.62,`, ``, ""},
		{"a pid's share without the pid", line("alert", 1), `"pid":4242,`, ``, ""},
		{"a next service without its share", line("alert", 1), `,"next_share":0.21`, ``, ""},
		{"a next service without a name", line("alert", 1), `"next_service":"python3"`, `"next_service":""`, "/next_service"},
		{"a negative number of processes", line("alert", 1), `"processes":3`, `"processes":-1`, "/processes"},
		{"an occupancy from nowhere", line("alert", 1), `"occupancy_source":"kernel",`, ``, ""},
		{"a capacity of nothing", line("alert", 1), `"capacity_kind":"ephemeral_ports",`, ``, ""},
		{"the end before now", line("alert", 1), `"exhaustion_in_s":1.8`, `"exhaustion_in_s":-1.8`, "/exhaustion_in_s"},
		{"losses, and yet sure", line("alert", 6), `"confidence":"reduced"`, `"confidence":"full"`, "/confidence"},
		{"no confidence", line("alert", 1), `"confidence":"full",`, ``, ""},
		{"no advice", line("alert", 1), `,"advice":"the advice"`, ``, ""},
		{"a negative count", line("stats", 1), `"seen":1000`, `"seen":-1`, "/seen"},
		{"a count that is no whole number", line("stats", 1), `"read":663`, `"read":66.3`, "/read"},
		{"a count left out", line("stats", 1), `"missed":5,`, ``, ""},

		{"no deferred", line("stats", 1), `"deferred":4,`, ``, ""},
		{"connections left out", line("stop", 1), `"connections":59,`, ``, ""},

		{"a loss of nothing", line("loss", 1), `"lost":1234`, `"lost":0`, "/lost"},
		{"another cause", line("loss", 1), `"ring_full"`, `"bad_luck"`, "/cause"},
		{"another stage", line("loss", 1), `"kernel"`, `"output"`, "/stage"},

		{"a median without the 99th percentile", line("summary", 1), `,"rtt_p99_ns":240112`, ``, ""},
		{"others with a peer", line("summary", 1), `"connections":1204`, `"other":true,"connections":1204`, "/peer_port"},

		{"another reason", line("stop", 3), `"duration"`, `"boredom"`, "/reason"},
		{"a signal that is not named", line("stop", 1), `"signal":"SIGTERM",`, ``, ""},
		{"a signal with another reason", line("stop", 3), `"duration"`, `"duration","signal":"SIGINT"`, "/signal"},
		{"a count left out", line("stop", 1), `"written":587,`, ``, ""},
	}
}

func wrongProcesses(t *testing.T) []wrongRecord {
	t.Helper()
	golden := goldenLines(t)["process"]
	return []wrongRecord{
		{"a reload of nothing", goldenLines(t)["reload"][0], `,"changed":"only,outputs,resets"`, ``, ""},
		{"a process without a name", golden[0], `"comm":"curl",`, ``, ""},
		{"a process that started at no time", golden[0], `"started":"2026-03-04`, `"started":"2026-03-32`, "/started"},
		{"a process with no executable", golden[0], `"exe":"/usr/bin/curl"`, `"exe":""`, "/exe"},
		{"a parent of 0", golden[0], `"parent":4200`, `"parent":0`, "/parent"},
		{"a user without a number", golden[0], `"uid":1000,`, ``, ""},
		{"not cut", golden[5], `"truncated":true`, `"truncated":false`, "/truncated"},
	}
}

// Each schema rejects records that differ from a valid one in a single point.
func TestSchema_RejectsWrongRecords(t *testing.T) {
	all, wrong := schemas(t), append(wrongRecords(t), wrongProcesses(t)...)
	rejected := make(map[string]bool)
	for _, tt := range wrong {
		changed := strings.Replace(tt.line, tt.old, tt.new, 1)
		if changed == tt.line {
			t.Fatalf("%s: %s is not in %s", tt.name, tt.old, tt.line)
		}
		schema := all[decodeJSON(t, []byte(tt.line))["type"].(string)]
		value, err := jsonschema.UnmarshalJSON(strings.NewReader(changed))
		if err != nil {
			t.Fatalf("%s: %v in %s", tt.name, err, changed)
		}
		places := errorPlaces(schema.Validate(value))
		if !slices.Contains(places, tt.at) {
			t.Errorf("%s: the errors are at %q, want one at %q\n%s", tt.name, places, tt.at, changed)
		}
		rejected[filepath.Base(schema.Location)] = true
	}
	if len(rejected) != len(all) {
		t.Errorf("only %v reject something, want all of %v", rejected, slices.Sorted(maps.Keys(all)))
	}
}

// errorPlaces are the JSON pointers of the innermost errors.
func errorPlaces(err error) []string {
	var e *jsonschema.ValidationError
	if !errors.As(err, &e) {
		return nil
	}
	if len(e.Causes) == 0 {
		place := ""
		for _, step := range e.InstanceLocation {
			place += "/" + step
		}
		return []string{place}
	}
	var places []string
	for _, cause := range e.Causes {
		places = append(places, errorPlaces(cause)...)
	}
	return places
}
