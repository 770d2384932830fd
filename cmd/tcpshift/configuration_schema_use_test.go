package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v4"

	"github.com/tcpshift/tcpshift/internal/config"
)

// compiledConfigSchema returns docs/schema/config.json, ready to check documents.
func compiledConfigSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	schema, err := jsonschema.NewCompiler().Compile(configSchemaPath)
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// validateYAML checks a document by a schema, as an editor does.
func validateYAML(t *testing.T, schema *jsonschema.Schema, document string) error {
	t.Helper()
	var content any
	if err := yaml.Unmarshal([]byte(document), &content); err != nil {
		t.Fatalf("%v in\n%s", err, document)
	}
	text, err := json.Marshal(content)
	if err != nil {
		t.Fatalf("%v in\n%s", err, document)
	}
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return schema.Validate(value)
}

// configExamples are all configurations of this repository, by where they stand.
func configExamples(t *testing.T) map[string]string {
	t.Helper()
	examples := make(map[string]string)
	for _, pattern := range []string{"../../internal/config/profiles/*.yaml", "../../deploy/systemd/*.yaml", "../../deploy/kubernetes/base/config.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: no file, %v", pattern, err)
		}
		for _, file := range files {
			examples[file] = readText(t, file)
		}
	}
	const chart = "../../deploy/kubernetes/chart/values.yaml"
	var values struct{ Config string }
	if err := yaml.Unmarshal([]byte(readText(t, chart)), &values); err != nil || values.Config == "" {
		t.Fatalf("%s has no configuration: %v", chart, err)
	}
	examples[chart] = values.Config
	docs, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	inDocs := 0
	for _, file := range append(docs, "../../README.md") {
		for _, block := range regexp.MustCompile("(?s)\n```yaml\n(.*?)\n```").FindAllStringSubmatch(readText(t, file), -1) {
			// Those of Prometheus are not for tcpshift.
			if !strings.HasPrefix(block[1], "scrape_configs:") && !strings.HasPrefix(block[1], "tls_server_config:") {
				examples[file+": "+block[1]] = block[1]
				inDocs++
			}
		}
	}
	if inDocs < 2 {
		t.Errorf("the docs have %d examples of configurations, want more", inDocs)
	}
	return examples
}

