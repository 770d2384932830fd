package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

var testKeys = []Key{
	{Name: "port", Kind: List}, {Name: "peer-port", Kind: List}, {Name: "stats-interval"}, {Name: "sandbox"},
	{Name: "profile"}, {Name: "outputs", Kind: Items, Members: []string{"target", "only", "host"}},
}

func parse(t *testing.T, text string) Layer {
	t.Helper()
	layer, err := Parse("c.yaml", []byte(text), testKeys)
	if err != nil {
		t.Fatal(err)
	}
	return layer
}

func at(line, column int) Origin { return Origin{"c.yaml", line, column} }

// Parse keeps the text of each value as it was written, and its place.
func TestParse_EveryKind(t *testing.T) {
	got := parse(t, `# a comment
stats-interval: 010
port: [443, "8000-8999"]
peer-port: 0x50
sandbox:
outputs:
  - target: "journald:"
    only: [alert, loss]
    host: true
  - /var/log/a?only=alert
`)
	want := Layer{
		{at(2, 1), "stats-interval", []Value{{Origin: at(2, 17), Text: "010"}}},
		{at(3, 1), "port", []Value{{Origin: at(3, 8), Text: "443"}, {Origin: at(3, 13), Text: "8000-8999"}}},
		{at(4, 1), "peer-port", []Value{{Origin: at(4, 12), Text: "0x50"}}},
		{at(5, 1), "sandbox", nil},
		{at(6, 1), "outputs", []Value{
			{Origin: at(7, 5), Members: []Member{
				{at(7, 5), "target", []Value{{Origin: at(7, 13), Text: "journald:"}}},
				{at(8, 5), "only", []Value{{Origin: at(8, 12), Text: "alert"}, {Origin: at(8, 19), Text: "loss"}}},
				{at(9, 5), "host", []Value{{Origin: at(9, 11), Text: "true"}}},
			}},
			{Origin: at(10, 5), Text: "/var/log/a?only=alert"},
		}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	for _, empty := range []string{"", "# nothing\n", "---\n", "null\n"} {
		if layer := parse(t, empty); len(layer) != 0 {
			t.Errorf("%q: got %v", empty, layer)
		}
	}
}

// Each mistake is named with its line and column, and the nearest name.
func TestParse_Mistakes(t *testing.T) {
	for text, want := range map[string]string{
		"prot: 1\n":                                  `c.yaml:1:1: "prot" is not a key: did you mean port?`,
		"\nStats_Interval: 1s\n":                     `c.yaml:2:1: "Stats_Interval" is not a key: did you mean stats-interval?`,
		"output: a\n":                                `c.yaml:1:1: "output" is not a key: did you mean outputs?`,
		"zzz: 1\n":                                   `c.yaml:1:1: "zzz" is not a key: ` + hint,
		"port: 1\nport: 2\n":                         "c.yaml:2:1: port: is there twice: it is also in line 1",
		"sandbox: [true]\n":                          "c.yaml:1:10: sandbox: has one value here, not a list",
		"port: [[1]]\n":                              "c.yaml:1:8: port: has one value here, not a list",
		"port: {a: 1}\n":                             "c.yaml:1:7: port: is not a mapping: write a value",
		"port: [1, ]\nsandbox: &a true\n":            "c.yaml:2:10: sandbox: anchors and aliases are not supported: write the value",
		"port: [1, null]\n":                          "c.yaml:1:11: port: an empty value in a list: leave it out",
		"port: !!str 1\n":                            "c.yaml:1:7: port: tags such as !!str are not supported: write the value",
		"outputs: [{targt: a}]\n":                    `c.yaml:1:12: outputs: "targt" is not one of its keys: did you mean target?`,
		"outputs:\n- only: [a]\n  only: [b]\n":       "c.yaml:3:3: outputs: only: is there twice: write it once",
		"- port\n":                                   "c.yaml:1:1: the file is no mapping: write KEY: VALUE",
		"port: 1\n---\nport: 2\n":                    "c.yaml:2:1: a second document begins here: use one",
		"prot: 1\nsandbox: {}\nport: [2]\nzort: 3\n": "c.yaml:1:1: \"prot\" is not a key: did you mean port?\nc.yaml:2:10: sandbox: is not a mapping: write a value\nc.yaml:4:1: \"zort\" is not a key: did you mean port?",
	} {
		if _, err := Parse("c.yaml", []byte(text), testKeys); err == nil || err.Error() != want {
			t.Errorf("%q:\n got %v\nwant %s", text, err, want)
		}
	}
	for text, place := range map[string]string{"port: [1\n": "c.yaml:2:1: ", "a: b: c\n": "c.yaml:1:5: ", "\tport: 1\n": "c.yaml:1:1: ", "port: \"\x00\"\n": "c.yaml:"} {
		if _, err := Parse("c.yaml", []byte(text), testKeys); err == nil || !strings.HasPrefix(err.Error(), place) {
			t.Errorf("%q: got %v, want it at %s", text, err, place)
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// A later layer replaces the list of an earlier one whole; the files of the directory come in the order of their
// names, behind the main file. Other files are not read.
func TestFiles_Order(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "config.yaml")
	write(t, path, "port: [1, 2]\npeer-port: 5\nsandbox: true\n")
	write(t, dir+"/config.d/20.yaml", "port: [4]\n")
	write(t, dir+"/config.d/10.yaml", "port: [3, 7]\nsandbox:\n")
	write(t, dir+"/config.d/30.yaml.dpkg-old", "port: [9]\n")
	write(t, dir+"/config.d/.30.yaml", "port: [9]\n")
	layers, err := Files(path, testKeys)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range Merge(layers...) {
		texts := []string{s.Key, strings.TrimPrefix(s.Origin.String(), dir+"/")}
		for _, v := range s.Values {
			texts = append(texts, v.Text)
		}
		got = append(got, strings.Join(texts, " "))
	}
	want := []string{"port config.d/20.yaml:1:1 4", "peer-port config.yaml:2:1 5", "sandbox config.d/10.yaml:2:1"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Files refuses a file that another user may change, one that is missing, and a name that would be overlooked.
func TestFiles_Refused(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.yaml")
	if _, err := Files(path, testKeys); err == nil || err.Error() != "open "+path+": no such file or directory" {
		t.Errorf("no file: %v", err)
	}
	write(t, path, "port: 1\n")
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	want := path + " may be changed by other users (mode 0666): only root, or the user that runs tcpshift, may be able to change it"
	if _, err := Files(path, testKeys); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	write(t, dir+"/a.d/b.yml", "port: 1\n")
	want = dir + "/a.d/b.yml: only files *.yaml are read: rename it"
	if _, err := Files(path, testKeys); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// Each variable is a setting; its lines are values. Other variables are ignored, unless they have the prefix.
func TestEnvironment_Values(t *testing.T) {
	got, err := Environment([]string{"PATH=/bin", "TCPSHIFT_PORT=443\n80,81", "TCPSHIFT_SANDBOX=", "TCPSHIFT_STATS_INTERVAL=1s"}, testKeys)
	if err != nil {
		t.Fatal(err)
	}
	port, interval := Origin{Source: "TCPSHIFT_PORT"}, Origin{Source: "TCPSHIFT_STATS_INTERVAL"}
	want := Layer{
		{port, "port", []Value{{Origin: port, Text: "443"}, {Origin: port, Text: "80,81"}}},
		{Origin{Source: "TCPSHIFT_SANDBOX"}, "sandbox", nil},
		{interval, "stats-interval", []Value{{Origin: interval, Text: "1s"}}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	_, err = Environment([]string{"TCPSHIFT_PROT=1", "TCPSHIFT_SANDBOX=a\nb"}, testKeys)
	const problems = "TCPSHIFT_PROT: \"TCPSHIFT_PROT\" is not the variable of a key: did you mean TCPSHIFT_PORT?\nTCPSHIFT_SANDBOX: has 2 lines: use one value"
	if err == nil || err.Error() != problems {
		t.Errorf("got %v, want %s", err, problems)
	}
}

// What Format writes has the same values when it is read, whatever is in them.
func TestFormat_ReadsBack(t *testing.T) {
	layer := parse(t, `
port: ["null", "", "~", "a: b", "- c", "#d", "\t\u202e", "1e3", "true", "'", "*x"]
stats-interval: "10s # no comment"
sandbox:
outputs:
  - {target: "journald:", only: [alert, loss], host: true}
  - a?b=c
`)
	text, err := Format(layer, testKeys)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "# from c.yaml:2:1\nport: [") {
		t.Errorf("no origin in\n%s", text)
	}
	again, err := Parse("again", text, testKeys)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if got, want := withoutOrigins(again), withoutOrigins(layer); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v\nfrom\n%s", got, want, text)
	}
}

func withoutOrigins(layer Layer) (plain Layer) {
	for _, s := range layer {
		var values []Value
		for _, v := range s.Values {
			var members []Member
			for _, m := range v.Members {
				var of []Value
				for _, each := range m.Values {
					of = append(of, Value{Text: each.Text})
				}
				members = append(members, Member{Name: m.Name, Values: of})
			}
			values = append(values, Value{Text: v.Text, Members: members})
		}
		plain = append(plain, Setting{Key: s.Key, Values: values})
	}
	return plain
}
