package cli_test

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// A snapshot lists every socket once, with its owner.
func TestSnapshot_EverySocketWithOwner(t *testing.T) {
	requireRoot(t)
	g := newEveryState(t)
	all, r := snapshot(t)
	if got := g.of(t, all); !slices.Equal(got, g.sockets) {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(g.sockets, "\n"))
	}
	conns := make(map[string]bool)
	for _, l := range all {
		if l.Conn != "" && conns[l.Conn] {
			t.Errorf("conn %s is listed twice", l.Conn)
		}
		conns[l.Conn] = true
		if l.Netns != g.n.Inode() {
			continue
		}
		if hasConn := l.State != "TIME_WAIT" && l.State != "NEW_SYN_RECV"; hasConn != (l.Conn != "") {
			t.Errorf("want conn on full sockets only: %s", l.line)
		}
		if isTimeWait := l.State == "TIME_WAIT"; isTimeWait != (l.Expires > 0) || l.Expires > int64(time.Minute) ||
			isTimeWait == (l.UID != nil) {
			t.Errorf("want expires_in_ns up to 60 s and no uid on a TIME_WAIT, a uid on all others: %s", l.line)
		}
		if role := map[string]string{"LISTEN": "listener", "NEW_SYN_RECV": "server"}[l.State]; role != l.Role {
			t.Errorf("want role %q: %s", role, l.line)
		}
		if mapped := l.LocalPort == 18103 || l.PeerPort == 18103; mapped != l.Mapped {
			t.Errorf("want mapped %v: %s", mapped, l.line)
		}
	}
	if t.Failed() {
		t.Logf("%.20000v", r)
	}
}

// expires_in_ns of a TIME_WAIT lies between the answers of sock_diag (ss -o) before and
// after the snapshot, which have millisecond precision.
func TestSnapshot_TimewaitExpiry(t *testing.T) {
	requireRoot(t)
	g := newEveryState(t)
	expiries := func() map[uint16]time.Duration {
		all := map[uint16]time.Duration{}
		for _, e := range g.n.Table() {
			if !e.Timewait {
				continue
			}
			left, err := g.n.ExpiresIn(&tcplab.Endpoint{Local: e.Local, Remote: e.Remote})
			if err != nil {
				t.Fatalf("ask sock_diag for %v: %v", e.Local, err)
			}
			all[e.Local.Port()] = left
		}
		return all
	}
	before := expiries()
	all, r := snapshot(t, "--netns", fmt.Sprint(g.n.Inode()))
	after := expiries()
	const jiffy = 10 * time.Millisecond // at most
	listedEnds := 0
	for _, l := range all {
		if l.State != "TIME_WAIT" {
			continue
		}
		listedEnds++
		least, most := after[l.LocalPort]-jiffy, before[l.LocalPort]+jiffy
		if left := time.Duration(l.Expires); left < least || left > most || least <= 0 {
			t.Errorf("expires_in_ns is %v, want %v to %v as in sock_diag: %s", left, least, most, l.line)
		}
	}
	if listedEnds != 2 || len(before) != 2 {
		t.Errorf("%d TIME_WAITs listed, %d in sock_diag, want 2\n%v", listedEnds, len(before), r)
	}
}

// A snapshot lists the sockets of /proc/net/tcp and tcp6, which need no tracing.
func TestSnapshot_AgreesWithProc(t *testing.T) {
	requireRoot(t)
	g := newEveryState(t)
	all, r := snapshot(t, "--netns", fmt.Sprint(g.n.Inode()))
	var got, want []string
	for _, l := range all {
		state := l.State
		switch state {
		case "TIME_WAIT":
			state = l.Substate + " (timewait)"
		case "NEW_SYN_RECV":
			state = "SYN_RECV"
		}
		if l.PeerAddr == "" {
			l.PeerAddr = map[string]string{"ipv4": "0.0.0.0", "ipv6": "::"}[l.Family]
		}
		got = append(got, line(state, endpointOf(l.LocalAddr, l.LocalPort), endpointOf(l.PeerAddr, l.PeerPort), ""))
	}
	for _, e := range g.n.Table() {
		state := e.State.String()
		if e.Timewait {
			state += " (timewait)"
		}
		plain := func(a netip.AddrPort) string { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()).String() }
		want = append(want, line(state, plain(e.Local), plain(e.Remote), ""))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the snapshot:\n%s\n/proc/net/tcp and tcp6:\n%s\n%v", strings.Join(got, "\n"), strings.Join(want, "\n"), r)
	}
}

