package cli_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// recorded is a recording of real connections: as records, and as the inputs of detection.
type recorded struct {
	records, inputs string // paths
	lines           []byte // of records
	whole           []transition
}

// record makes the traffic once beside a tracer without filters, whose run it records, and one for each case.
func (s *traffic) record(cases ...filterCase) (of recorded, filtered []stream) {
	s.t.Helper()
	dir := s.t.TempDir()
	of = recorded{records: filepath.Join(dir, "records"), inputs: filepath.Join(dir, "inputs")}
	all := s.streams(append(s.byNetns(), "--recording", of.inputs), s.inside(cases)...)
	of.lines, of.whole = []byte(all[0].result.stdout), s.transitions(all[0])
	if err := os.WriteFile(of.records, of.lines, 0o600); err != nil {
		s.t.Fatal(err)
	}
	return of, all[1:]
}

// replayed replays a file, and returns the stream.
func replayed(t testing.TB, args ...string) stream {
	t.Helper()
	r := run(append(flags("replay"), args...))
	r.mustEnd(t, 0)
	r.mustPrintError(t, "")
	return parseStream(t, r)
}

var (
	seqMember = regexp.MustCompile(`"seq":\d+,`)
	// timeMembers are what two tracers measure themselves.
	timeMembers = regexp.MustCompile(`,"(time|opened)":"[^"]*"|,"(in_state|duration|established)_ns":\d+`)
	// lateMembers are what the inputs of detection do not have.
	lateMembers = regexp.MustCompile(`,"reset_reason":"[^"]*"`)
)

// linesOf returns the records of some types, without their numbers and what matches without. Those of one socket are
// together: between sockets there is no order.
func (s stream) linesOf(types []string, without ...*regexp.Regexp) string {
	var of []record
	for _, r := range s.records {
		if slices.Contains(types, r.Type) {
			of = append(of, r)
		}
	}
	slices.SortStableFunc(of, func(a, b record) int { return strings.Compare(a.Conn, b.Conn) })
	var all strings.Builder
	for _, r := range of {
		line := seqMember.ReplaceAllString(r.line, "")
		for _, w := range without {
			line = w.ReplaceAllString(line, "")
		}
		all.WriteString(line)
	}
	return all.String()
}

// mustReplay checks that a replay with a filter has what the stream of a tracer with this filter has, and that each of its
// records is one of the recording.
func (of recorded) mustReplay(t *testing.T, args []string, want stream) {
	t.Helper()
	whole := string(seqMember.ReplaceAll(of.lines, nil))
	for _, c := range []struct {
		file    string
		types   []string
		without []*regexp.Regexp
	}{
		{of.records, flags("transition", "connection"), []*regexp.Regexp{timeMembers}},
		{of.inputs, flags("transition"), []*regexp.Regexp{timeMembers, lateMembers}},
	} {
		got := replayed(t, slices.Concat(flags("--only", strings.Join(c.types, ",")), args, flags(c.file))...)
		if g, w := got.linesOf(c.types, c.without...), want.linesOf(c.types, c.without...); g != w {
			t.Errorf("the replay of the %s has\n%s\nwant, as the tracer with this filter has it:\n%s", filepath.Base(c.file), g, w)
		}
		if g, w := got.last(), want.last(); g.Seen-g.Filtered != w.Seen-w.Filtered || g.Filtered > w.Filtered {
			t.Errorf("the replay of the %s counts %d seen, %d filtered, the tracer %d, %d", filepath.Base(c.file), g.Seen, g.Filtered, w.Seen, w.Filtered)
		}
		for _, r := range got.records {
			if line := seqMember.ReplaceAllString(r.line, ""); c.file == of.records && slices.Contains(c.types, r.Type) && !strings.Contains(whole, line) {
				t.Errorf("the recording does not have\n%s", r.line)
			}
		}
	}
}

// A filter on a namespace takes the number that the records have.
func TestReplay_FilterNetns(t *testing.T) {
	s := newTraffic(t)
	of, _ := s.record()
	netns := fmt.Sprint(s.n.Inode())
	for _, flag := range []string{"--netns", "--not-netns"} {
		t.Run(flag, func(t *testing.T) {
			got := replayed(t, "--only", "transition,connection", flag, netns, of.records)
			for _, r := range got.records[1 : len(got.records)-1] {
				if (r.Netns == s.n.Inode()) != (flag == "--netns") {
					t.Errorf("%s passes\n%s", flag, r.line)
				}
			}
			if len(got.records) < 4 {
				t.Errorf("it passes nothing: this proves nothing\n%v", got.result)
			}
		})
	}
}

