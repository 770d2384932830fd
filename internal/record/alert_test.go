package record

import (
	"strings"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

func comm(name string) (c tcp.Comm) {
	copy(c[:], name)
	return c
}

// fullAlert has everything that an alert may have.
func fullAlert() detect.Alert {
	return detect.Alert{
		Time: moment, Monotonic: 9 * time.Second, ID: "2584g-1", Kind: "time_wait_storm", Phase: detect.Open,
		Finding: detect.Finding{
			Severity: detect.Critical,
			Culprit: detect.Culprit{
				Known: true, Service: "billing", Share: 0.78765, Comm: comm("curl"), Cgroup: pod(), Processes: 3, PID: 4242, PIDShare: 0.62,
				NextService: "python3", NextShare: 0.21,
			},
			Netns: 4026531840, Role: tcp.RoleClient, Local: endpoint("192.0.2.1", 0), Peer: endpoint("198.51.100.7", 443),
			RateUnit: "connections", Rate: 83.33333, Occupancy: 350, OccupancySource: detect.FromKernel, Capacity: 500,
			CapacityKind: detect.EphemeralPorts, Projected: 5083, ExhaustionIn: 1800400 * time.Microsecond, Exhausts: true,
			Cause: "the cause", Advice: "the advice",
		},
	}
}

// longestAlert has more keys than any real alert, to test the length of the line.
func longestAlert() detect.Alert {
	a := fullAlert()
	wide := endpoint("fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535)
	const most = 1<<64 - 1
	a.ID, a.Kind, a.Phase, a.Severity = strings.Repeat("z", 24), "time_wait_storm", detect.Update, detect.Critical
	unit := strings.Repeat("\\", 96)
	a.Culprit = detect.Culprit{
		PID: 1<<32 - 1, Comm: comm(strings.Repeat("\x01", 16)), Known: true, Share: 0.123, Processes: 1 << 40,
		Service: unit, NextService: unit, PIDShare: 0.123, NextShare: 0.123,
		Cgroup: &tcp.Cgroup{
			Path: longestPath("x"), Unit: unit + ".service", UnitClaimed: true, Container: containerID, Runtime: "containerd", PodUID: pod().PodUID,
			ContainerClaimed: true,
			// The longest names that Kubernetes permits.
			Pod: strings.Repeat("p", 253), Namespace: strings.Repeat("n", 63), ContainerName: strings.Repeat("c", 63), Image: strings.Repeat("i", 255),
		},
	}
	a.Local, a.Peer, a.Netns, a.Role, a.Rate = wide, wide, 1<<32-1, tcp.RoleListener, 123456789.123
	// No alert has drops as well as overflows.
	a.Occupancy, a.Capacity, a.Projected, a.Failures, a.Overflows, a.Lost, a.Lasted = most, most, most, most, most, most, -1
	a.CapacityKind, a.ExhaustionIn, a.Approximate = detect.TimeWaitBuckets, 1<<62, true
	a.Cause, a.Advice = strings.Repeat("x", 1000), strings.Repeat("é", 1000)
	return a
}

func alertCases() []goldenCase {
	edit := func(name string, change func(a *detect.Alert)) goldenCase {
		return goldenCase{name, func(e Encoder, dst []byte) []byte {
			a := fullAlert()
			change(&a)
			return e.Alert(dst, &a)
		}}
	}
	cases := []goldenCase{
		edit("everything known", func(*detect.Alert) {}),
		edit("an update", func(a *detect.Alert) {
			a.Phase, a.Lasted, a.Severity = detect.Update, 10040*time.Millisecond, detect.Warning
		}),
		edit("a close", func(a *detect.Alert) {
			a.Phase, a.Lasted, a.Exhausts, a.Reason = detect.Close, 71*time.Second, false, detect.Resolved
		}),
		edit("nothing left", func(a *detect.Alert) { a.ExhaustionIn, a.Failures = 0, 17 }),
		edit("no end to come", func(a *detect.Alert) { a.Exhausts, a.ExhaustionIn = false, 0 }),
		edit("after losses", func(a *detect.Alert) { a.Lost = 1234 }),
		edit("approximate", func(a *detect.Alert) { a.Approximate = true }),
		edit("unverified", func(a *detect.Alert) { a.Unverified = true }),
		edit("many processes of a name", func(a *detect.Alert) { a.Culprit.PID, a.Culprit.Processes, a.Culprit.Cgroup = 0, 812, nil }),
		edit("one process", func(a *detect.Alert) {
			a.Culprit.Processes, a.Culprit.NextService, a.Culprit.PIDShare = 1, "", a.Culprit.Share
		}),
		edit("one process that is not named", func(a *detect.Alert) { a.Culprit.Processes, a.Culprit.PID = 1, 0 }),
		edit("a process with less than half", func(a *detect.Alert) { a.Culprit.PIDShare = 0.3 }),
		edit("no process lives", func(a *detect.Alert) { a.Culprit.Processes, a.Culprit.PID = 0, 0 }),
		edit("named by its main thread", func(a *detect.Alert) { a.Culprit.Service = "curl" }),
		edit("no process known", func(a *detect.Alert) { a.Culprit = detect.Culprit{} }),
		edit("a server", func(a *detect.Alert) {
			a.Role, a.Local, a.Peer = tcp.RoleServer, endpoint("2001:db8::1", 443), tcp.Endpoint{}
			a.CapacityKind, a.OccupancySource = detect.TimeWaitBuckets, detect.FromEvents
		}),
		edit("no capacity known", func(a *detect.Alert) { a.CapacityKind, a.Capacity, a.Projected = "", 0, 0 }),
		edit("no occupancy known", func(a *detect.Alert) {
			a.CapacityKind, a.Capacity, a.Projected, a.OccupancySource, a.Occupancy, a.Exhausts = "", 0, 0, "", 0, false
			a.Local, a.Role = tcp.Endpoint{}, tcp.RoleUnknown
		}),
		edit("as long as it may be", func(a *detect.Alert) { *a = longestAlert() }),
		edit("a claimed service", func(a *detect.Alert) { a.Culprit.Cgroup, a.Culprit.Service = claimed(), claimed().Service() }),
		edit("the names of a pod", func(a *detect.Alert) { a.Culprit.Cgroup = named() }),
		edit("a process's own name in a claimed cgroup", func(a *detect.Alert) { a.Culprit.Cgroup = claimed() }),
	}
	for _, p := range ownerProcesses() {
		cases = append(cases, edit("a process with "+p.name, func(a *detect.Alert) { a.Culprit.Process = p.process }))
	}
	cases = append(cases, edit("about suppressed alerts", func(a *detect.Alert) {
		a.Kind, a.Severity, a.Culprit = detect.AlertsSuppressed, detect.Warning, detect.Culprit{}
		a.Role, a.Local, a.Peer, a.RateUnit, a.Rate = tcp.RoleUnknown, tcp.Endpoint{}, tcp.Endpoint{}, "more causes without an alert", 0.5
		a.Occupancy, a.OccupancySource, a.CapacityKind, a.Capacity, a.Projected, a.Exhausts = 72, detect.FromEvents, "", 0, 0, false
	}))
	cases = append(cases, edit("a full accept queue", func(a *detect.Alert) {
		a.Kind, a.Role, a.Local, a.Peer = "listen_queue_full", tcp.RoleListener, endpoint("0.0.0.0", 80), tcp.Endpoint{}
		a.Occupancy, a.Capacity, a.CapacityKind, a.Projected, a.Exhausts = 129, 129, detect.AcceptQueue, 0, false
		a.RateUnit, a.Rate, a.Drops = "dropped segments", 41.5, 523
	}))
	cases = append(cases, edit("closes without a TIME_WAIT", func(a *detect.Alert) {
		a.Role, a.Local, a.Peer = tcp.RoleServer, endpoint("192.0.2.1", 443), tcp.Endpoint{}
		a.Occupancy, a.Capacity, a.CapacityKind, a.Projected, a.Exhausts = 400, 400, detect.TimeWaitBuckets, 6100, true
		a.RateUnit, a.Rate, a.ExhaustionIn, a.Overflows = "connections", 100, 0, 3210
	}))
	for _, kind := range detect.Kinds() {
		cases = append(cases, edit(kind, func(a *detect.Alert) { a.Kind = kind }))
	}
	for _, h := range hostileComms {
		cases = append(cases, edit(h.name, func(a *detect.Alert) {
			a.Culprit.Comm, a.Culprit.Cgroup = comm(h.comm), nil
			a.Culprit.Service = string(a.Culprit.Comm.Bytes())
			a.Culprit.NextService = a.Culprit.Service
		}))
	}
	return cases
}

// No pid stands beside a share that is not the share of that process: the others may be gone.
func TestText_AlertShareOfOneProcess(t *testing.T) {
	for pidShare, want := range map[float64]string{
		0.7:  "billing (curl, pid 4242, 78 %; next",
		0.03: "billing (curl, 1 process, 78 %, the busiest is pid 4242 with 3 %; next",
	} {
		a := fullAlert()
		a.Culprit.Processes, a.Culprit.PIDShare = 1, pidShare
		if line := string(Text{}.Alert(nil, &a)); !strings.Contains(line, want) {
			t.Errorf("with a share of %v: %s, want %q", pidShare, line, want)
		}
	}
}

// An alert as text gives process, endpoint, rate, time left, cause and advice, in this
// order.
func TestText_AlertOrder(t *testing.T) {
	a := fullAlert()
	line := string(Text{}.Alert(nil, &a))
	at := 0
	for _, part := range []string{
		"time_wait_storm", "billing (curl, 3 processes, 78 %, most of it pid 4242; next python3, 21 %) to ", "198.51.100.7:443", "83.3 connections a second", "350 of 500", "1.8 s", "the cause", "the advice",
	} {
		next := strings.Index(line[at:], part)
		if next < 0 {
			t.Fatalf("%q does not come where it should in %s", part, line)
		}
		at += next
	}
}
