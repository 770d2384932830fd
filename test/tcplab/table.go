package tcplab

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Entry is one line of /proc/net/tcp or tcp6 of the namespace.
type Entry struct {
	Local, Remote netip.AddrPort
	// State is, for a timewait socket, its substate: TIME_WAIT, or FIN_WAIT2 while the
	// peer's FIN has not come.
	State State
	// Timewait is true for the small socket that replaces a closed one.
	Timewait bool
}

// Table returns every TCP socket of the namespace, with orphans and timewait sockets.
// Unlike sock_diag it needs no kernel module.
func (n *Netns) Table() []Entry {
	n.t.Helper()
	var entries []Entry
	for _, file := range []string{"tcp", "tcp6"} {
		lines := strings.Split(strings.TrimSpace(n.netFile(file)), "\n")
		for _, line := range lines[1:] {
			e, err := parseEntry(line)
			n.must("parse /proc/net/"+file, err)
			entries = append(entries, e)
		}
	}
	return entries
}

// InUse returns the number of TCP sockets of the namespace without timewait sockets.
// Its cost does not grow with their number.
func (n *Netns) InUse() int {
	n.t.Helper()
	return n.counter("sockstat", "TCP: inuse ") + n.counter("sockstat6", "TCP6: inuse ")
}

// RetransmissionLimit bounds the wait for a segment that a test has dropped before. A FIN that
// was dropped for s seconds is sent again after up to s seconds more, at most 120
// (TCP_RTO_MAX); a slow guest needs a minute to load a tracer meanwhile.
const RetransmissionLimit = 130 * time.Second

// Settle waits until the namespace has at most live TCP sockets, not counting timewait
// sockets, and until all events of the closed sockets have fired.
func (n *Netns) Settle(live int) {
	n.t.Helper()
	n.awaitWithin(RetransmissionLimit, fmt.Sprintf("fall of the sockets in use to %d", live), func() bool { return n.InUse() <= live })
	flushSoftirqs()
}

// flushSoftirqs returns when every network softirq that runs now has ended. A closing
// socket leaves the tables shortly before its event fires, but both happen within one
// RCU read-side section, and membarrier waits for all of those.
func flushSoftirqs() {
	const membarrierGlobal = 1
	_, _, _ = unix.RawSyscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0)
}

// settled waits until none of the endpoints has a live socket: then all their events
// have fired.
func (n *Netns) settled(endpoints []*Endpoint) {
	n.t.Helper()
	n.await("end of every socket", func() bool {
		for _, e := range n.Table() {
			if !e.Timewait && slices.ContainsFunc(endpoints, e.mayBe) {
				return false
			}
		}
		return true
	})
	flushSoftirqs()
}

// mayBe reports whether the entry can be the endpoint's. Connections to different
// addresses may share a local port.
func (e Entry) mayBe(p *Endpoint) bool {
	return e.Local == p.Local && (p.Remote.Port() == 0 || e.Remote == p.Remote)
}

// awaitTimewait waits until the endpoint is a timewait socket in the substate.
func (n *Netns) awaitTimewait(p *Endpoint, substate State) {
	n.t.Helper()
	n.await("timewait socket in "+substate.String(), func() bool { return n.TimewaitSubstate(p) == substate })
}

// AwaitTimewaitEnd waits until the timewait socket of the endpoint has ended.
func (n *Netns) AwaitTimewaitEnd(p *Endpoint) {
	n.t.Helper()
	n.AwaitTimewaitEndLater(p, 0)
}

// AwaitTimewaitEndLater is AwaitTimewaitEnd with a timeout of waitLimit plus longer.
func (n *Netns) AwaitTimewaitEndLater(p *Endpoint, longer time.Duration) {
	n.t.Helper()
	n.awaitWithin(waitLimit+longer, "end of the timewait socket", func() bool { return n.TimewaitSubstate(p) == 0 })
}

// TimewaitSubstate returns the substate of the endpoint's timewait socket, 0 if there is none now.
func (n *Netns) TimewaitSubstate(p *Endpoint) State {
	n.t.Helper()
	for _, e := range n.Table() {
		if e.Timewait && e.Local == p.Local && e.Remote == p.Remote {
			return e.State
		}
	}
	return 0
}

func (n *Netns) netFile(name string) string {
	n.t.Helper()
	var text []byte
	var err error
	n.Do(func() { text, err = os.ReadFile("/proc/thread-self/net/" + name) })
	n.must("read /proc/net/"+name, err)
	return string(text)
}

func (n *Netns) counter(file, prefix string) int {
	n.t.Helper()
	_, rest, ok := strings.Cut("\n"+n.netFile(file), "\n"+prefix)
	if !ok {
		n.t.Fatalf("/proc/net/%s has no %q", file, prefix)
	}
	field, _, _ := strings.Cut(strings.ReplaceAll(rest, "\n", " "), " ")
	value, err := strconv.Atoi(field)
	n.must("parse /proc/net/"+file, err)
	return value
}

// parseEntry parses "sl local remote st tx:rx timer:when ...".
func parseEntry(line string) (Entry, error) {
	fields := strings.Fields(line)
	if len(fields) < 6 {
		return Entry{}, fmt.Errorf("short line %q", line)
	}
	local, err := parseProcAddr(fields[1])
	if err != nil {
		return Entry{}, err
	}
	remote, err := parseProcAddr(fields[2])
	if err != nil {
		return Entry{}, err
	}
	state, err := strconv.ParseUint(fields[3], 16, 8)
	if err != nil {
		return Entry{}, err
	}
	timer, _, _ := strings.Cut(fields[5], ":")
	const timewaitTimer = "03"
	return Entry{Local: local, Remote: remote, State: State(state), Timewait: timer == timewaitTimer}, nil
}

// parseProcAddr parses "0100007F:1F90": 32-bit words in the byte order of the host.
func parseProcAddr(text string) (netip.AddrPort, error) {
	host, portText, _ := strings.Cut(text, ":")
	raw, err := hex.DecodeString(host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	for word := raw; len(word) >= 4; word = word[4:] {
		binary.NativeEndian.PutUint32(word, binary.BigEndian.Uint32(word))
	}
	addr, ok := netip.AddrFromSlice(raw)
	port, err := strconv.ParseUint(portText, 16, 16)
	if !ok || err != nil {
		return netip.AddrPort{}, fmt.Errorf("not an address: %q", text)
	}
	return netip.AddrPortFrom(addr, uint16(port)), nil
}
