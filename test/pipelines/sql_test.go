package pipelines_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// query returns each record as one line of JSON, its columns first.
const query = `SELECT jsonb_build_object('boot_id', boot_id, 'ts_ns', ts_ns, 'seq', seq, 'type', type,
    'us', to_char(time AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'), 'record', record) FROM tcpshift`

// PostgreSQL has each connection as jsonb, with exact numbers, and nanoseconds beside its own
// microseconds. Loading a file a second time adds nothing.
func TestPostgreSQL_Load(t *testing.T) {
	needs(t, "initdb", "postgres", "psql")
	e := openExample(t, "postgresql.sql")
	freshFiles(t)
	t.Setenv("PGHOST", "/run/postgresql")
	t.Setenv("PGUSER", "nobody")
	t.Setenv("PGDATABASE", "postgres")
	startPostgreSQL(e)
	e.trace()
	makeConnections(t)
	want := e.stop()
	want = append(want, extremeLines(t, want)...)
	load := e.command("psql")
	for range 2 {
		writeRotated(t, want)
		e.run(load)
	}
	rows, err := exec.Command("psql", "-qXAt", "-c", query).Output()
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	compareRows(t, slices.Collect(strings.Lines(string(rows))), want, func(record map[string]any, at time.Time) map[string]any {
		if kind := record["type"]; kind != "connection" && kind != "alert" {
			return nil
		}
		return map[string]any{
			"boot_id": record["boot_id"], "seq": record["seq"], "type": record["type"], "record": record,
			"ts_ns": at.UnixNano(), "us": at.Round(time.Microsecond).Format("2006-01-02T15:04:05.000000"),
		}
	})
}

// startPostgreSQL starts a server of user nobody, because PostgreSQL refuses root.
func startPostgreSQL(e *example) {
	e.t.Helper()
	data := "/var/lib/postgresql"
	if err := os.RemoveAll(data); err != nil {
		e.t.Fatal(err)
	}
	if err := os.Mkdir(data, 0o700); err != nil {
		e.t.Fatal(err)
	}
	if err := os.Chown(data, 65534, 65534); err != nil {
		e.t.Fatal(err)
	}
	const asNobody = "setpriv --reuid=65534 --regid=65534 --clear-groups "
	e.run(asNobody + "initdb --no-sync --auth=trust --encoding=UTF8 --locale=C.UTF-8 -D " + data)
	e.start("exec " + asNobody + "postgres -c fsync=off -c listen_addresses= -k /run/postgresql -D " + data)
	e.await("PostgreSQL", func() bool {
		return exec.Command("psql", "-c", "").Run() == nil
	})
}

// compareRows compares rows of JSON with the lines that they come from. expect returns the row of a
// record and its time, nil if it has none.
func compareRows(t testing.TB, rows, lines []string, expect func(record map[string]any, at time.Time) map[string]any) {
	t.Helper()
	want := make(map[string]string) // by time and seq
	key := func(row map[string]any) string { return fmt.Sprint(row["ts_ns"], " ", row["seq"]) }
	for _, line := range lines {
		record := decode(t, line)
		at, err := time.Parse(time.RFC3339Nano, record["time"].(string))
		if err != nil {
			t.Fatal(err)
		}
		if row := expect(record, at); row != nil {
			want[key(row)] = encode(t, row)
		}
	}
	if len(rows) != len(want) {
		t.Errorf("%d rows, want %d", len(rows), len(want))
	}
	for _, row := range rows {
		got := decode(t, row)
		if text := encode(t, got); text != want[key(got)] {
			t.Fatalf("a row is\n%s\nwant\n%s", text, want[key(got)])
		}
	}
}

// decode decodes JSON without changing a digit of its numbers.
func decode(t testing.TB, text string) map[string]any {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	var object map[string]any
	if err := decoder.Decode(&object); err != nil {
		t.Fatalf("%v: %q", err, text)
	}
	return object
}

func encode(t testing.TB, object map[string]any) string {
	t.Helper()
	text, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