// A filter on names compares their bytes. The inputs of detection have any name; records do not show what is not UTF-8.
func TestReplay_FilterOfHostileNames(t *testing.T) {
	for _, comm := range []string{"a,b", "a\nb\x1b\"\\", "a\nb\x80\x1b", "a\ufffdb"} {
		s := newTrafficWith(t, comm)
		of, filtered := s.record(filterCase{args: flags("--comm", comm)})
		if utf8.ValidString(comm) && !strings.ContainsRune(comm, utf8.RuneError) {
			of.mustReplay(t, flags("--comm", comm), filtered[0])
			continue
		}
		got := replayed(t, "--only", "transition", "--comm", comm, of.inputs)
		only := flags("transition")
		if g, w := got.linesOf(only, timeMembers, lateMembers), filtered[0].linesOf(only, timeMembers, lateMembers); g != w || w == "" {
			t.Errorf("%q: the replay has\n%s\nwant\n%s", comm, g, w)
		}
		for _, flag := range []string{"--comm", "--not-comm"} {
			r := run(flags("replay", flag, comm, of.records))
			r.mustEnd(t, 2)
			r.mustPrintNothing(t)
			if !strings.HasPrefix(r.stderr, "tcpshift: "+flag+": records have U+FFFD in place of each byte of ") {
				t.Errorf("%q: standard error is wrong\n%v", comm, r)
			}
		}
	}
}

// A filter that no recording can decide ends the replay with status 2 and one line, before anything is written.
func TestReplay_FilterUndecidable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "records")
	if err := os.WriteFile(file, []byte(recordingLine), 0o600); err != nil {
		t.Fatal(err)
	}
	const cgroup = ": a recording does not have the cgroup in which a socket was created: use --container, --pod or --comm"
	const netns = " is not an inode number, and a recording has no other name of a namespace: use a netns of the records"
	for _, c := range []struct {
		args []string
		want string
	}{
		{flags("--cgroup", "/"), "--cgroup" + cgroup},
		{flags("--not-cgroup", "/system.slice"), "--not-cgroup" + cgroup},
		{flags("--netns", "/proc/self/ns/net"), `--netns: "/proc/self/ns/net"` + netns},
		{flags("--not-netns", "4026531833,pid:1"), `--not-netns: "pid:1"` + netns},
		{flags("--netns", "0"), `--netns: "0"` + netns},
		{flags("--port", "0"), `--port: "0" is not a port: use 1 to 65535, or a range such as 8000-8999`},
	} {
		r := run(slices.Concat(flags("replay"), c.args, flags(file)))
		r.mustEnd(t, 2)
		r.mustPrintNothing(t)
		r.mustPrintError(t, c.want)
	}
}

// Filters need no recording on disk: a pipe will do. The alerts are those of what passes.
func TestReplay_FilterOfPipe(t *testing.T) {
	var lines strings.Builder
	for i := range 400 {
		port := 80 + i%2
		fmt.Fprintf(&lines, `{"type":"transition","time":"2026-11-22T12:23:24.1%05dZ","seq":%d,"conn":"%x","netns":7,"family":"ipv4","local_addr":"10.0.0.1","local_port":%d,"peer_addr":"10.0.0.2","peer_port":%d,"role":"client","old_state":"SYN_SENT","new_state":"CLOSE","uid":0,"error":"ECONNREFUSED"}`+"\n",
			i, i+1, i+1, 40000+i, port)
	}
	for _, c := range []struct {
		args []string
		want []string
	}{
		{nil, flags(`"peer_port":80`, `"peer_port":81`)},
		{flags("--peer-port", "81"), flags(`"peer_port":81`)},
		{flags("--not-peer-port", "80-81"), nil},
	} {
		r := run(slices.Concat(flags("replay", "-"), c.args), func(cmd *exec.Cmd) { cmd.Stdin = strings.NewReader(lines.String()) })
		r.mustEnd(t, 0)
		var opened []string
		for _, line := range strings.Split(r.stdout, "\n") {
			for _, peer := range flags(`"peer_port":80`, `"peer_port":81`) {
				if strings.Contains(line, `"kind":"connect_failures","phase":"open"`) && strings.Contains(line, peer) {
					opened = append(opened, peer)
				}
			}
		}
		if slices.Sort(opened); !slices.Equal(opened, c.want) {
			t.Errorf("%q: alerts of %q open, want %q\n%v", c.args, opened, c.want, r)
		}
	}
}
