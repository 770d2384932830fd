package fleet_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// serverConfig is the configuration of a server without its shards: these are in config.d, as cluster.xml is.
const serverConfig = `<yandex>
<listen_host>127.0.0.1</listen_host><tcp_port>%d</tcp_port>
<path>%s/</path><tmp_path>%s/tmp/</tmp_path>
<mark_cache_size>536870912</mark_cache_size><users_config>users.xml</users_config>
<default_profile>default</default_profile><default_database>default</default_database>
<logger><level>warning</level><console>1</console></logger>
</yandex>
`

// serverUsers is the configuration of the one user, which may connect without a password over loopback.
const serverUsers = `<yandex>
<profiles><default></default></profiles><quotas><default></default></quotas>
<users><default><password></password><networks><ip>127.0.0.1</ip></networks>
<profile>default</profile><quota>default</quota></default></users>
</yandex>
`

// firstPort is the port of the first server; the second one has the next.
const firstPort = 9001

// cluster has real ClickHouse servers in a network namespace of their own.
type cluster struct {
	t testing.TB
	n *tcplab.Netns
}

// startCluster starts so many servers without tables, each with the shards of cluster.xml.
func startCluster(t testing.TB, servers int) *cluster {
	t.Helper()
	tcplab.RequireRoot(t)
	if _, err := exec.LookPath("clickhouse-server"); err != nil {
		skipMissing(t, "needs clickhouse-server of Debian 12: make test-fleet unpacks it")
	}
	c := &cluster{t: t, n: tcplab.NewNetns(t)}
	shards := readFile(t, filepath.Join(fleetDir, "cluster.xml"))
	for i := range 2 {
		named := fmt.Sprintf("<host>clickhouse-%d</host><port>9000</port>", i+1)
		if !strings.Contains(shards, named) {
			t.Fatalf("cluster.xml does not have %s", named)
		}
		shards = strings.Replace(shards, named, fmt.Sprintf("<host>127.0.0.1</host><port>%d</port>", firstPort+i), 1)
	}
	for i := range servers {
		c.startServer(firstPort+i, shards)
	}
	for i := range servers {
		await(t, "answer of ClickHouse", func() bool { return c.client(i, "--query=SELECT 1").Run() == nil })
	}
	return c
}

func (c *cluster) startServer(port int, shards string) {
	c.t.Helper()
	dir := c.t.TempDir()
	if err := os.MkdirAll(dir+"/config.d", 0o700); err != nil {
		c.t.Fatal(err)
	}
	if err := os.MkdirAll(dir+"/data/tmp", 0o700); err != nil {
		c.t.Fatal(err)
	}
	data := dir + "/data"
	for name, text := range map[string]string{
		"config.xml": fmt.Sprintf(serverConfig, port, data, data), "users.xml": serverUsers, "config.d/tcpshift.xml": shards,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			c.t.Fatal(err)
		}
	}
	cmd := exec.Command("clickhouse-server", "--config-file="+dir+"/config.xml")
	cmd.Dir = dir
	startIn(c.t, c.n, cmd)
}

// client returns a command of clickhouse-client that connects to one of the servers.
func (c *cluster) client(server int, args ...string) *clientCommand {
	args = append([]string{"--host=127.0.0.1", fmt.Sprintf("--port=%d", firstPort+server)}, args...)
	return &clientCommand{c, exec.Command("clickhouse-client", args...)}
}

type clientCommand struct {
	c   *cluster
	cmd *exec.Cmd
}

// Run runs the command in the namespace of the servers. The error has what the command wrote on standard error.
func (c *clientCommand) Run() error {
	_, err := c.output()
	return err
}

func (c *clientCommand) output() (string, error) {
	var out, message bytes.Buffer
	c.cmd.Stdout, c.cmd.Stderr = &out, &message
	var err error
	c.c.n.Do(func() { err = c.cmd.Start() })
	if err == nil {
		err = c.cmd.Wait()
	}
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, message.String())
	}
	return out.String(), nil
}

// execute runs the statements of a file of deploy/fleet on one server.
func (c *cluster) execute(server int, file string) {
	c.t.Helper()
	cmd := c.client(server, "-n")
	cmd.cmd.Stdin = strings.NewReader(readFile(c.t, filepath.Join(fleetDir, file)))
	if err := cmd.Run(); err != nil {
		c.t.Fatalf("%s: %v", file, err)
	}
}

// row is a row of an answer, by column. Values are decoded from JSON, numbers as json.Number.
type row map[string]any

// query runs a query on one server and returns the rows.
func (c *cluster) query(server int, database, query string) []row {
	c.t.Helper()
	cmd := c.client(server, "--database="+database, "--output_format_json_quote_64bit_integers=0", "--format=JSONEachRow", "--query="+query)
	out, err := cmd.output()
	if err != nil {
		c.t.Fatalf("%s\n%v", query, err)
	}
	return decodeRows(c.t, out)
}

func decodeRows(t testing.TB, text string) (rows []row) {
	t.Helper()
	for line := range strings.Lines(text) {
		decoder := json.NewDecoder(strings.NewReader(line))
		decoder.UseNumber()
		var r row
		if err := decoder.Decode(&r); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		rows = append(rows, r)
	}
	return rows
}

// question returns the query in the file NAME.sql of deploy/fleet/queries.
func question(t testing.TB, name string) string {
	t.Helper()
	return readFile(t, filepath.Join(fleetDir, "queries", name+".sql"))
}

// load loads what a host has written into one server, with load.sh.
func (c *cluster) load(h *simulated, server int, database string) {
	c.t.Helper()
	script, err := filepath.Abs(filepath.Join(fleetDir, "load.sh"))
	if err != nil {
		c.t.Fatal(err)
	}
	cmd := h.inOwnMounts(script, "/var/log/tcpshift.ndjson", "--database="+database, "--host=127.0.0.1", fmt.Sprintf("--port=%d", firstPort+server))
	startIn(c.t, c.n, cmd)
	if err := cmd.Wait(); err != nil {
		c.t.Fatalf("load the records of %s: %v", h.name, err)
	}
	if left := h.lines(); len(left) > 0 {
		c.t.Fatalf("load.sh has left %d lines of %s", len(left), h.name)
	}
}
