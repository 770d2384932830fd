package record

import (
	"bufio"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// ecsFieldList is the file in testdata/ecs with the published fields that tcpshift uses.
const ecsFieldList = "fields-" + ECSVersion + ".csv"

// ecsField is what the schema says of a field.
type ecsField struct {
	kind   string // such as keyword
	array  bool
	values []string // nil: any
}

func ecsFields(t *testing.T) map[string]ecsField {
	t.Helper()
	file, err := os.Open(filepath.Join("testdata", "ecs", ecsFieldList))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	fields := make(map[string]ecsField)
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		columns := strings.Split(lines.Text(), ",")
		if strings.HasPrefix(lines.Text(), "#") || columns[0] == "field" {
			continue
		}
		field := ecsField{kind: columns[1], array: columns[2] == "array"}
		if columns[3] != "" {
			field.values = strings.Split(columns[3], "|")
		}
		fields[columns[0]] = field
	}
	return fields
}

// problem says what is wrong with a value of the field, or "".
func (f *ecsField) problem(value any) string {
	values := []any{value}
	if list, isList := value.([]any); isList != f.array {
		return "it is a list, or is none and should be"
	} else if isList {
		values = list
	}
	for _, v := range values {
		if !f.fits(v) {
			return "it does not fit the type " + f.kind
		}
		if text, _ := v.(string); f.values != nil && !slices.Contains(f.values, text) {
			return "it is not among " + strings.Join(f.values, ", ")
		}
	}
	return ""
}

func (f *ecsField) fits(value any) bool {
	text, isText := value.(string)
	switch f.kind {
	case "long":
		number, isNumber := value.(json.Number)
		return isNumber && !strings.ContainsAny(number.String(), ".eE")
	case "keyword", "wildcard":
		return isText
	case "ip":
		_, err := netip.ParseAddr(text)
		return err == nil
	case "date":
		_, err := time.Parse(time.RFC3339Nano, text)
		return err == nil
	case "object":
		_, isObject := value.(map[string]any)
		return isObject
	}
	return false
}

// Every field that is not under tcpshift. is published, and has a value of its type. The list
// has no field that no record uses.
func TestECS_PublishedFields(t *testing.T) {
	fields := ecsFields(t)
	unused := make(map[string]bool)
	for name := range fields {
		unused[name] = !strings.Contains(name, "=")
	}
	lines := goldenLinesOf(t, SchemaECS)
	labelled, err := os.ReadFile("testdata/ecs/labels.ndjson")
	if err != nil {
		t.Fatal(err)
	}
	lines["labels"] = slices.Collect(strings.Lines(string(labelled)))
	for _, of := range lines {
		for _, line := range of {
			record := decodeJSON(t, []byte(line))
			checkExpectedTypes(t, fields, record)
			for name, value := range record {
				if strings.HasPrefix(name, ownPrefix) {
					continue
				}
				unused[name] = false
				field, found := fields[name]
				if !found {
					t.Errorf("%s is not a published field: %s", name, line)
				} else if problem := field.problem(value); problem != "" {
					t.Errorf("%s is %v: %s", name, value, problem)
				}
			}
		}
	}
	for name, isUnused := range unused {
		if isUnused {
			t.Errorf("%s is in the list, and no golden record has it", name)
		}
	}
}

// checkExpectedTypes checks that the schema expects each event.type with the category.
func checkExpectedTypes(t *testing.T, fields map[string]ecsField, record map[string]any) {
	t.Helper()
	for _, category := range record["event.category"].([]any) {
		expected := fields["event.category="+category.(string)].values
		for _, kind := range record["event.type"].([]any) {
			if !slices.Contains(expected, kind.(string)) {
				t.Errorf("event.type %v with event.category %v: the schema expects %v", kind, category, expected)
			}
		}
	}
}

