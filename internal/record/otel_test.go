package record

import (
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// otelAttributeTypes are the attributes of the semantic conventions that records have, and the
// types that the conventions give them.
var otelAttributeTypes = map[attribute.Key]attribute.Type{
	semconv.ContainerIDKey:            attribute.STRING,
	semconv.ContainerImageNameKey:     attribute.STRING,
	semconv.ContainerNameKey:          attribute.STRING,
	semconv.ContainerRuntimeNameKey:   attribute.STRING,
	semconv.ErrorTypeKey:              attribute.STRING,
	semconv.HostArchKey:               attribute.STRING,
	semconv.HostNameKey:               attribute.STRING,
	semconv.K8SContainerNameKey:       attribute.STRING,
	semconv.K8SNamespaceNameKey:       attribute.STRING,
	semconv.K8SPodNameKey:             attribute.STRING,
	semconv.K8SPodUIDKey:              attribute.STRING,
	semconv.NetworkConnectionStateKey: attribute.STRING,
	semconv.NetworkLocalAddressKey:    attribute.STRING,
	semconv.NetworkLocalPortKey:       attribute.INT64,
	semconv.NetworkPeerAddressKey:     attribute.STRING,
	semconv.NetworkPeerPortKey:        attribute.INT64,
	semconv.NetworkTransportKey:       attribute.STRING,
	semconv.NetworkTypeKey:            attribute.STRING,
	semconv.OSTypeKey:                 attribute.STRING,
	semconv.ProcessCommandArgsKey:     attribute.STRINGSLICE,
	semconv.ProcessCreationTimeKey:    attribute.STRING,
	semconv.ProcessExecutablePathKey:  attribute.STRING,
	semconv.ProcessLinuxCgroupKey:     attribute.STRING,
	semconv.ProcessOwnerKey:           attribute.STRING,
	semconv.ProcessParentPIDKey:       attribute.INT64,
	semconv.ProcessPIDKey:             attribute.INT64,
	semconv.ProcessTitleKey:           attribute.STRING,
	semconv.ProcessUserIDKey:          attribute.INT64,
	semconv.ServiceNameKey:            attribute.STRING,
	semconv.ServiceVersionKey:         attribute.STRING,
	semconv.UserIDKey:                 attribute.STRING,
}

// otelValues are the values that the conventions define for an attribute.
var otelValues = map[attribute.Key][]attribute.KeyValue{
	semconv.NetworkTransportKey: {semconv.NetworkTransportTCP},
	semconv.NetworkTypeKey:      {semconv.NetworkTypeIPv4, semconv.NetworkTypeIPv6},
	semconv.HostArchKey:         {semconv.HostArchAMD64, semconv.HostArchARM64},
	semconv.OSTypeKey:           {semconv.OSTypeLinux},
	semconv.NetworkConnectionStateKey: {
		semconv.NetworkConnectionStateClosed, semconv.NetworkConnectionStateCloseWait, semconv.NetworkConnectionStateClosing,
		semconv.NetworkConnectionStateEstablished, semconv.NetworkConnectionStateFinWait1, semconv.NetworkConnectionStateFinWait2,
		semconv.NetworkConnectionStateLastAck, semconv.NetworkConnectionStateListen, semconv.NetworkConnectionStateSynReceived,
		semconv.NetworkConnectionStateSynSent, semconv.NetworkConnectionStateTimeWait,
	},
}

// Every attribute that is not under tcpshift. is one of the conventions, with a value of its type.
func TestOTel_PublishedAttributes(t *testing.T) {
	unused := maps.Clone(otelAttributeTypes)
	for _, lines := range goldenLinesOf(t, SchemaOTel) {
		for _, line := range lines {
			for name, value := range decodeJSON(t, memberOf(t, []byte(line), "attributes")) {
				if strings.HasPrefix(name, ownPrefix) {
					checkOwnAttribute(t, name, value)
					continue
				}
				key := attribute.Key(name)
				delete(unused, key)
				checkAttribute(t, key, value)
			}
		}
	}
	if len(unused) > 0 {
		t.Errorf("no golden record has %v", slices.Sorted(maps.Keys(unused)))
	}
}

func checkAttribute(t *testing.T, key attribute.Key, value any) {
	t.Helper()
	kind, found := otelAttributeTypes[key]
	text, isText := value.(string)
	_, isNumber := value.(json.Number)
	switch {
	case !found:
		t.Errorf("%s is not an attribute of the conventions", key)
	case kind == attribute.STRINGSLICE && !isListOfTexts(value), kind == attribute.STRING && !isText, kind == attribute.INT64 && !isNumber:
		t.Errorf("%s is %v, want the type %v", key, value, kind)
	}
	if defined := otelValues[key]; defined != nil && !slices.ContainsFunc(defined, func(v attribute.KeyValue) bool {
		return v.Value.AsString() == text
	}) {
		t.Errorf("%s is %v, want one of %v", key, value, defined)
	}
}

func isListOfTexts(value any) bool {
	list, isList := value.([]any)
	return isList && !slices.ContainsFunc(list, func(v any) bool {
		_, isText := v.(string)
		return !isText
	})
}

// checkOwnAttribute checks that a log record may have an attribute of this type.
func checkOwnAttribute(t *testing.T, name string, value any) {
	t.Helper()
	switch value := value.(type) {
	case string, bool, json.Number:
	case []any:
		for _, v := range value {
			if _, isText := v.(string); !isText {
				t.Errorf("%s has the element %v, want strings only", name, v)
			}
		}
	default:
		t.Errorf("%s is %v", name, value)
	}
}

// The fields of the log record have the types and ranges of the log data model.
func TestOTel_LogRecord(t *testing.T) {
	labelled, err := os.ReadFile("testdata/otel/labels.ndjson")
	if err != nil {
		t.Fatal(err)
	}
	all := goldenLinesOf(t, SchemaOTel)
	all["labels"] = slices.Collect(strings.Lines(string(labelled)))
	for recordType, lines := range all {
		for _, line := range lines {
			record := decodeJSON(t, []byte(line))
			if _, err := time.Parse(time.RFC3339Nano, record["timestamp"].(string)); err != nil {
				t.Error(err)
			}
			severities := map[string]string{"info": "9", "warning": "13", "critical": "18"}
			if want := severities[record["severity_text"].(string)]; record["severity_number"].(json.Number).String() != want {
				t.Errorf("the severity is %v and %v", record["severity_text"], record["severity_number"])
			}
			if want := "tcpshift." + recordType; recordType != "labels" && record["event_name"] != want {
				t.Errorf("the event is named %v, want %s", record["event_name"], want)
			}
			if _, has := record["body"]; has != (record["event_name"] == "tcpshift.alert") {
				t.Errorf("there is a body: %v in %s", has, line)
			}
			fields := slices.Sorted(maps.Keys(record))
			fields = slices.DeleteFunc(fields, func(field string) bool { return field == "body" })
			want := []string{"attributes", "event_name", "severity_number", "severity_text", "timestamp"}
			if !slices.Equal(fields, want) {
				t.Errorf("the fields are %v, want %v", fields, want)
			}
		}
	}
}

// Every state of the kernel has a state of the conventions; those that only Linux has, and
// numbers without a name, keep the native one.
func TestOTel_States(t *testing.T) {
	for n := range 256 {
		state := tcp.State(n)
		got := decodeJSON(t, append(append([]byte("{"), object{}.otelState(state, "tcpshift.state").line[1:]...), '}'))
		conventional, named := conventionalStates[state.String()]
		switch {
		case named:
			if got["network.connection.state"] != conventional || len(got) != 1 {
				t.Errorf("%v: got %v, want %s", state, got, conventional)
			}
		case got["tcpshift.state"] != state.String():
			t.Errorf("%v: got %v, want the native state", state, got)
		}
	}
	for state, want := range map[tcp.State]string{tcp.NewSynRecv: "syn_received", tcp.BoundInactive: "closed"} {
		if otelStates[state] != want {
			t.Errorf("%v is %s, want %s", state, otelStates[state], want)
		}
	}
}
