package record

import (
	"slices"
	"strings"
	"testing"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Valid labels are parsed, in their order.
func TestLabels_Parsed(t *testing.T) {
	for _, tt := range []struct {
		name  string
		pairs []string
		want  []Label
	}{
		{"none", nil, []Label{}},
		{"several, in their order", []string{"zone=b", "cluster=a"}, []Label{{"zone", "b"}, {"cluster", "a"}}},
		{"only the first '=' divides", []string{"query=a=b="}, []Label{{"query", "a=b="}}},
		{"a value may be empty", []string{"team="}, []Label{{"team", ""}}},
		{"a value may hold any text", []string{"note=\"\\\n\x1b\u202eé"}, []Label{{"note", "\"\\\n\x1b\u202eé"}}},
		{"a key may hold digits and _", []string{"a_1__b_=x"}, []Label{{"a_1__b_", "x"}}},
	} {
		got, err := ParseLabels(tt.pairs)
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %v, %v; want %v", tt.name, got, err, tt.want)
		}
	}
}

// An invalid label is rejected, and the error gives the reason.
func TestLabels_Rejected(t *testing.T) {
	notSnakeCase := func(key string) string {
		return `key "` + key + `" is not snake_case: use a-z, 0-9 and _, a letter first`
	}
	taken := func(key string) string {
		return `key "` + key + `" is taken: choose one that neither a record nor another label has`
	}
	for _, tt := range []struct {
		pairs []string
		want  string
	}{
		{[]string{"cluster"}, `"cluster" has no '=': write KEY=VALUE`},
		{[]string{""}, `"" has no '=': write KEY=VALUE`},
		{[]string{"=blue"}, notSnakeCase("")},
		{[]string{"Cluster=blue"}, notSnakeCase("Cluster")},
		{[]string{"1st=blue"}, notSnakeCase("1st")},
		{[]string{"_cluster=blue"}, notSnakeCase("_cluster")},
		{[]string{"my-cluster=blue"}, notSnakeCase("my-cluster")},
		{[]string{"my cluster=blue"}, notSnakeCase("my cluster")},
		{[]string{`a":1,"b=blue`}, `key "a\":1,\"b" is not snake_case: use a-z, 0-9 and _, a letter first`},
		{[]string{"clüster=blue"}, notSnakeCase("clüster")},
		{[]string{"pid=1"}, taken("pid")},
		{[]string{"type=x"}, taken("type")},
		{[]string{"cluster=blue", "cluster=green"}, taken("cluster")},
		{[]string{"cluster=blue", "cluster=blue"}, taken("cluster")},
		{[]string{"cluster=\xff"}, `the value of "cluster" is not UTF-8`},
		{[]string{"x=" + strings.Repeat("x", 1024)}, "labels take 1031 bytes of every record, at most 1024 fit: shorten them"},
		{
			[]string{"x=" + strings.Repeat("\n", 400), "y=" + strings.Repeat("\x01", 40)},
			"labels take 1054 bytes of every record, at most 1024 fit: shorten them",
		},
	} {
		labels, err := ParseLabels(tt.pairs)
		if err == nil || err.Error() != tt.want || labels != nil {
			t.Errorf("%q: got %v, %v\nwant %s", tt.pairs, labels, err, tt.want)
		}
	}
}

// A label cannot have the key of a record.
func TestLabels_KeysOfRecords(t *testing.T) {
	for _, lines := range goldenLines(t) {
		for _, line := range lines {
			for _, key := range keysOf(t, []byte(line)) {
				if !slices.Contains(schemaKeys, key) {
					t.Errorf("schemaKeys lacks %q, which is in %s", key, line)
				}
				if _, err := ParseLabels([]string{key + "=x"}); err == nil {
					t.Errorf("a label may be called %q, which is in %s", key, line)
				}
			}
		}
	}
}

