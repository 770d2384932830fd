package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// field is one field of an entry, as a reader of the protocol finds it.
type field struct{ name, value string }

// read parses an entry as journald does (server_process_native_message in src/journal/journald-native.c): a
// name and a value with '=' between them up to the end of the line, or a name alone on its line, the length of
// the value in 64 bits, the value, and a newline.
func read(t testing.TB, b []byte) (all []field) {
	t.Helper()
	for len(b) > 0 {
		line, rest, found := bytes.Cut(b, []byte("\n"))
		if !found {
			t.Fatalf("no end of line in %q", b)
		}
		if name, value, simple := bytes.Cut(line, []byte("=")); simple {
			all, b = append(all, field{string(name), string(value)}), rest
			continue
		}
		if len(rest) < 8 {
			t.Fatalf("no length behind %q", line)
		}
		size := binary.LittleEndian.Uint64(rest)
		rest = rest[8:]
		if uint64(len(rest)) <= size || rest[size] != '\n' {
			t.Fatalf("the value of %q has %d bytes and no newline behind it", line, size)
		}
		all, b = append(all, field{string(line), string(rest[:size])}), rest[size+1:]
	}
	return all
}

func entryOf(t testing.TB, line string) []field {
	t.Helper()
	b, err := AppendEntry(nil, []byte(line))
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return read(t, b)
}

