package fleet_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// chdbModules has today's ClickHouse as a library for Node.js; test/check/consumers.sh fills it.
const chdbModules = "../../.cache/fleet/chdb/node_modules"

// modern runs statements in chDB and returns their answers. LOAD TABLE FILE loads lines.
func modern(t *testing.T, statements []string) []string {
	t.Helper()
	modules, err := filepath.Abs(chdbModules)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(modules + "/chdb"); err != nil {
		skipMissing(t, "needs chDB: make test-fleet installs it")
	}
	input, err := json.Marshal(statements)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("node", "chdb/ask.js")
	for _, each := range os.Environ() {
		if !strings.HasPrefix(each, "LD_LIBRARY_PATH=") { // of 18.16
			cmd.Env = append(cmd.Env, each)
		}
	}
	cmd.Env = append(cmd.Env, "NODE_PATH="+modules)
	cmd.Stdin = bytes.NewReader(input)
	var message bytes.Buffer
	cmd.Stderr = &message
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("chDB: %v\n%s", err, message.String())
	}
	var answers []string
	for line := range strings.Lines(string(out)) {
		var answer string
		if err := json.Unmarshal([]byte(line), &answer); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		answers = append(answers, answer)
	}
	if len(answers) != len(statements) {
		t.Fatalf("chDB gave %d answers, want %d", len(answers), len(statements))
	}
	return answers
}

// checkModern loads the same lines into the modern schema, asks the same questions, and compares the answers with those
// of the cluster.
func (f *fleet) checkModern(t *testing.T, ask func(name string) []row) {
	t.Helper()
	lines := filepath.Join(t.TempDir(), "lines")
	if err := os.WriteFile(lines, []byte(strings.Join(f.lines, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	statements := []string{
		readFile(t, filepath.Join(fleetDir, "modern.sql")),
		"USE tcpshift",
		"SET output_format_json_quote_64bit_integers = 0",
		"LOAD records " + lines,
	}
	first := len(statements)
	names := f.questions()
	for _, name := range names {
		statements = append(statements, f.question(t, name))
	}
	answers := modern(t, statements)
	got := make(map[string][]row)
	for i, name := range names {
		got[name] = decodeRows(t, answers[first+i])
		if want := ask(name); !reflect.DeepEqual(got[name], want) {
			t.Errorf("%s: chDB answers\n%v\nand 18.16\n%v", name, got[name], want)
		}
	}
	f.checkAnswers(t, func(name string) []row { return got[name] })
}