func readText(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The schema accepts every configuration of this repository, and what 'config print' prints.
func TestConfigSchema_Examples(t *testing.T) {
	schema, examples := compiledConfigSchema(t), configExamples(t)
	for _, name := range config.Profiles() {
		printed := runCommand(t, "config", "print", "--profile", name)
		examples["config print --profile "+name] = printed
		_, defaults, _ := strings.Cut(printed, "\n# defaults\n")
		examples["the other keys of "+name] = strings.ReplaceAll("\n"+defaults, "\n# only: all but process\n", "\n")
	}
	keys := keysOf(traceFlags())
	for where, text := range examples {
		if strings.HasPrefix(where, "the other keys of ") {
			text = strings.ReplaceAll(text, "\n# ", "\n")
		}
		if _, err := config.Parse(where, []byte(text), keys); err != nil {
			t.Errorf("no configuration: %v", err)
		} else if err := validateYAML(t, schema, text); err != nil {
			t.Errorf("%s: %v", where, err)
		}
	}
}

func traceFlags() *pflag.FlagSet {
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	addTraceFlags(flags, new(traceOptions))
	return flags
}

// What is right for tcpshift is right for the schema, in every spelling.
func TestConfigSchema_Accepts(t *testing.T) {
	schema := compiledConfigSchema(t)
	for _, text := range []string{
		"", "# nothing\n", "port:\nonly: []\noutputs: []\nformat:\nsandbox: null\nstats-interval: ~\n",
		"port: 443\npeer-port: 8000-8999\nlocal-port: '80, 443'\nnot-port: [80, 8000-8999, '1,2']\n",
		"addr: ['::1', 10.0.0.0/8]\nnot-addr: 192.0.2.1,192.0.2.2\nfamily: 4\n", "family: '6'\n",
		"stats-interval: 0\n", "stats-interval: 1h30m\nduration: 1.5s\nsummary: 90s\n", "stats-interval: '0'\n",
		"only: alert\n", "only: alert,loss\n", "only: [alert, 'loss, stats']\n", "schema: ecs\n", "schema: otel\nfields: [process.owner]\n",
		"old-state: [ESTAB, fin-wait-1, FIN_WAIT2, 'time wait', Close_Wait, syn_received]\nnew-state: closed,LISTEN\nrole: client\n",
		"closed-by: [timeout, no_port]\nmin-duration: 5ms\nmin-bytes: 1500\nerror: [ECONNREFUSED, E2BIG, ERRNO_4000]\nsample: 1/100\n",
		"min-bytes: 1MiB\ncontainer: 123456789012\npod: [a/b, 1]\n", "comm: [true, 7, 'a,b', \"tmux: server\"]\nnot-comm: x\n", "uid: [0, root]\npid: '1,2'\nnot-pid: 3\n",
		"storm-threshold: 70%\nresets: 1\nclose-wait-age: 1m\n", "storm-threshold: 20\nresets: '7'\n",
		"sandbox: 'true'\nexclude-self: false\n", "label: [a=b, \"c1_=x y=z\\n\"]\nbuffer-size: 64KiB\n",
		"format: text\ncolor: always\n", "metrics-listen: ':9464'\nhttp-listen: 9465\nhttp-token-file: t\nmetrics-otlp: 'otlp://192.0.2.1:4317'\n",
		"outputs: a\n", "outputs: [a, '-?only=alert']\n", "outputs: {target: a}\n", "outputs: [{target: a, only: , fields: [], queue: }]\n",
		"outputs:\n- {target: /a, mode: 0640, rotate-size: 64KiB, rotate-age: 24h, rotate-keep: 3, compress: gzip, name: x, host: true}\n" +
			"- {target: '-', format: text, only: alert, queue: 1MiB, mode: }\n",
		"outputs: [{target: 'tls://h:1', ca: a, cert: b, key: c, servername: d, fields: conn, schema: native}]\n",
		"outputs: ['journald:', {target: 'otlps+http://h:1/otlp'}, 'unix:///a', ./a:b, {target: 'file:b'}, a?mode=0600]\n",
	} {
		if _, err := configure(t, "--config", configFile(t, text)); err != nil {
			t.Errorf("%q is wrong for tcpshift: %v", text, err)
		}
		if err := validateYAML(t, schema, text); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// The schema refuses an unknown key, a wrong type, and what no value of its key looks like, as tcpshift does.
func TestConfigSchema_Refuses(t *testing.T) {
	schema := compiledConfigSchema(t)
	for _, text := range []string{
		"prot: 1\n", "config: a\n", "output: a\n", "Port: 1\n", "- port\n", "port\n",
		"sandbox: [true]\n", "sandbox: 1\n", "sandbox: no\n", "sandbox: {}\n", "format: 1\n", "stats-interval: [1s]\n", "resets: true\n", "resets: 1.5\n",
		"port: {a: 1}\n", "port: [[1]]\n", "port: true\n", "only: 1\n", "only: [1]\n", "label: [1]\n", "comm: [{}]\n", "port: [1, null]\n",
		"format: json\n", "schema: ECS\n", "color: red\n", "profile: hots\n", "family: 5\n", "only: alrt\n", "only: [alert, alrt]\n", "only: [alert, 'loss,alrt']\n",
		"role: Client\n", "closed-by: [time_out]\n", "old-state: [FIN_WAIT]\n", "new-state: ESTABLISH\n", "error: refused\n",
		"stats-interval: 10\n", "duration: 5 s\n", "summary: 1d\n", "alert-interval: -10s\n", "buffer-size: 16\n", "buffer-size: 16MB\n", "queue-size: 8 MiB\n", "min-bytes: -1\n", "min-bytes: 1k\n",
		"port: 0\n", "port: 65536\n", "port: [http]\n", "port: 80;90\n", "addr: localhost\n", "pid: self\n", "pid: 0\n", "comm: sixteen-bytes-16\n",
		"sample: 100\n", "sample: 1/0\n", "sample: 50%\n", "storm-threshold: 100\n", "storm-threshold: 7%\n", "resets: 0\n", "resets: many\n", "label: [a]\n", "label: [A=b]\n",
		"metrics-listen: 9464\n", "metrics-listen: localhost\n", "http-listen: localhost\n", "metrics-otlp: 'http://h:1'\n", "spool: ''\n",
		"outputs: [{only: alert}]\n", "outputs: [{target: }]\n", "outputs: [{target: a, targt: b}]\n", "outputs: [{target: a, only: [alrt]}]\n", "outputs: [{target: [a, b]}]\n",
		"outputs: {target: a, compress: zip}\n", "outputs: {target: a, mode: 0600x}\n", "outputs: {target: a, mode: '0755'}\n", "outputs: {target: a, mode: '0440'}\n", "outputs: {target: a, rotate-keep: 0}\n",
		"outputs: {target: a, queue: 1}\n", "outputs: {target: a, host: yes}\n", "outputs: {target: a, name: 'a b'}\n", "outputs: 'ftp://a'\n", "outputs: [{target: 'ftp://a'}]\n", "outputs: [[a]]\n", "outputs: true\n",
		"outputs: {target: a, rotate-age: 1}\n", "outputs: {target: a, format: json}\n", "outputs: {target: a, tls: true}\n", "outputs: ['']\n",
	} {
		if _, err := configure(t, "--config", configFile(t, text)); err == nil && text != "outputs: true\n" { // a file of that name
			t.Errorf("%q is right for tcpshift", text)
		}
		if err := validateYAML(t, schema, text); err == nil {
			t.Errorf("%q is right for the schema", text)
		}
	}
}

// The schema has each key of a configuration and each option of an output, with a description.
func TestConfigSchema_Described(t *testing.T) {
	type object struct {
		Properties map[string]struct{ Description string }
	}
	var schema struct {
		object
		Defs struct{ Output object } `json:"$defs"`
	}
	if err := json.Unmarshal([]byte(readText(t, configSchemaPath)), &schema); err != nil {
		t.Fatal(err)
	}
	check := func(of object, names []string) {
		for _, name := range names {
			if of.Properties[name].Description == "" {
				t.Errorf("%s has no description", name)
			}
		}
		if len(of.Properties) != len(names) {
			t.Errorf("the schema has %d keys, want %d: %q", len(of.Properties), len(names), names)
		}
	}
	var names []string
	for _, k := range keysOf(traceFlags()) {
		names = append(names, k.Name)
		if k.Kind == config.Items {
			check(schema.Defs.Output, k.Members)
		}
	}
	check(schema.object, names)
}

// The configuration of the service names the schema, at the place where the packages have it.
func TestConfigSchema_Installed(t *testing.T) {
	first, _, _ := strings.Cut(readText(t, "../../deploy/systemd/config.yaml"), "\n")
	path, found := strings.CutPrefix(first, "# yaml-language-server: $schema=")
	if !found {
		t.Fatalf("deploy/systemd/config.yaml begins with %q", first)
	}
	contents := readText(t, "../../deploy/packages/nfpm.yaml")
	installs := "  - src: ${DIST}/docs/schema/*.json\n    expand: true\n    dst: " + filepath.Dir(path) + "/\n"
	if filepath.Base(path) != filepath.Base(configSchemaPath) || !strings.Contains(contents, installs) {
		t.Errorf("no package has %s", path)
	}
	if comment := "\n" + first + "\n"; !strings.Contains(readText(t, "../../docs/configuration.md"), comment) {
		t.Errorf("docs/configuration.md has no line %q", first)
	}
}
