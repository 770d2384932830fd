package cli_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// schemaKeys are, by schema, where the type, the number and the source port of a record are.
var schemaKeys = map[string]struct{ kind, seq, localPort string }{
	"ecs":  {"event.dataset", "event.sequence", "source.port"},
	"otel": {"event_name", "tcpshift.seq", "network.local.port"},
}

// decodeSchema decodes lines and puts the attributes of each beside its other members.
func decodeSchema(t *testing.T, lines string) (records []map[string]any) {
	t.Helper()
	for line := range strings.Lines(lines) {
		var record map[string]any
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		attributes, _ := record["attributes"].(map[string]any)
		for key, value := range attributes {
			record[key] = value
		}
		records = append(records, record)
	}
	return records
}

// A stream in another schema has the records of a native one, numbered, and a connection's client
// with its port.
func TestSchema_Stream(t *testing.T) {
	for schema, keys := range schemaKeys {
		s := newTraffic(t)
		tr := launch(t, append(s.byNetns(), "--schema", schema))
		tr.await("start record", func(line string) bool { return strings.Contains(line, `"tcpshift.start"`) })
		s.makeConnections()
		tr.signal(syscall.SIGTERM)
		r := tr.wait()
		r.mustEnd(t, 0)
		r.mustPrintError(t, "")
		found, clients := map[any]bool{}, 0
		for i, record := range decodeSchema(t, r.stdout) {
			found[record[keys.kind]] = true
			if record[keys.seq] != float64(i+1) {
				t.Errorf("%s: record %d has the number %v", schema, i+1, record[keys.seq])
			}
			if record[keys.kind] == "tcpshift.connection" && record["tcpshift.role"] == "client" && record[keys.localPort] != nil {
				clients++
			}
		}
		for _, kind := range []string{"start", "transition", "connection", "stats", "stop"} {
			if !found["tcpshift."+kind] {
				t.Errorf("%s: no %s record\n%v", schema, kind, r)
			}
		}
		if clients == 0 {
			t.Errorf("%s: no connection record of a client\n%v", schema, r)
		}
	}
}

// A snapshot in another schema lists the sockets.
func TestSchema_Snapshot(t *testing.T) {
	requireRoot(t)
	n := tcplab.NewNetns(t)
	n.Listen(netip.MustParseAddrPort("127.0.0.1:17110"))
	for schema, port := range map[string]string{"ecs": "destination.port", "otel": "network.local.port"} {
		r := run(flags("snapshot", "--netns", fmt.Sprint(n.Inode()), "--schema", schema))
		r.mustEnd(t, 0)
		sockets := decodeSchema(t, r.stdout)
		if len(sockets) != 1 || sockets[0][port] != float64(17110) {
			t.Errorf("%s: want one listener\n%v", schema, r)
		}
	}
}