// longestLabels take as many bytes as is allowed, some of them for escapes.
func longestLabels(t testing.TB) []Label {
	t.Helper()
	pairs := []string{"label=" + strings.Repeat("\x01", 100), "filler="}
	room := maxLabelBytes - len(NewNative([]Label{{"label", strings.Repeat("\x01", 100)}, {"filler", ""}}).labels)
	pairs[1] += strings.Repeat("x", room)
	labels, err := ParseLabels(pairs)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseLabels([]string{pairs[0], pairs[1] + "x"}); err == nil {
		t.Fatal("these labels are not the longest: one byte more is allowed")
	}
	return labels
}

// longestTransition has more keys than any real one, to test the length of the line.
func longestTransition() tcp.Transition {
	t := largest()
	t.Mapped, t.Old, t.New, t.Substate, t.TimeWaitUnknown, t.Expired = true, tcp.TimeWait, tcp.TimeWait, tcp.TimeWait, true, true
	t.Cgroup = &tcp.Cgroup{
		Path: longestPath("x"), Container: containerID, Runtime: "containerd", PodUID: pod().PodUID,
		ContainerClaimed: true,
	}
	return t
}

// A line stays within MaxLine however long the path of its cgroup is.
func TestLine_LongPaths(t *testing.T) {
	for _, schema := range Schemas() {
		t.Run(string(schema), func(t *testing.T) { checkLongPaths(t, schema) })
	}
}

func checkLongPaths(t *testing.T, schema Schema) {
	t.Helper()
	encoder, maxBytes, step := NewEncoder(schema, longestLabels(t)), schema.MaxLine(), 1
	if schema != SchemaNative {
		step = 7 // the path is cut, so most lengths are alike
	}
	encoder.(SamplingEncoder).SetSample(1_000_000)
	event, connection := longestTransition(), largestConnection()
	container := *longestAlert().Culprit.Cgroup
	container.Unit = strings.Repeat("\\", 44) + ".service" // as long as a record has it
	event.Cgroup, event.Process = &container, longestOwner()
	socket := tcp.Socket{Transition: event, ExpiresIn: -1, Connection: connection, Queues: tcp.Queues{Known: true, Receive: 1<<32 - 1, Send: 1<<32 - 1}}
	socket.New, socket.Connection.Phase, socket.Connection.Cwnd = tcp.BoundInactive, tcp.PhaseUpdate, 1<<32-1
	for length := 0; length < 12*256; length += step {
		for _, letter := range []string{"x", "\x01", "\"", "\xff", "é"} {
			container.Path = "/" + strings.Repeat(letter, length)[:length]
			for _, line := range [][]byte{
				encoder.Transition(nil, &event), encoder.Connection(nil, &event, &connection), encoder.Socket(nil, &socket),
			} {
				line = encoder.WithSeq(nil, line, 1<<64-1)
				if len(line) > maxBytes || !strings.Contains(string(line), `":"`+containerID+`"`) {
					t.Fatalf("a path of %d times %q makes a line of %d bytes, want %d at most: %s", length, letter, len(line), maxBytes, line)
				}
			}
		}
	}
}

// An alert stays within MaxLine however long the path of its cgroup is, and has the path if there
// is room.
func TestLine_AlertWithLongPath(t *testing.T) {
	plain, labelled := NewNative(nil), NewNative(longestLabels(t))
	longest, usual := longestAlert(), fullAlert()
	for length := range 1500 {
		for _, a := range []*detect.Alert{&longest, &usual} {
			c := *a.Culprit.Cgroup
			c.Path = "/" + strings.Repeat("x", length)
			a.Culprit.Cgroup = &c
			for _, e := range []*Native{plain, labelled} {
				line := e.WithSeq(nil, e.Alert(nil, a), 1<<64-1)
				hasPath := strings.Contains(string(line), `"cgroup":"`+c.Path+`"`)
				if len(line) > MaxLine || a == &usual && hasPath != (length+1+len(`,"cgroup":""`) <= maxAlertPath) {
					t.Fatalf("a path of %d bytes: the line has %d bytes and the path: %v", length+1, len(line), hasPath)
				}
			}
		}
	}
}

