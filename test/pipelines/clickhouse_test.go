package pipelines_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// clickhouseConfig binds the server to 127.0.0.1.
const clickhouseConfig = `<yandex>
<listen_host>127.0.0.1</listen_host><tcp_port>9000</tcp_port><http_port>8123</http_port>
<path>/var/lib/clickhouse/</path><tmp_path>/var/lib/clickhouse/tmp/</tmp_path>
<mark_cache_size>5368709120</mark_cache_size><users_config>users.xml</users_config>
<default_profile>default</default_profile><default_database>default</default_database>
<logger><level>warning</level><console>1</console></logger>
</yandex>
`

// clickhouseUsers is the user of the client.
const clickhouseUsers = `<yandex>
<profiles><default></default></profiles><quotas><default></default></quotas>
<users><default><password></password><networks><ip>127.0.0.1</ip></networks>
<profile>default</profile><quota>default</quota></default></users>
</yandex>
`

// clickhouseQuery returns the rows with exact numbers.
const clickhouseQuery = `SELECT *, ts_ns, toString(day) AS day FROM tcpshift FORMAT JSONEachRow`

// ClickHouse has each key of each connection in a column, NULL where it is absent, and nanoseconds.
func TestClickHouse_Load(t *testing.T) {
	needs(t, "clickhouse-server", "clickhouse-client")
	e := openExample(t, "clickhouse.sql")
	freshFiles(t)
	startClickHouse(e)
	e.run(e.command("clickhouse-client -n"))
	e.trace()
	makeConnections(t)
	want := e.stop()
	want = append(want, extremeLines(t, want)...)
	writeRotated(t, want)
	e.run(e.command("JSONEachRow"))
	out, err := exec.Command("clickhouse-client", "--output_format_json_quote_64bit_integers=0", "--query="+clickhouseQuery).Output()
	if err != nil {
		t.Fatalf("%s: %v", clickhouseQuery, err)
	}
	var rows []string
	for row := range strings.Lines(string(out)) {
		record := decode(t, row)
		for key, value := range record {
			if value == nil {
				delete(record, key)
			}
		}
		rows = append(rows, encode(t, record))
	}
	compareRows(t, rows, want, func(record map[string]any, at time.Time) map[string]any {
		if record["type"] != "connection" {
			return nil
		}
		for key, value := range record {
			if value == true {
				record[key] = 1
			}
		}
		record["ts_ns"], record["day"] = at.UnixNano(), at.Format(time.DateOnly)
		return record
	})
}

func startClickHouse(e *example) {
	e.t.Helper()
	dir := "/var/lib/clickhouse"
	if err := os.RemoveAll(dir); err != nil {
		e.t.Fatal(err)
	}
	if err := os.MkdirAll(dir+"/tmp", 0o700); err != nil {
		e.t.Fatal(err)
	}
	for name, text := range map[string]string{"config.xml": clickhouseConfig, "users.xml": clickhouseUsers} {
		if err := os.WriteFile(e.dir+"/"+name, []byte(text), 0o600); err != nil {
			e.t.Fatal(err)
		}
	}
	e.start("exec clickhouse-server --config-file=" + e.dir + "/config.xml")
	e.await("ClickHouse", func() bool { return exec.Command("clickhouse-client", "--query=SELECT 1").Run() == nil })
}