// The client is the source and the server is the destination, with the bytes that it sent,
// whichever of them is this host.
func TestECS_SourceAndDestination(t *testing.T) {
	encoder := NewECS(nil)
	for _, tt := range []struct {
		role                                tcp.Role
		source, destination                 string
		direction                           any
		sourcePort, bySource, byDestination string
	}{
		{tcp.RoleClient, "192.0.2.1", "198.51.100.7", "egress", "50388", "123456789", "987654321"},
		{tcp.RoleServer, "198.51.100.7", "192.0.2.1", "ingress", "443", "987654321", "123456789"},
		{tcp.RoleUnknown, "192.0.2.1", "198.51.100.7", nil, "50388", "123456789", "987654321"},
	} {
		event, end := fullV4(), fullConnection()
		event.Role = tt.role
		got := decodeJSON(t, encoder.Connection(nil, &event, &end))
		for key, want := range map[string]any{
			"source.ip": tt.source, "destination.ip": tt.destination, "network.direction": tt.direction,
			"source.port": json.Number(tt.sourcePort), "source.bytes": json.Number(tt.bySource),
			"destination.bytes": json.Number(tt.byDestination),
		} {
			if got[key] != want {
				t.Errorf("%v: %s is %v, want %v", tt.role, key, got[key], want)
			}
		}
	}
}

// A listener is a destination, and no connection.
func TestECS_Listener(t *testing.T) {
	event, end := fullV4(), fullConnection()
	event.Role, event.Peer = tcp.RoleListener, tcp.Endpoint{}
	got := decodeJSON(t, NewECS(nil).Connection(nil, &event, &end))
	if got["destination.ip"] != "192.0.2.1" || got["source.ip"] != nil || got["network.direction"] != nil {
		t.Errorf("got %v", got)
	}
	if kinds := got["event.type"].([]any); len(kinds) != 1 || kinds[0] != "end" {
		t.Errorf("event.type is %v, want end", kinds)
	}
}

// event.outcome of a connection says whether it succeeded.
func TestECS_Outcome(t *testing.T) {
	for _, tt := range []struct {
		name        string
		by          tcp.ClosedBy
		role        tcp.Role
		established time.Duration
		want        string
	}{
		{"closed by this side", tcp.ClosedByLocal, tcp.RoleClient, 1, "success"},
		{"closed by the peer", tcp.ClosedByPeer, tcp.RoleServer, 1, "success"},
		{"a connect() that was given up", tcp.ClosedByLocal, tcp.RoleClient, 0, "failure"},
		{"a listener, which is never established", tcp.ClosedByLocal, tcp.RoleListener, 0, "success"},
		{"refused", tcp.ClosedByRefused, tcp.RoleClient, 0, "failure"},
		{"a timeout", tcp.ClosedByTimeout, tcp.RoleServer, 1, "failure"},
		{"a reset of the peer", tcp.ClosedByResetReceived, tcp.RoleServer, 1, "failure"},
		{"aborted", tcp.ClosedByAbort, tcp.RoleServer, 1, "failure"},
		{"no port", tcp.ClosedByNoPort, tcp.RoleClient, 0, "failure"},
		{"the address in use", tcp.ClosedByAddressInUse, tcp.RoleClient, 0, "failure"},
		{"a reset of this side", tcp.ClosedByResetSent, tcp.RoleServer, 1, "unknown"},
		{"not known", "", tcp.RoleServer, 1, "unknown"},
	} {
		event, end := fullV4(), fullConnection()
		event.Role, end.ClosedBy, end.EstablishedFor = tt.role, tt.by, tt.established
		if got := outcome(&event, &end); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
	begunBefore := fullConnection()
	begunBefore.OpenedAt, begunBefore.EstablishedFor, begunBefore.ClosedBy = 0, 0, tcp.ClosedByPeer
	event := fullV4()
	if got := outcome(&event, &begunBefore); got != "success" {
		t.Errorf("begun before the tracer: got %s, want success", got)
	}
}

// A connection starts when it is established, at either end.
func TestECS_TransitionType(t *testing.T) {
	for _, tt := range []struct {
		old, next tcp.State
		err       tcp.Errno
		want      string
	}{
		{tcp.SynSent, tcp.Established, 0, `,"event.type":["connection","start"],"event.outcome":"success"`},
		{tcp.SynRecv, tcp.Established, 0, `,"event.type":["connection","start"],"event.outcome":"success"`},
		{tcp.Established, tcp.Established, 0, `,"event.type":["connection","info"]`},
		{tcp.SynSent, tcp.Close, 111, `,"event.type":["connection","info"],"event.outcome":"failure"`},
		{tcp.LastAck, tcp.Close, 0, `,"event.type":["connection","info"]`},
	} {
		event := tcp.Transition{Old: tt.old, New: tt.next, Error: tt.err}
		if got := string(object{}.ecsTransitionType(&event).line); got != tt.want {
			t.Errorf("%v to %v, error %d: got %s, want %s", tt.old, tt.next, tt.err, got, tt.want)
		}
	}
}
