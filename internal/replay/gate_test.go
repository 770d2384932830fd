package replay_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/recording"
	"github.com/tcpshift/tcpshift/internal/replay"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// passing returns the cookies of the transitions and connections that a filter passes of a stream of records, in order.
func passing(t *testing.T, lines []string, f *filter.Filter) (cookies []uint64, r *replay.Records) {
	t.Helper()
	in, err := recording.NewReader(strings.NewReader(strings.Join(lines, "")))
	if err == nil {
		r, err = replay.OpenRecords(in, detect.Config{})
	}
	if err != nil {
		t.Fatal(err)
	}
	r.Filter = f
	r.Event = func(tr *tcp.Transition, _ *tcp.Connection) error {
		cookies = append(cookies, tr.Cookie)
		return nil
	}
	if err := r.Run(func([]detect.Alert) error { return nil }); err != nil {
		t.Fatal(err)
	}
	return cookies, r
}

// recordOf returns a record with some members more.
func recordOf(kind, more string) string {
	return `{"type":"` + kind + `","time":"2026-11-30T12:00:00.000000001Z","seq":1,"netns":7,"role":"client","local_addr":"10.0.0.1","local_port":40000,` + more + "}\n"
}

// What a record does not have matches no filter, and is not excluded.
func TestFilter_UnknownOfRecords(t *testing.T) {
	lines := []string{
		recordOf("transition", `"conn":"1","old_state":"ESTABLISHED","new_state":"FIN_WAIT1"`), // somebody has left out keys
		recordOf("transition", `"conn":"2","family":"ipv4","old_state":"ESTABLISHED","new_state":"FIN_WAIT1","pid":9,"comm":"a","uid":0,"pid_source":"task"`),
		recordOf("connection", `"conn":"3","family":"ipv4","final_state":"CLOSE","uid":5`), // without its transition
		recordOf("connection", `"conn":"4","phase":"update","family":"ipv4","state":"ESTABLISHED","uid":5`),
		recordOf("connection", `"conn":"5","family":"ipv4","final_state":"FIN_WAIT9","uid":5`), // of a later kernel
	}
	for _, c := range []struct {
		name string
		f    filter.Filter
		want []uint64
	}{
		{"none", filter.Filter{}, []uint64{1, 2, 3, 4}},
		{"user 0", filter.Filter{UIDs: []uint32{0}}, []uint64{2}},
		{"not user 0", filter.Filter{Not: filter.Exclusions{UIDs: []uint32{0}}}, []uint64{1, 3, 4}},
		{"pid", filter.Filter{PIDs: []uint32{9, 0}}, []uint64{2}},
		{"not comm", filter.Filter{Not: filter.Exclusions{Comms: []string{"a"}}}, []uint64{1, 3, 4}},
		{"family", filter.Filter{Family: 4}, []uint64{1, 2, 3, 4}}, // the address shows it
		{"old state", filter.Filter{OldStates: []tcp.State{tcp.Established, tcp.Close}}, []uint64{1, 2, 4}},
		{"new state", filter.Filter{NewStates: []tcp.State{tcp.Close}}, []uint64{3, 4}},
		{"peer port", filter.Filter{PeerPorts: []filter.PortRange{{First: 1, Last: 65535}}}, nil},
		{"not peer port", filter.Filter{Not: filter.Exclusions{PeerPorts: []filter.PortRange{{First: 1, Last: 65535}}}}, []uint64{1, 2, 3, 4}},
	} {
		got, r := passing(t, lines, &c.f)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s passes %v, want %v", c.name, got, c.want)
		}
		if seen, filtered := r.Counts(); seen != 2 || filtered > 2 {
			t.Errorf("%s: %d seen, %d filtered, want 2 transitions", c.name, seen, filtered)
		}
	}
}

