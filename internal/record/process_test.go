package record

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

func fullProcess() Process {
	return Process{moment, tcp.Process{
		PID: 4242, Comm: comm("curl"), StartedAt: 7 * time.Second, Started: moment.Add(-2 * time.Second), Exe: "/usr/bin/curl",
		Args: []string{"curl", "-H", "Authorization: [redacted]", "https://example.org/"}, Parent: 4200, UID: 1000, UIDKnown: true, User: "alice", Cgroup: named(),
	}}
}

// ownerProcess is what is known of the owner of fullV4 and of the process of fullAlert.
type ownerProcess struct {
	name    string
	process *tcp.Process
}

func ownerProcesses() (all []ownerProcess) {
	add := func(name string, change func(p *tcp.Process)) {
		p := fullProcess().Process
		p.Cgroup = nil
		change(&p)
		all = append(all, ownerProcess{name, &p})
	}
	add("all that /proc says", func(*tcp.Process) {})
	add("no arguments", func(p *tcp.Process) { p.Args = nil })
	add("another user than its socket", func(p *tcp.Process) { p.UID, p.User = 33, "www-data" })
	add("nothing but its start", func(p *tcp.Process) { *p = tcp.Process{PID: 4242, Started: p.Started} })
	add("hostile texts", func(p *tcp.Process) {
		p.Exe, p.Args, p.User = "/tmp/\x1b[2J\u202e\" (deleted)", []string{"a\nb", "", "\xff\x00c"}, "u\x9b31m"
	})
	add("texts that are cut", func(p *tcp.Process) { *p = longestProcess("x").Process })
	return all
}

// A list takes no more of the line than it may, whatever its strings are, and is cut at the end only.
func TestStrings_Bounded(t *testing.T) {
	lists := [][]string{{"ab", "cd"}, {"", ""}, {"\x01\x01", "é"}, {"\"\"", "\xff"}, {strings.Repeat("x", 20)}, slices.Repeat([]string{""}, 9)}
	for _, list := range lists {
		for room := range 30 {
			o, cut := object{}.strings("k", list, room)
			var got map[string][]string
			line := "{" + string(o.line[1:]) + "}"
			if err := json.Unmarshal([]byte(line), &got); err != nil {
				t.Fatalf("%v: %s", err, line)
			}
			const around = len(`{"k":[""]}`)
			whole := len(got["k"]) == len(list) && !strings.HasSuffix(line, `""]}`)
			if len(line)-around > room || !cut && len(got["k"]) != len(list) || cut && whole && len(line)-around+6 < room {
				t.Errorf("%q in %d bytes: %s, cut %v", list, room, line, cut)
			}
		}
	}
	if o, cut := (object{}).strings("k", nil, 9); len(o.line) > 0 || cut {
		t.Errorf("no strings: %s, cut %v", o.line, cut)
	}
}

// longestProcess has more of everything than any process.
func longestProcess(letter string) Process {
	r := fullProcess()
	r.PID, r.Parent, r.UID, r.Comm, r.User = 1<<32-1, 1<<32-1, 1<<32-1, comm(strings.Repeat("\x01", 16)), strings.Repeat("u", 64)
	r.Exe, r.Args = strings.Repeat("/"+letter, 2000), slices.Repeat([]string{letter}, 8000)
	c := longestAlert().Culprit.Cgroup
	c.Image = strings.Repeat("i", 255)
	r.Cgroup = c
	return r
}

func processCases() []goldenCase {
	edit := func(name string, change func(r *Process)) goldenCase {
		return goldenCase{name, func(e Encoder, dst []byte) []byte {
			r := fullProcess()
			change(&r)
			return e.Process(dst, &r)
		}}
	}
	cases := []goldenCase{
		edit("everything known", func(*Process) {}),
		edit("without arguments", func(r *Process) { r.Args = nil }),
		edit("only its name known", func(r *Process) { *r = Process{moment, tcp.Process{PID: 1, Comm: comm("systemd")}} }),
		edit("user 0, which is a value", func(r *Process) { r.UID, r.User = 0, "root" }),
		edit("a user without a name", func(r *Process) { r.User = "" }),
		edit("arguments that were not read whole", func(r *Process) { r.ArgsCut = true }),
		edit("hostile texts", func(r *Process) {
			r.Exe, r.Args, r.User = "/tmp/\x1b[2J\u202e\" (deleted)", []string{"a\nb", "\xff\x00c"}, "u\x9b31m"
			r.Cgroup = quadlet()
		}),
		edit("a claimed container", func(r *Process) { r.Cgroup = claimed() }),
		edit("as long as it may be", func(r *Process) { *r = longestProcess("x") }),
		edit("as long as it may be with its escapes", func(r *Process) { *r = longestProcess("\x01") }),
	}
	for _, h := range hostileComms {
		cases = append(cases, edit("a comm with "+h.name, func(r *Process) { r.Comm, r.Cgroup = comm(h.comm), nil }))
	}
	return cases
}