// --netns lists the sockets of these namespaces only.
func TestSnapshot_NetnsFlag(t *testing.T) {
	requireRoot(t)
	g, other := newEveryState(t), tcplab.NewNetns(t)
	other.Listen(netip.MustParseAddrPort("127.0.0.1:17109"))
	for _, row := range []struct {
		args   []string
		others int // expected sockets of the other namespace
		whole  bool
	}{
		{flags("--netns", fmt.Sprint(g.n.Inode())), 0, true},
		{flags("--netns", fmt.Sprintf("pid:%d", g.peer.pid())), 0, true},
		{flags("--netns", fmt.Sprintf("/proc/%d/ns/net", g.peer.pid())), 0, true},
		{flags("--netns", fmt.Sprint(other.Inode())), 1, false},
		{flags("--netns", fmt.Sprintf("%d,%d", g.n.Inode(), other.Inode())), 1, true},
		{flags("--netns", fmt.Sprint(g.n.Inode()), "--netns", fmt.Sprint(other.Inode())), 1, true},
		{nil, 1, true},
	} {
		all, r := snapshot(t, row.args...)
		var here, there, elsewhere int
		for _, l := range all {
			switch l.Netns {
			case g.n.Inode():
				here++
			case other.Inode():
				there++
			default:
				elsewhere++
			}
		}
		want := 0
		if row.whole {
			want = len(g.sockets)
		}
		if here != want || there != row.others || elsewhere > 0 && row.args != nil {
			t.Errorf("%d sockets of the first namespace, %d of the second, %d of others; want %d, %d and 0\n%.5000v",
				here, there, elsewhere, want, row.others, r)
		}
	}
}

// Filters and --state leave out sockets of a snapshot, by what a snapshot knows of them.
func TestSnapshot_Filters(t *testing.T) {
	requireRoot(t)
	g := newEveryState(t)
	whole, _ := snapshot(t, "--netns", fmt.Sprint(g.n.Inode()))
	timewait := func(l *socketRecord) bool { return l.State == "TIME_WAIT" }
	pending := func(l *socketRecord) bool { return l.State == "NEW_SYN_RECV" }
	for _, row := range []struct {
		args   []string
		passes func(l *socketRecord) bool
	}{
		{flags("--state", "TIME_WAIT"), timewait},
		{flags("--state", "LISTEN,NEW_SYN_RECV"), func(l *socketRecord) bool { return l.State == "LISTEN" || pending(l) }},
		{flags("--port", "18101"), func(l *socketRecord) bool { return port(18101)(&l.record) }},
		{flags("--not-port", "18101-18105"), func(l *socketRecord) bool { return !port(18101, 18102, 18103, 18104, 18105)(&l.record) }},
		{flags("--not-local-port", "17102"), func(l *socketRecord) bool { return l.LocalPort != 17102 }},
		{flags("--family", "6"), func(l *socketRecord) bool { return l.Family == "ipv6" }},
		{flags("--not-local-addr", "0.0.0.0/0"), func(l *socketRecord) bool { return l.Family == "ipv6" }},
		{flags("--not-peer-addr", "0.0.0.0/0"), func(l *socketRecord) bool { return l.Family == "ipv6" || l.State == "LISTEN" }},
		{flags("--pid", fmt.Sprint(g.peer.pid())), func(l *socketRecord) bool { return l.PID == uint32(g.peer.pid()) }},
		{flags("--not-pid", fmt.Sprint(g.peer.pid())), func(l *socketRecord) bool { return l.PID != uint32(g.peer.pid()) }},
		{flags("--not-comm", peerComm), func(l *socketRecord) bool { return l.PID != uint32(g.peer.pid()) }},
		{flags("--uid", "0"), func(l *socketRecord) bool { return !timewait(l) }},
		{flags("--not-uid", "root"), timewait},
		{flags("--cgroup", "/"), func(l *socketRecord) bool { return !timewait(l) && !pending(l) }},
		{flags("--not-cgroup", "/"), func(l *socketRecord) bool { return timewait(l) || pending(l) }},
	} {
		if slices.Contains(row.args, "/") {
			cgroupMount(t)
		}
		var want, got []string
		for _, l := range whole {
			if row.passes(&l) {
				want = append(want, l.Conn+" "+l.State+" "+fmt.Sprint(l.LocalPort, l.PeerPort))
			}
		}
		filtered, r := snapshot(t, append(row.args, "--netns", fmt.Sprint(g.n.Inode()))...)
		for _, l := range filtered {
			got = append(got, l.Conn+" "+l.State+" "+fmt.Sprint(l.LocalPort, l.PeerPort))
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) || len(want) == 0 || len(want) == len(whole) {
			t.Errorf("%q lists\n%s\nwant\n%s\nof %d sockets\n%.5000v", row.args, strings.Join(got, "\n"), strings.Join(want, "\n"), len(whole), r)
		}
	}
	others, _ := snapshot(t, "--not-netns", fmt.Sprint(g.n.Inode()))
	for _, l := range others {
		if l.Netns == g.n.Inode() {
			t.Errorf("--not-netns lists a socket of the namespace: %+v", l)
		}
	}
}