// The longest record of each type but summary and update stays within MaxLine with the longest labels.
func TestLine_LongestRecords(t *testing.T) {
	const worst = "\x01" // six bytes in JSON
	longest := []goldenCase{
		{"start", func(e Encoder, dst []byte) []byte {
			// HOST_NAME_MAX and the fields of struct utsname are 64 bytes.
			word := strings.Repeat(worst, 64)
			reason := strings.Repeat("because ", 40)
			return e.Start(dst, &Start{
				Time: moment, Version: word, Host: word, BootID: "2e8ec3c7-6990-4be5-ad35-620e3c14e752", Kernel: word,
				Arch: "arm64", PID: 4 << 20, Features: []Feature{
					{"socket_storage", reason}, {"socket_cookie", reason}, {"socket_scan", reason}, {"accept_hook", reason},
					{"time_wait_ends", reason},
				},
			})
		}},
		{"transition", func(e Encoder, dst []byte) []byte {
			event := longestTransition()
			event.Process = longestOwner()
			return e.Transition(dst, &event)
		}},
		{"connection", func(e Encoder, dst []byte) []byte {
			event, connection := longestTransition(), largestConnection()
			event.Process = longestOwner()
			return e.Connection(dst, &event, &connection)
		}},
		{"partial connection", func(e Encoder, dst []byte) []byte {
			event, connection := longestTransition(), largestConnection()
			connection.OpenedAt = 0
			return e.Connection(dst, &event, &connection)
		}},
		{"socket", func(e Encoder, dst []byte) []byte {
			s := tcp.Socket{Transition: longestTransition(), ExpiresIn: -1}
			s.New = tcp.BoundInactive // a TIME_WAIT has no owner
			return e.(SocketEncoder).Socket(dst, &s)
		}},
		{"alert", func(e Encoder, dst []byte) []byte {
			a := longestAlert()
			a.Culprit.Process = longestOwner()
			return e.Alert(dst, &a)
		}},
		{"process", func(e Encoder, dst []byte) []byte {
			r := longestProcess(worst)
			return e.Process(dst, &r)
		}},
		{"stats", func(e Encoder, dst []byte) []byte {
			return e.Stats(dst, &Stats{Time: moment, Counts: largestCounts()})
		}},
		{"loss", func(e Encoder, dst []byte) []byte {
			return e.Loss(dst, &Loss{Time: moment, Lost: 1<<64 - 1, Cause: CauseRingFull})
		}},
		{"reload", func(e Encoder, dst []byte) []byte {
			return e.Reload(dst, &Reload{Time: moment, Changed: strings.Repeat(worst, 500)})
		}},
		{"stop", func(e Encoder, dst []byte) []byte {
			return e.Stop(dst, &Stop{Time: moment, Reason: "duration", Signal: "SIGTERM", Counts: largestCounts()})
		}},
	}
	for _, schema := range Schemas() {
		for _, c := range longest {
			encoder := NewEncoder(schema, longestLabels(t))
			encoder.(OriginEncoder).AddOrigin(strings.Repeat(worst, 19), "2e8ec3c7-6990-4be5-ad35-620e3c14e752")
			encoder.(SamplingEncoder).SetSample(1_000_000)
			line := c.line(encoder, nil, 1<<64-1)
			t.Logf("%s, %s: %d bytes", schema, c.name, len(line))
			checkLine(t, line, schema.MaxLine())
			got := keysOf(t, line)
			switch schema {
			case SchemaECS:
				got = keysOf(t, memberOf(t, line, "labels"))
			case SchemaOTel:
				got = keysOf(t, memberOf(t, line, "attributes"))
			}
			if !slices.Equal(got[len(got)-2:], []string{"label", "filler"}) {
				t.Errorf("%s, %s: the keys are %v, want the labels last and in their order", schema, c.name, got)
			}
		}
	}
}