// An entry has a message, a priority, an identifier, and each member of the record in its order.
func TestEntry_Fields(t *testing.T) {
	got := entryOf(t, `{"type":"transition","time":"2026-11-22T12:23:23.972490505Z","seq":14,"conn":"2b8b90","local_addr":"127.0.0.1","local_port":51592,"peer_addr":"::1","peer_port":8443,"old_state":"SYN_SENT","new_state":"ESTABLISHED","pid":15720,"comm":"curl","partial":true}`+"\n")
	want := []field{
		{"MESSAGE", "SYN_SENT -> ESTABLISHED 127.0.0.1:51592 [::1]:8443 curl[15720]"},
		{"PRIORITY", "6"}, {"SYSLOG_IDENTIFIER", "tcpshift"},
		{"TCPSHIFT_TYPE", "transition"}, {"TCPSHIFT_TIME", "2026-11-22T12:23:23.972490505Z"}, {"TCPSHIFT_SEQ", "14"},
		{"TCPSHIFT_CONN", "2b8b90"}, {"TCPSHIFT_LOCAL_ADDR", "127.0.0.1"}, {"TCPSHIFT_LOCAL_PORT", "51592"},
		{"TCPSHIFT_PEER_ADDR", "::1"}, {"TCPSHIFT_PEER_PORT", "8443"}, {"TCPSHIFT_OLD_STATE", "SYN_SENT"},
		{"TCPSHIFT_NEW_STATE", "ESTABLISHED"}, {"TCPSHIFT_PID", "15720"}, {"TCPSHIFT_COMM", "curl"}, {"TCPSHIFT_PARTIAL", "true"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("the entry is\n%v, want\n%v", got, want)
	}
}

// The message of a connection that lives differs from that of its end.
func TestEntry_ConnectionPhases(t *testing.T) {
	for line, want := range map[string]string{
		`{"type":"connection","phase":"update","local_addr":"127.0.0.1","local_port":1,"pid":2,"comm":"c","state":"CLOSE_WAIT"}`:                       "connection lives in CLOSE_WAIT 127.0.0.1:1 c[2]",
		`{"type":"connection","phase":"end","local_addr":"127.0.0.1","local_port":1,"pid":2,"comm":"c","final_state":"TIME_WAIT","closed_by":"local"}`: "connection ended in TIME_WAIT 127.0.0.1:1 c[2] local",
	} {
		if got := entryOf(t, line)[0].value; got != want {
			t.Errorf("the message is %q, want %q", got, want)
		}
	}
}

// No name that a process gives itself makes another field of its own.
func TestEntry_HostileNames(t *testing.T) {
	for _, comm := range []string{`a\nPRIORITY=0`, `a\n_UID=0\n`, `\u0000\u0007=`, `\ud800`, `"\\`, `=`} {
		comm = strings.ReplaceAll(comm, `"\\`, `\"\\`)
		got := entryOf(t, `{"type":"transition","comm":"`+comm+`","pid":1}`)
		var names []string
		for _, f := range got {
			names = append(names, f.name)
		}
		want := []string{"MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "TCPSHIFT_TYPE", "TCPSHIFT_COMM", "TCPSHIFT_PID"}
		if !slices.Equal(names, want) || got[1].value != "6" {
			t.Errorf("%s: the fields are %q, want %q", comm, got, want)
		}
	}
}

// No name shows as what it is not: neither in the message nor in a field has an entry what rules a
// terminal, a second line, or a character that does not show.
func TestEntry_InvisibleCharacters(t *testing.T) {
	for text, want := range map[string]string{
		`\u001b[2J`:         `\x1b[2J`,
		`a\nalert open: b`:  `a\x0aalert open: b`,
		`\r\u0007\u007f`:    `\x0d\x07\x7f`,
		`ab\u202edc\u200b`:  `ab\u202edc\u200b`,
		`\\x1b`:             `\\x1b`,
		`b\u00e4r \u4e2d`:   `bär 中`,
		"\xe2\x80\xaeplain": `\u202eplain`,
	} {
		got := entryOf(t, `{"type":"alert","phase":"open","kind":"k","cause":"`+text+`","service":"`+text+`"}`)
		if message := "alert open: k: " + want; got[0].value != message {
			t.Errorf("%s: the message is %q, want %q", text, got[0].value, message)
		}
		if last := got[len(got)-1]; last != (field{"TCPSHIFT_SERVICE", want}) {
			t.Errorf("%s: the field is %q, want %q", text, last, want)
		}
	}
}

// The priorities are those of the docs.
func TestEntry_Priorities(t *testing.T) {
	for line, want := range map[string]string{
		`{"type":"alert","phase":"open","severity":"critical"}`:  "2",
		`{"type":"alert","phase":"open","severity":"warning"}`:   "4",
		`{"type":"alert","phase":"close","severity":"critical"}`: "5",
		`{"type":"loss"}`: "4", `{"type":"start"}`: "5", `{"type":"stop"}`: "5", `{"type":"reload"}`: "5", `{"type":"connection"}`: "6", `{"type":"future"}`: "6",
	} {
		if got := entryOf(t, line)[1]; got != (field{"PRIORITY", want}) {
			t.Errorf("%s: %v, want %s", line, got, want)
		}
	}
}

// Every golden record makes an entry with a message and a field for each key, whose name journald accepts.
func TestEntry_GoldenRecords(t *testing.T) {
	files, err := filepath.Glob("../record/testdata/*.ndjson")
	if err != nil || len(files) < 8 {
		t.Fatalf("%d golden files, %v", len(files), err)
	}
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(b) {
			if !bytes.HasPrefix(line, []byte("{")) {
				continue
			}
			members, err := parse(line)
			if err != nil {
				t.Fatal(err)
			}
			fields := entryOf(t, string(line))
			if len(fields) != len(members)+3 || fields[0].value == "" {
				t.Errorf("%d fields, want %d: %s", len(fields), len(members)+3, line)
			}
			for _, f := range fields {
				if len(f.name) > 64 || strings.Trim(f.name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != "" || f.name[0] == '_' {
					t.Errorf("journald refuses the name %q", f.name)
				}
			}
		}
	}
}

// A line that is no object is refused, and dst stays as it was.
func TestEntry_NoObject(t *testing.T) {
	for _, line := range []string{"", "\n", "[]", `{"a"`, `{"a":1`, `{"a":"\x"}`, "text", "\x00\x00"} {
		if got, err := AppendEntry([]byte("before"), []byte(line)); !errors.Is(err, errNotObject) || string(got) != "before" {
			t.Errorf("%q: %q, %v", line, got, err)
		}
	}
}

func FuzzEntry(f *testing.F) {
	f.Add([]byte(`{"type":"transition","comm":"a\nb","features":{"a":true},"list":[1]}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		b, err := AppendEntry(nil, line)
		if err == nil && len(read(t, b)) < 3 {
			t.Errorf("%q has too few fields", line)
		}
	})
}
