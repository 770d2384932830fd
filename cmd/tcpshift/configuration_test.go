package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/tcpshift/tcpshift/internal/config"
	"github.com/tcpshift/tcpshift/test/testcert"
)

// configFile writes a configuration file and returns its path.
func configFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// configure reads a command line of trace with its configuration.
func configure(t *testing.T, args ...string) (*configured, error) {
	t.Helper()
	var o traceOptions
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	addTraceFlags(flags, &o)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	c, err := o.configure()
	if err == nil {
		err = c.check()
	}
	return c, err
}

// The layers in their order: profile, file, directory, environment, command line. A list is replaced whole.
func TestConfig_Layers(t *testing.T) {
	path := configFile(t, "profile: host\nport: [1, 2]\npeer-port: 3\ncomm: [\"a,b\"]\nresets: 7\nlabel: [a=b]\n")
	directory := config.Directory(path)
	if err := os.Mkdir(directory, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(directory+"/1.yaml", []byte("peer-port: 4\nresets: 8\nhalf-closed: 9\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TCPSHIFT_RESETS", "10")
	t.Setenv("TCPSHIFT_HALF_CLOSED", "11")
	c, err := configure(t, "--config", path, "--half-closed", "12", "--label", "c=d")
	if err != nil {
		t.Fatal(err)
	}
	o := c.options
	if len(o.filter.Ports) != 2 || len(o.filter.PeerPorts) != 1 || o.filter.PeerPorts[0].First != 4 || len(o.filter.Comms) != 1 {
		t.Errorf("filters: %+v", o.filter)
	}
	if o.detection.Resets != 10 || o.detection.HalfClosed != 12 {
		t.Errorf("thresholds: %+v", o.detection)
	}
	if len(o.labels) != 1 || o.labels[0].Key != "c" {
		t.Errorf("labels: %+v", o.labels)
	}
	if len(o.outputs) != 2 || o.outputs[0].scheme != schemeJournald || o.outputs[1].rotate.size != 100<<20 || o.outputs[1].name != "connections" {
		t.Errorf("outputs: %+v", o.outputs)
	}
}

// Without --config and --profile no variable is read.
func TestConfig_NotRead(t *testing.T) {
	t.Setenv("TCPSHIFT_PORT", "wrong")
	c, err := configure(t, "--port", "1", "--port", "2,3", "--output", "-?only=alert", "--exclude-self=false")
	if err != nil {
		t.Fatal(err)
	}
	if o := c.options; len(o.filter.Ports) != 3 || len(o.outputs) != 1 || o.outputs[0].only[0] != "alert" || o.excludeSelf {
		t.Errorf("got %+v", c.options)
	}
}

// A key of an output without a value, or with an empty list, has its default, as any other key.
func TestConfig_EmptyKeysOfOutput(t *testing.T) {
	c, err := configure(t, "--config", configFile(t, "only: [alert]\noutputs:\n- target: a\n  only: []\n  fields: []\n  queue:\n"))
	if err != nil {
		t.Fatal(err)
	}
	if v := c.options.outputs[0]; len(v.only) != 1 || v.only[0] != "alert" || len(v.fields) != 0 || v.queueSize != defaultQueueSize {
		t.Errorf("the output is %+v, want the defaults", v)
	}
}

// Each mistake is one line with its place.
func TestConfig_Mistakes(t *testing.T) {
	for text, want := range map[string]string{
		"stats-interval: 10\n":                      `:1:17: stats-interval: "10" is not a duration: use one such as 500ms, 30s or 5m`,
		"sandbox: yes\n":                            `:1:10: sandbox: "yes" is neither true nor false`,
		"port: [80, 70000]\n":                       `:1:12: port: `,
		"outputs:\n- only: [alert]\n":               ":2:3: outputs: the output has no target: write one, such as 'target: /var/log/tcpshift/tcp.ndjson'",
		"outputs:\n- target: 'ftp://a'\n":           `:2:11: outputs: ftp://a: "ftp:" is not a scheme: `,
		"outputs:\n- target: a\n  only: [alrt]\n":   `:3:10: outputs: only: "alrt" is not a record type: `,
		"outputs:\n- target: a\n  ca: b\n":          `:3:7: outputs: ca: this kind of output has no such option: `,
		"outputs:\n- target: a\n  rotate-keep: 2\n": `:2:3: outputs: nothing rotates this file: add rotate-size or rotate-age`,
		"outputs: [a, a]\n":                         `:1:1: outputs: a and a are the same: use one of them`,
		"closed-by: [timeout]\nonly: [alert]\n":     `:1:1: closed-by: chooses among connection records, and no output has them: add connection to --only`,
		"profile: hots\n":                           `:1:10: profile: "hots" is not a profile: use edge, forensic, host`,
		"prot: 1\nresets: 0\n":                      `:1:1: "prot" is not a key: did you mean port?`,
		"config: a\n":                               `:1:1: "config" is not a key: `,
		"output: a\n":                               `:1:1: "output" is not a key: did you mean outputs?`,
	} {
		path := configFile(t, text)
		_, err := configure(t, "--config", path)
		if err == nil || !strings.HasPrefix(err.Error(), path+want) {
			t.Errorf("%q:\n got %v\nwant %s", text, err, path+want)
		}
		if err != nil && exitStatus(err) != statusUsage {
			t.Errorf("%q: status %d", text, exitStatus(err))
		}
	}
}

// All mistakes of a file are reported, in their order in the file, each on its own line.
func TestConfig_MistakesInOrder(t *testing.T) {
	path := configFile(t, "resets: no\noutputs:\n- target: a\n  only: [alrt]\nprot: 1\nport: 70000\nduration: 1\n")
	_, err := configure(t, "--config", path)
	var places []string
	for _, message := range messages(err) {
		place, _, _ := strings.Cut(strings.TrimPrefix(message, path+":"), ":")
		places = append(places, place)
	}
	if got := strings.Join(places, " "); got != "1 4 5 6 7" {
		t.Errorf("the mistakes stand in lines %s, want 1 4 5 6 7:\n%v", got, err)
	}
}

// 'config check' finds what a configuration names and the host does not have.
func TestConfig_CheckFiles(t *testing.T) {
	dir := t.TempDir()
	_, cert, key := testcert.Write(t, dir, "collector.test")
	token := filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte(strings.Repeat("a1", 32)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"outputs: [" + dir + "]\n":                                                                      ":1:11: outputs: " + dir + " is a directory: name a file in it",
		"recorder: 4MiB\nrecorder-dir: " + dir + "/no/r\n":                                              ":2:15: recorder-dir: the directory " + dir + "/no does not exist: create it",
		"recorder: 4MiB\nrecorder-dir: " + cert + "\n":                                                  ":2:15: recorder-dir: " + cert + " is no directory: name one, or a new one",
		"recorder: 4MiB\nrecorder-dir: " + dir + "/r\n":                                                 "",
		"outputs: ['tcp://h:1']\nspool: " + cert + "\n":                                                 ":2:8: spool: " + cert + " is no directory: name one, or a new one",
		"recording: " + dir + "/no/r\n":                                                                 ":1:12: recording: the directory " + dir + "/no does not exist: create it",
		"recording: " + dir + "/r\n":                                                                    "",
		"http-listen: 9465\nhttp-token-file: " + dir + "/no\n":                                          ":2:18: http-token-file: open " + dir + "/no: no such file or directory",
		"http-listen: 9465\nhttp-token-file: " + token + "\n":                                           "",
		"outputs:\n- " + dir + "/no/a.ndjson\n":                                                         ":2:3: outputs: the directory " + dir + "/no does not exist: create it",
		"outputs:\n- only: [alert]\n  target: " + cert + "/a\n":                                         ":3:11: outputs: " + cert + " is no directory: name a file in one",
		"outputs:\n- target: tls://h:1\n  ca: " + dir + "/ca\n":                                         ":3:7: outputs: open " + dir + "/ca: no such file or directory",
		"outputs:\n- target: tls://h:1\n  ca: " + key + "\n":                                            ":3:7: outputs: ca: " + key + " has no certificate in PEM",
		"outputs:\n- target: tls://h:1\n  cert: " + cert + "\n  key: " + cert + "\n":                    ":3:9: outputs: cert " + cert,
		"outputs: ['tls://h:1?ca=" + dir + "/ca']\n":                                                    ":1:11: outputs: open " + dir + "/ca: no such file or directory",
		"outputs: ['tcp://h:1']\nspool: " + dir + "/no/spool\n":                                         ":2:8: spool: the directory " + dir + "/no does not exist: create it",
		"metrics-listen: 127.0.0.1:9464\nmetrics-web-config: " + dir + "/web.yml\n":                     ":2:21: metrics-web-config: web configuration " + dir + "/web.yml: open",
		"outputs:\n- target: tls://h:1\n  ca: " + cert + "\n  cert: " + cert + "\n  key: " + key + "\n": "",
		"outputs: [" + dir + "/a.ndjson, '-', 'tcp://h:1']\nspool: " + dir + "/spool\n":                 "",
	} {
		path := configFile(t, text)
		c, err := configure(t, "--config", path)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		err = c.checkFiles()
		if want == "" && err != nil || want != "" && (err == nil || !strings.HasPrefix(err.Error(), path+want)) {
			t.Errorf("%q:\n got %v\nwant %s", text, err, path+want)
		}
	}
}

// Each profile is correct, and what 'config print' prints of it is a configuration with the same settings.
func TestConfig_ProfilesPrinted(t *testing.T) {
	for _, name := range config.Profiles() {
		printed := runCommand(t, "config", "print", "--profile", name)
		again := runCommand(t, "config", "print", "--config", configFile(t, printed))
		if got, want := withoutComments(again), withoutComments(printed); got != want {
			t.Errorf("%s is printed as\n%s\nand then as\n%s", name, want, got)
		}
	}
	got := runCommand(t, "config", "print", "--profile", "edge", "--port", "1", "--port", "2-3")
	for _, want := range []string{"# from --port\nport: [1, 2-3]\n", "# from profile edge:2:1\noutputs:\n", "# from --profile\nprofile: edge\n", "# buffer-size: 16MiB\n", "# owner-at-read: true\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

func withoutComments(text string) string {
	var kept []string
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") && line != "\n" {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

// runCommand runs a command that must not fail, and returns what it prints.
func runCommand(t *testing.T, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	root := newRoot(nil)
	root.SetArgs(args)
	root.SetOut(&out)
	if err := root.Execute(); err != nil {
		t.Fatalf("%s: %v", args, err)
	}
	return out.String()
}

var update = flag.Bool("update", false, "write the table of keys into docs/configuration.md, and docs/schema/config.json")

// docs/configuration.md has every key, no others, and every profile.
func TestConfig_Documented(t *testing.T) {
	const path, heading = "../../docs/configuration.md", "| key | value | default |\n"
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var o traceOptions
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	addTraceFlags(flags, &o)
	before, got, found := strings.Cut(string(b), heading)
	if !found {
		t.Fatal("docs/configuration.md has no table of keys")
	}
	got, after, _ := strings.Cut(heading+got, "\n\n")
	want := strings.TrimSuffix(heading+keyTable(keysOf(flags), flags), "\n")
	if *update {
		if after != "" {
			after = "\n" + after
		}
		if err := os.WriteFile(path, []byte(before+want+"\n"+after), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if strings.TrimSuffix(got, "\n") != want {
		t.Errorf("the table of keys in docs/configuration.md is old: run go test ./cmd/tcpshift -run TestConfig_Documented -update")
	}
	for _, name := range config.Profiles() {
		if !strings.Contains(string(b), "| `"+name+"` |") {
			t.Errorf("the profile %s is not documented", name)
		}
	}
}

// keyTable is the table of keys in docs/configuration.md.
func keyTable(keys []config.Key, flags *pflag.FlagSet) string {
	kinds := map[config.Kind]string{config.Single: "one value", config.List: "a list", config.Items: "a list of outputs"}
	var b strings.Builder
	b.WriteString("|---|---|---|\n")
	for _, k := range keys {
		f := flags.Lookup(flagOf(k.Name))
		value := defaultOf(f)
		if value == "" {
			value = "none"
		}
		b.WriteString("| `" + k.Name + "` | " + kinds[k.Kind] + ": " + strings.NewReplacer("|", `\|`, "bool", "true or false").Replace(f.Value.Type()) + " | " + value + " |\n")
	}
	return b.String()
}