// A process stays within MaxLine with the longest labels, whatever bytes its texts have. What is cut is marked.
func TestProcess_LongestLine(t *testing.T) {
	for _, schema := range Schemas() {
		encoder := NewEncoder(schema, longestLabels(t))
		encoder.(OriginEncoder).AddOrigin(strings.Repeat("h", 64), "2e8ec3c7-6990-4be5-ad35-620e3c14e752")
		for _, letter := range []string{"x", "\x01", "é", "\xff"} {
			for _, nameLetter := range []string{"n", "\x01"} {
				r := longestProcess(letter)
				c := *r.Cgroup
				if schema == SchemaNative {
					c.Pod, c.Namespace, c.ContainerName = strings.Repeat(nameLetter, 253), strings.Repeat(nameLetter, 253), strings.Repeat(nameLetter, 253)
				}
				r.Cgroup = &c
				line := encoder.WithSeq(nil, encoder.Process(nil, &r), 1<<64-1)
				checkLine(t, line, schema.MaxLine())
				if !strings.Contains(string(line), `truncated":true`) {
					t.Errorf("%s: not marked: %s", schema, line)
				}
			}
		}
	}
}

// Of a path the end is kept, of a text the beginning, and no escape is cut.
func TestCut_WholeRunes(t *testing.T) {
	for _, tt := range []struct {
		text       string
		maxBytes   int
		begin, end string
	}{
		{"/a/b/c", 6, "/a/b/c", "/a/b/c"}, {"/a/b/c", 4, "/a/b", "/b/c"}, {"", 0, "", ""}, {"ab", 0, "", ""},
		{"aé", 2, "a", "é"}, {"éa", 2, "é", "a"}, {"a\x01", 6, "a", "\x01"}, {"a\x01", 5, "a", ""}, {"\xffa", 6, "\xff", "a"},
	} {
		begin, beginCut := cutEnd(tt.text, tt.maxBytes)
		end, endCut := cutBegin(tt.text, tt.maxBytes)
		if begin != tt.begin || end != tt.end || beginCut != (begin != tt.text) || endCut != (end != tt.text) {
			t.Errorf("%q to %d: %q and %q, want %q and %q", tt.text, tt.maxBytes, begin, end, tt.begin, tt.end)
		}
	}
}

// A process is a valid line whatever bytes its texts have, no key comes twice, and a terminal obeys nothing in it.
func FuzzProcess(f *testing.F) {
	labels := longestLabels(f)
	for _, h := range hostileComms {
		f.Add(h.comm, h.comm, h.comm, h.comm, uint8(7))
	}
	f.Add(strings.Repeat("/\x01", 900), strings.Repeat("é ", 600), strings.Repeat("\x01", 253), "nginx.service", uint8(15))
	f.Fuzz(func(t *testing.T, exe, args, name, unit string, known uint8) {
		r := fullProcess()
		name = name[:min(len(name), 253)]
		r.Exe, r.Args, r.User = exe, strings.Split(args, " "), name[:min(len(name), 64)]
		r.UIDKnown, r.ArgsCut = known&1 != 0, known&2 != 0
		copy(r.Comm[:], name)
		if r.Cgroup = nil; known&4 != 0 {
			r.Cgroup = &tcp.Cgroup{Path: exe, Unit: unit, Pod: name, Namespace: name, ContainerName: name, Image: name}
		}
		if known&8 != 0 {
			r.Cgroup, r.Started = named(), time.Time{}
		}
		checkText(t, Text{}.Process(nil, &r), 1)
		for _, e := range []Encoder{NewNative(nil), NewNative(labels)} {
			line := e.WithSeq(nil, e.Process(nil, &r), 1<<64-1)
			checkLine(t, line, MaxLine)
			keysOf(t, line)
		}
		for _, e := range []Encoder{NewECS(labels), NewOTel(labels)} {
			line := e.WithSeq(nil, e.Process(nil, &r), 1<<64-1)
			if keys := keysOf(t, line); keys[0] == "timestamp" {
				keysOf(t, memberOf(t, line, "attributes"))
			}
		}
	})
}

// longestOwner takes the most room of a line.
func longestOwner() *tcp.Process {
	p := longestProcess("\x01").Process
	p.User = strings.Repeat("\x01", 64)
	return &p
}