// A snapshot as text is a table with the same sockets.
func TestSnapshot_Text(t *testing.T) {
	requireRoot(t)
	g := newEveryState(t)
	r := run(flags("snapshot", "--format", "text", "--netns", fmt.Sprint(g.n.Inode())))
	r.mustEnd(t, 0)
	r.mustPrintError(t, "")
	rows := strings.Split(strings.TrimSuffix(r.stdout, "\n"), "\n")
	if got, want := strings.Fields(rows[0]), strings.Fields("STATE ROLE NETNS PID COMM LOCAL PEER RECV-Q SEND-Q EXPIRES"); !slices.Equal(got, want) {
		t.Errorf("the header is %q, want %q", got, want)
	}
	column := func(row, title string) string {
		value, _, _ := strings.Cut(row[min(len(row), strings.Index(rows[0], title)):], " ")
		return value
	}
	var got []string
	for _, row := range rows[1:] {
		owner := map[string]string{
			"-": noOwner, fmt.Sprint(os.Getpid()): mine, fmt.Sprint(g.peer.pid()): peers,
		}[column(row, "PID")]
		if column(row, "STATE") == "TIME_WAIT" {
			if left, err := time.ParseDuration(column(row, "EXPIRES")); err != nil || left <= 0 || left > time.Minute {
				t.Errorf("want a remaining time of up to a minute: %s: %v", row, err)
			}
		}
		got = append(got, line(column(row, "STATE"), column(row, "LOCAL"), column(row, "PEER"), owner))
	}
	var want []string
	for _, s := range g.sockets {
		s = strings.TrimSuffix(s, " TIME_WAIT")
		want = append(want, strings.TrimSuffix(s, " FIN_WAIT2"))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got:\n%s\nwant:\n%s\n%v", strings.Join(got, "\n"), strings.Join(want, "\n"), r)
	}
}

// A snapshot goes to a file, with labels, and appends.
func TestSnapshot_FileWithLabels(t *testing.T) {
	requireRoot(t)
	n := tcplab.NewNetns(t)
	n.Listen(netip.MustParseAddrPort("127.0.0.1:17109"))
	file := filepath.Join(t.TempDir(), "sockets")
	for times := 1; times <= 2; times++ {
		r := run(flags("snapshot", "--netns", fmt.Sprint(n.Inode()), "--output", file, "--label", "team=net"))
		r.mustEnd(t, 0)
		r.mustPrintNothing(t)
		r.mustPrintError(t, "")
		content, err := os.ReadFile(file)
		if err != nil || strings.Count(string(content), "\n") != times || !strings.HasSuffix(string(content), `,"team":"net"}`+"\n") {
			t.Errorf("after %d snapshots the file contains %q, %v", times, content, err)
		}
	}
}

// A snapshot of a namespace without sockets is empty.
func TestSnapshot_EmptyNamespace(t *testing.T) {
	requireRoot(t)
	n := tcplab.NewNetns(t)
	if all, r := snapshot(t, "--netns", fmt.Sprint(n.Inode())); len(all) != 0 {
		t.Errorf("%d sockets, want none\n%v", len(all), r)
	}
}

// A user without the capabilities gets one sentence with the remedy.
func TestSnapshot_NotPermitted(t *testing.T) {
	requireRoot(t)
	const enter = "this kernel does not permit entering network namespaces to this process " +
		"(uid %d, without CAP_SYS_ADMIN, in the initial user namespace, without a seccomp filter): "
	for _, format := range []string{"ndjson", "text"} {
		for _, row := range []struct {
			adjust func(*exec.Cmd)
			line   string
		}{
			{asNobody(), noCapability(nobody, asRoot)},
			{asNobody(unix.CAP_BPF, unix.CAP_PERFMON), fmt.Sprintf(enter, nobody) + "run as root (sudo tcpshift snapshot), " +
				"or let only a group that you trust execute the binary (chgrp GROUP, chmod 0750), and then give it CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN (setcap cap_bpf,cap_perfmon,cap_sys_admin+ep)"},
			{withBoundingSet(unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_SYS_PTRACE), fmt.Sprintf(enter, 0) + "give CAP_BPF, CAP_PERFMON " +
				"and CAP_SYS_ADMIN to its container (docker run --cap-add=BPF --cap-add=PERFMON --cap-add=SYS_ADMIN), " +
				"pod (securityContext.capabilities.add) or service (systemd CapabilityBoundingSet)"},
		} {
			r := run(flags("snapshot", "--format", format), row.adjust)
			r.mustEnd(t, 3)
			r.mustPrintNothing(t)
			r.mustPrintError(t, row.line)
		}
	}
}

// CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN are enough for a snapshot.
func TestSnapshot_ThreeCapabilities(t *testing.T) {
	requireRoot(t)
	n := tcplab.NewNetns(t)
	n.Listen(netip.MustParseAddrPort("127.0.0.1:17109"))
	var r result
	n.Do(func() {
		r = run(flags("snapshot"), asNobody(unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_SYS_ADMIN))
	})
	r.mustEnd(t, 0)
	r.mustPrintError(t, "")
	if !strings.Contains(r.stdout, `"local_port":17109`) {
		t.Errorf("the listener of this namespace is not listed\n%.5000v", r)
	}
}