// The end of a TIME_WAIT passes if its beginning has passed, whatever the states; also without cookies. A filter on the
// rest decides by the end itself. A connection record has the states of its last transition.
func TestFilter_EndsOfTimeWaits(t *testing.T) {
	for _, cookies := range []bool{true, false} {
		conn := func(id string) string {
			if cookies {
				return `"conn":"` + id + `",`
			}
			return ""
		}
		of := func(id, port string) []string {
			socket := conn(id) + `"family":"ipv4","peer_addr":"10.0.0.2","peer_port":` + port + `,"uid":0,`
			return []string{
				recordOf("transition", socket+`"old_state":"FIN_WAIT2","new_state":"TIME_WAIT"`), recordOf("connection", socket+`"final_state":"TIME_WAIT"`),
				recordOf("transition", socket+`"old_state":"TIME_WAIT","new_state":"CLOSE","time_wait_end":"expired"`),
			}
		}
		a, b := of("1", "80"), of("2", "81")
		lines := []string{a[0], a[1], b[0], b[1], a[2], b[2]}
		onlyEnds := []string{a[2], b[2]}
		for _, c := range []struct {
			name           string
			f              filter.Filter
			want, wantEnds int
		}{
			{"TIME_WAIT", filter.Filter{NewStates: []tcp.State{tcp.TimeWait}}, 6, 0},
			{"from FIN_WAIT2", filter.Filter{OldStates: []tcp.State{tcp.FinWait2}}, 6, 0},
			{"CLOSE", filter.Filter{NewStates: []tcp.State{tcp.Close}}, 0, 0},
			{"TIME_WAIT of a port", filter.Filter{NewStates: []tcp.State{tcp.TimeWait}, Ports: []filter.PortRange{{First: 81, Last: 81}}}, 3, 0},
			{"a port", filter.Filter{Ports: []filter.PortRange{{First: 81, Last: 81}}}, 3, 1},
		} {
			if got, _ := passing(t, lines, &c.f); len(got) != c.want {
				t.Errorf("cookies %v: %s passes %d records, want %d", cookies, c.name, len(got), c.want)
			}
			if got, _ := passing(t, onlyEnds, &c.f); len(got) != c.wantEnds {
				t.Errorf("cookies %v: %s passes %d ends without beginnings, want %d", cookies, c.name, len(got), c.wantEnds)
			}
		}
	}
}

// playFiltered replays recorded inputs with a filter. It returns the kinds of the alerts, and how many transitions have passed.
func playFiltered(t *testing.T, lines []byte, f *filter.Filter) (kinds []string, passed uint64) {
	t.Helper()
	p, err := replay.Open(replay.NewReader(bytes.NewReader(lines)), detect.Config{})
	if err != nil {
		t.Fatal(err)
	}
	p.Filter = f
	err = p.Run(func(list []detect.Alert) error {
		for i := range list {
			if list[i].Phase == detect.Open && !slices.Contains(kinds, list[i].Kind) {
				kinds = append(kinds, list[i].Kind)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(kinds)
	seen, filtered := p.Counts()
	return kinds, seen - filtered
}

// Detection sees of a recording only what the filter passes, sockets of the kernel's tables included.
func TestFilter_DecidesForDetection(t *testing.T) {
	t.Parallel()
	lines, _ := recorded(t, 70*time.Second)
	all, transitions := playFiltered(t, lines, &filter.Filter{})
	if len(all) < 4 {
		t.Fatalf("the storm has only %q", all)
	}
	for _, c := range []struct {
		name string
		f    filter.Filter
		want func(kind string) bool
	}{
		{"failures", filter.Filter{PeerPorts: []filter.PortRange{{First: 9, Last: 9}}}, func(kind string) bool { return kind == "connect_failures" }},
		{"no failures", filter.Filter{Not: filter.Exclusions{PeerPorts: []filter.PortRange{{First: 9, Last: 9}}}}, func(kind string) bool { return kind != "connect_failures" }},
		{"another namespace", filter.Filter{Netns: []uint32{netns + 1}}, func(string) bool { return false }},
		{"not this namespace", filter.Filter{Not: filter.Exclusions{Netns: []uint32{netns}}}, func(string) bool { return false }},
		{"another user", filter.Filter{UIDs: []uint32{77}}, func(string) bool { return false }},
		{"another family", filter.Filter{Family: 6}, func(string) bool { return false }},
	} {
		want := slices.DeleteFunc(slices.Clone(all), func(kind string) bool { return !c.want(kind) })
		got, passed := playFiltered(t, lines, &c.f)
		if !slices.Equal(got, want) || passed == transitions {
			t.Errorf("%s: the alerts are %q, want %q; %d transitions of %d pass", c.name, got, want, passed, transitions)
		}
	}
}
