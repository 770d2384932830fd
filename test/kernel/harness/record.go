package harness

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// RecordsByCookie runs body in a new namespace and returns all records of it. It skips
// the test where records have no cookie.
func RecordsByCookie(t *testing.T, body func(n *tcplab.Netns)) []Record {
	t.Helper()
	RequireFeature(t, probe.SocketCookie) // records are assigned to sockets by cookie
	return RecordsOf(t, body)
}

// RecordsOf runs body in a new namespace and returns all records of it.
func RecordsOf(t *testing.T, body func(n *tcplab.Netns)) []Record {
	t.Helper()
	tr := SharedTracers(t)[0]
	var n *tcplab.Netns
	var c capture
	untilShown(t, func() string {
		n = tcplab.NewNetns(t)
		watch := newWatch(t, n)
		c = capture{tr, true, tr.size()}
		body(n)
		n.Settle(0)
		return watch.hidden()
	})
	if err := fence(n); err != nil {
		t.Fatal(err)
	}
	lines, err := c.records(n)
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// AwaitRecord waits until the tracer of RecordsOf has written a record of the socket.
func AwaitRecord(t *testing.T, cookie uint64) {
	t.Helper()
	conn := fmt.Appendf(nil, `"conn":%q,`, ConnID(cookie))
	tr := SharedTracers(t)[0]
	if err := poll(func() bool { return bytes.Contains(tr.since(0), conn) }); err != nil {
		t.Fatal(err)
	}
}

// ConnID returns a socket cookie as records show it in conn.
func ConnID(cookie uint64) string { return strconv.FormatUint(cookie, 16) }

// RecordsWith returns the records of one socket and one type.
func RecordsWith(lines []Record, recordType string, cookie uint64) []Record {
	var mine []Record
	for _, l := range OfType(lines, recordType) {
		if l.Conn == ConnID(cookie) {
			mine = append(mine, l)
		}
	}
	return mine
}

// ofNamespaces returns the lines of these namespaces. It looks for the key only: to
// parse all lines would take longer than the case.
func ofNamespaces(text []byte, inodes ...uint32) []byte {
	mine := make([]byte, 0, len(text))
	for l := range bytes.Lines(text) {
		_, value, _ := bytes.Cut(l, []byte(`"netns":`))
		digits, _, _ := bytes.Cut(value, []byte(","))
		if inode, err := strconv.ParseUint(string(digits), 10, 32); err == nil && slices.Contains(inodes, uint32(inode)) {
			mine = append(mine, l...)
		}
	}
	return mine
}

// Record is one record, as a reader of the output sees it.
type Record struct {
	Type   string    `json:"type"`
	Time   time.Time `json:"time"`
	Seq    uint64    `json:"seq"`
	Conn   string    `json:"conn"`
	Netns  uint32    `json:"netns"`
	Family string    `json:"family"`
	Mapped bool      `json:"mapped"`

	LocalAddr string `json:"local_addr"`
	LocalPort uint16 `json:"local_port"`
	PeerAddr  string `json:"peer_addr"`
	PeerPort  uint16 `json:"peer_port"`
	Role      string `json:"role"`

	Old       string  `json:"old_state"`
	New       string  `json:"new_state"`
	KernelNew string  `json:"kernel_new_state"`
	Substate  string  `json:"time_wait_substate"`
	Self      bool    `json:"self"`
	InState   *uint64 `json:"in_state_ns"`

	TimeWaitEnd string `json:"time_wait_end"`

	PID    *uint32 `json:"pid"`
	Comm   string  `json:"comm"`
	UID    *uint32 `json:"uid"`
	Source string  `json:"pid_source"`
	Cgroup string  `json:"cgroup"`
	Error  string  `json:"error"`

	Opened      *time.Time `json:"opened"`
	Duration    *uint64    `json:"duration_ns"`
	Established *uint64    `json:"established_ns"`
	Sent        uint64     `json:"sent_bytes"`
	Received    uint64     `json:"received_bytes"`
	RTT         uint64     `json:"rtt_ns"`
	FinalState  string     `json:"final_state"`
	ClosedBy    string     `json:"closed_by"`
	ResetReason string     `json:"reset_reason"`
	Partial     bool       `json:"partial"`

	Container       string `json:"container"`
	Runtime         string `json:"container_runtime"`
	PodUID          string `json:"pod_uid"`
	Claimed         bool   `json:"container_claimed"`
	Retransmits     uint64 `json:"retransmits"`
	TimeWaitUnknown any    `json:"time_wait_unknown"` // true in a transition, a count in stop

	Lost  uint64 `json:"lost"`
	Cause string `json:"cause"`

	Seen, Filtered, Deferred, Read, Dropped, Written uint64
	LostRingFull                                     uint64 `json:"lost_ring_full"`
	LostRingBusy                                     uint64 `json:"lost_ring_busy"`
	LostReentry                                      uint64 `json:"lost_reentry"`
	Fired, Entered, Missed                           uint64
	OtherProtocol                                    uint64 `json:"other_protocol"`
	LostResets                                       uint64 `json:"lost_resets"`
	StateUnavailable                                 uint64 `json:"state_unavailable"`

	Raw string
}

// parseRecords parses whole lines. A storm has a million, so it copies neither a Record nor
// a line more than once.
func parseRecords(text []byte) ([]Record, error) {
	lines := make([]Record, bytes.Count(text, []byte("\n")))
	rest := string(text)
	for i := range lines {
		end := strings.IndexByte(rest, '\n') + 1
		l := &lines[i]
		l.Raw = rest[:end]
		if err := json.Unmarshal(text[:end], l); err != nil {
			return nil, fmt.Errorf("a line is not JSON: %w\n%s", err, l.Raw)
		}
		rest, text = rest[end:], text[end:]
	}
	return lines, nil
}

// headOf returns type and seq, which stand first in each record.
func headOf(raw string) (recordType string, seq uint64) {
	_, rest, _ := strings.Cut(raw, `{"type":"`)
	recordType, rest, _ = strings.Cut(rest, `"`)
	_, rest, _ = strings.Cut(rest, `"seq":`)
	digits, _, _ := strings.Cut(rest, ",")
	seq, _ = strconv.ParseUint(digits, 10, 64)
	return recordType, seq
}

// CountType counts the records of a type in whole lines.
func CountType(text, recordType string) int {
	return strings.Count(text, `{"type":"`+recordType+`",`)
}

// ConnectionsOf returns those connection records that are of the socket: by its cookie, or by
// its ports on a kernel without cookies, where a socket without a local port has none.
func ConnectionsOf(ends []Record, p *tcplab.Endpoint) []Record {
	var mine []Record
	for _, l := range ends {
		switch {
		case l.Conn != "" && p.Cookie != 0:
			if l.Conn != ConnID(p.Cookie) {
				continue
			}
		case p.Local.Port() == 0 || !hasPortsOf(l, p):
			continue
		}
		mine = append(mine, l)
	}
	return mine
}

// OfType returns the records of one type.
func OfType(lines []Record, recordType string) []Record {
	var some []Record
	for _, l := range lines {
		if l.Type == recordType {
			some = append(some, l)
		}
	}
	return some
}
