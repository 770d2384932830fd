package selection

import (
	"math"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

const id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

var web = &tcp.Cgroup{Container: id, PodUID: "2e8ec3c7-6990", Pod: "web-0", Namespace: "shop", ContainerName: "nginx"}

// Each field passes what it names, and no value passes where it is not known.
func TestSelection_Fields(t *testing.T) {
	timeout := tcp.Connection{ClosedBy: tcp.ClosedByTimeout, OpenedAt: time.Second, Sent: 600, Received: 400}
	last := tcp.Transition{Monotonic: 3 * time.Second, Error: tcp.Errno(unix.ETIMEDOUT), Cgroup: web}
	unknown := tcp.Transition{Monotonic: 3 * time.Second}
	for _, tt := range []struct {
		name                                        string
		s                                           Selection
		transition, connection                      bool // whether those of web pass
		otherTransition, otherConnection, sameAlert bool
	}{
		{"nothing", Selection{}, true, true, true, true, true},
		{"closed by one of these", Selection{ClosedBy: []tcp.ClosedBy{tcp.ClosedByAbort, tcp.ClosedByTimeout}}, true, true, true, false, true},
		{"closed by another", Selection{ClosedBy: []tcp.ClosedBy{tcp.ClosedByAbort}}, true, false, true, false, true},
		{"the duration", Selection{MinDuration: 2 * time.Second}, true, true, true, false, true},
		{"a longer duration", Selection{MinDuration: 2*time.Second + 1}, true, false, true, false, true},
		{"the bytes", Selection{MinBytes: 1000}, true, true, true, false, true},
		{"more bytes", Selection{MinBytes: 1001}, true, false, true, false, true},
		{"the error", Selection{Errors: []tcp.Errno{tcp.Errno(unix.ETIMEDOUT)}}, true, true, false, false, true},
		{"another error", Selection{Errors: []tcp.Errno{tcp.Errno(unix.ECONNRESET)}}, false, false, false, false, true},
		{"the container's name", Selection{Containers: []string{"x", "nginx"}}, true, true, false, false, true},
		{"the container's id", Selection{Containers: []string{id}}, true, true, false, false, true},
		{"the container's short id", Selection{Containers: []string{id[:12]}}, true, true, false, false, true},
		{"too few digits", Selection{Containers: []string{id[:11]}}, false, false, false, false, false},
		{"the pod", Selection{Pods: []string{"web-0"}}, true, true, false, false, true},
		{"the pod in its namespace", Selection{Pods: []string{"shop/web-0"}}, true, true, false, false, true},
		{"the pod in another namespace", Selection{Pods: []string{"test/web-0"}}, false, false, false, false, false},
		{"the pod's uid", Selection{Pods: []string{"2e8ec3c7-6990"}}, true, true, false, false, true},
		{"two fields", Selection{Pods: []string{"web-0"}, Containers: []string{"envoy"}}, false, false, false, false, false},
	} {
		if got := tt.s.Transition(&last); got != tt.transition {
			t.Errorf("%s: a transition passes: %t", tt.name, got)
		}
		if got := tt.s.Connection(&last, &timeout); got != tt.connection {
			t.Errorf("%s: a connection passes: %t", tt.name, got)
		}
		if got := tt.s.Transition(&unknown); got != tt.otherTransition {
			t.Errorf("%s: an unknown transition passes: %t", tt.name, got)
		}
		if got := tt.s.Connection(&unknown, &tcp.Connection{}); got != tt.otherConnection {
			t.Errorf("%s: an unknown connection passes: %t", tt.name, got)
		}
		for _, k := range []tcp.Socket{
			{Transition: tcp.Transition{New: tcp.Established, Cgroup: web}}, {Transition: tcp.Transition{New: tcp.TimeWait, Cgroup: web}},
		} {
			want := !tt.s.ByNames() || tt.sameAlert && k.New != tcp.TimeWait
			if got := tt.s.Socket(&k); got != want {
				t.Errorf("%s: a socket in %v passes: %t", tt.name, k.New, got)
			}
		}
		alert := detect.Alert{Finding: detect.Finding{Culprit: detect.Culprit{Cgroup: web}}}
		if got := tt.s.Alert(&alert); got != tt.sameAlert {
			t.Errorf("%s: an alert passes: %t", tt.name, got)
		}
		if got, want := tt.s.OrNil() == nil, tt.name == "nothing"; got != want {
			t.Errorf("%s: it selects everything: %t", tt.name, got)
		}
	}
}

// The sum of the bytes does not overflow.
func TestSelection_HugeConnection(t *testing.T) {
	s := Selection{MinBytes: 1 << 40}
	for _, c := range []tcp.Connection{
		{Sent: math.MaxUint64, Received: math.MaxUint64}, {Sent: math.MaxUint64}, {Received: math.MaxUint64}, {Sent: 1<<40 - 1, Received: 1},
	} {
		if !s.Connection(&tcp.Transition{}, &c) {
			t.Errorf("%d and %d bytes do not pass", c.Sent, c.Received)
		}
	}
}

// What the records call a way to close or an error is what the parsers take.
func TestParse_NamesOfRecords(t *testing.T) {
	for _, way := range tcp.WaysToClose() {
		if got, err := ParseClosedBy(string(way)); err != nil || got != way {
			t.Errorf("%q is %q, %v", way, got, err)
		}
	}
	for e := tcp.Errno(1); e <= 4095; e++ {
		if got, err := ParseErrno(e.String()); err != nil || got != e {
			t.Fatalf("%q is %d, %v", e, got, err)
		}
	}
	for _, word := range []string{"", "0", "ERRNO_0", "ERRNO_104", "ERRNO_4096", "econnreset", "104", "EWOULDBLOCK"} {
		if got, err := ParseErrno(word); err == nil {
			t.Errorf("%q is %d, want an error", word, got)
		}
	}
	if _, err := ParseClosedBy(""); err == nil {
		t.Error("an empty word is a way to close")
	}
}

// A size is a number of bytes, with a binary unit or without one.
func TestParse_Bytes(t *testing.T) {
	for word, want := range map[string]uint64{"0": 0, "1": 1, "1500": 1500, "64KiB": 64 << 10, "3MiB": 3 << 20, "1GiB": 1 << 30, "18446744073709551615": math.MaxUint64} {
		if got, err := ParseBytes(word); err != nil || got != want {
			t.Errorf("%q is %d, %v", word, got, err)
		}
	}
	for _, word := range []string{"", "-1", "KiB", "1KB", "1.5MiB", "18446744073709551616", "18446744073709551615KiB", "1MiBKiB", " 1"} {
		if got, err := ParseBytes(word); err == nil {
			t.Errorf("%q is %d, want an error", word, got)
		}
	}
}
