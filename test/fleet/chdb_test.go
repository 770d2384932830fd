package fleet_test

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
)

// chdbModules has today's ClickHouse as a library for Node.js; test/check/consumers.sh fills it.
const chdbModules = "../../.cache/fleet/chdb/node_modules"

// modernStore is a process with chDB, which has the modern schema. Its methods fail the test after an error.
type modernStore struct {
	t     testing.TB
	stdin io.Writer
	out   *bufio.Reader
}

func startModernStore(t testing.TB) *modernStore {
	t.Helper()
	modules, err := filepath.Abs(chdbModules)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(modules + "/chdb"); err != nil {
		skipMissing(t, "needs chDB: make test-fleet installs it")
	}
	cmd := exec.Command("node", "chdb/ask.js")
	for _, each := range os.Environ() {
		if !strings.HasPrefix(each, "LD_LIBRARY_PATH=") { // of 18.16
			cmd.Env = append(cmd.Env, each)
		}
	}
	cmd.Env = append(cmd.Env, "NODE_PATH="+modules, "TMPDIR="+t.TempDir())
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	})
	s := &modernStore{t, stdin, bufio.NewReader(out)}
	s.run(readFile(t, filepath.Join(fleetDir, "modern.sql")))
	s.run("USE tcpshift")
	s.run("SET output_format_json_quote_64bit_integers = 0")
	return s
}

func (s *modernStore) run(statement string) { s.ask(statement, "CSV") }

func (s *modernStore) json(statement string) string { return s.ask(statement, "JSON") }

// ask runs a statement and returns its answer. An error fails the test.
func (s *modernStore) ask(statement, format string) string {
	s.t.Helper()
	answer, failure := s.try(statement, format)
	if failure != "" {
		s.t.Fatalf("chDB: %.300s: %s", statement, failure)
	}
	return answer
}

// try runs a statement and returns its answer, or why it failed.
func (s *modernStore) try(statement, format string) (answer, failure string) {
	s.t.Helper()
	if err := json.NewEncoder(s.stdin).Encode(map[string]string{"statement": statement, "format": format}); err != nil {
		s.t.Fatalf("chDB: %v", err)
	}
	line, err := s.out.ReadBytes('\n')
	if err != nil {
		s.t.Fatalf("chDB: %v", err)
	}
	var reply struct{ Answer, Error string }
	if err := json.Unmarshal(line, &reply); err != nil {
		s.t.Fatalf("chDB: %.300s: %v", statement, err)
	}
	return reply.Answer, reply.Error
}

// Today's ClickHouse accepts distributed.sql up to the name of the cluster: it knows the tables of modern.sql that the
// statements copy, and fails only because chDB has no configuration with a cluster.
func TestModern_Distributed(t *testing.T) {
	s := startModernStore(t)
	tables := 0
	for statement := range strings.SplitSeq(readFile(t, filepath.Join(fleetDir, "distributed.sql")), ";\n") {
		if strings.TrimSpace(statement) == "" {
			continue
		}
		_, failure := s.try(statement, "CSV")
		if !strings.Contains(statement, "CREATE TABLE") {
			if failure != "" {
				t.Errorf("%s: %s", statement, failure)
			}
			continue
		}
		tables++
		if !strings.Contains(failure, "Requested cluster 'tcpshift' not found") {
			t.Errorf("%s: got %q, want only that there is no cluster", statement, failure)
		}
	}
	if tables != 9 {
		t.Errorf("%d tables, want 9", tables)
	}
	if _, failure := s.try("CREATE TABLE fleet.wrong AS tcpshift.wrong ENGINE = Distributed(tcpshift, tcpshift, wrong)", "CSV"); strings.Contains(failure, "cluster") {
		t.Errorf("the test is wrong: a table that does not exist gives %q", failure)
	}
}

// checkModern loads the same lines into the modern schema, asks the same questions, and compares the answers with those
// of the cluster.
func (f *fleet) checkModern(t *testing.T, ask func(name string) []row) {
	t.Helper()
	lines := filepath.Join(t.TempDir(), "lines")
	if err := os.WriteFile(lines, []byte(strings.Join(f.lines, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	s := startModernStore(t)
	s.run("LOAD records " + lines)
	got := make(map[string][]row)
	for _, name := range f.questions() {
		got[name] = decodeRows(t, s.ask(f.question(t, name), "JSONEachRow"))
		if want := ask(name); !reflect.DeepEqual(got[name], want) {
			t.Errorf("%s: chDB answers\n%v\nand 18.16\n%v", name, got[name], want)
		}
	}
	f.checkAnswers(t, func(name string) []row { return got[name] })
}
