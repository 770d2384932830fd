package tcplab

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// An Obstacle makes every transmission of a namespace fail on the sending host, so that
// connect() and send() get the errors of a host in trouble. It works with the kernel alone.
type Obstacle struct {
	Name      string
	Set, Lift func(n *Netns)
}

// Obstacles is all obstacles.
var Obstacles = []Obstacle{
	{"link down", func(n *Netns) { n.setLoopback(false) }, func(n *Netns) { n.setLoopback(true) }},
	{"no route", func(n *Netns) { n.RefuseRoutes(unix.FR_ACT_UNREACHABLE, 1) }, (*Netns).AllowRoutes},
	{"full queue", (*Netns).FillQueue, (*Netns).FreeQueue},
}

// include/uapi/linux/fib_rules.h, which x/sys does not have
const (
	fraPriority   = 6
	fraTable      = 15
	fraIPProto    = 22
	fraSportRange = 23

	localTablePriority = 200 // after RefuseRoutes; 0 before
	refusePriority     = 100
)

func (n *Netns) setLoopback(up bool) {
	n.t.Helper()
	var err error
	n.Do(func() { err = setLoopback(up) })
	n.must("ioctl SIOCSIFFLAGS lo", err)
}

// RefuseRoutes makes the routing of IPv4 and IPv6 refuse TCP segments from a local port
// at or above firstPort, with an action such as unix.FR_ACT_PROHIBIT. connect() looks
// for a route before and after it chooses the port: only the second search is refused.
func (n *Netns) RefuseRoutes(action uint8, firstPort uint16) {
	n.t.Helper()
	ports := binary.NativeEndian.AppendUint16(nil, firstPort)
	ports = binary.NativeEndian.AppendUint16(ports, 65534) // 65535 is not accepted as an end
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		// The rule of the local table stands first, and it knows all addresses of loopback.
		n.rule(unix.RTM_NEWRULE, family, unix.FR_ACT_TO_TBL, localTablePriority, nil)
		n.rule(unix.RTM_NEWRULE, family, action, refusePriority,
			attribute(attribute(nil, fraIPProto, []byte{unix.IPPROTO_TCP}), fraSportRange, ports))
		n.rule(unix.RTM_DELRULE, family, unix.FR_ACT_TO_TBL, 0, nil)
	}
}

// AllowRoutes ends RefuseRoutes.
func (n *Netns) AllowRoutes() {
	n.t.Helper()
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		message := make([]byte, sizeofRuleHeader)
		message[0] = family
		n.route("delete a rule", unix.RTM_DELRULE, 0, attribute(message, fraPriority, binary.NativeEndian.AppendUint32(nil, refusePriority)))
	}
}

const sizeofRuleHeader = 12 // struct fib_rule_hdr

// rule adds or deletes a rule; one that goes to a table goes to the local table.
func (n *Netns) rule(kind uint16, family, action uint8, priority uint32, more []byte) {
	n.t.Helper()
	message := make([]byte, sizeofRuleHeader)
	message[0], message[7] = family, action
	if action == unix.FR_ACT_TO_TBL {
		message[4] = unix.RT_TABLE_LOCAL
		more = attribute(more, fraTable, binary.NativeEndian.AppendUint32(nil, unix.RT_TABLE_LOCAL))
	}
	message = attribute(message, fraPriority, binary.NativeEndian.AppendUint32(nil, priority))
	var flags uint16
	if kind == unix.RTM_NEWRULE {
		flags = unix.NLM_F_CREATE | unix.NLM_F_EXCL
	}
	n.route("change the routing rules", kind, flags, append(message, more...))
}

// include/uapi/linux/pkt_sched.h
const (
	tcRoot   = 0xffffffff
	tcHandle = 0x10000
)

// FillQueue gives loopback a queue without room: it drops every segment, and reports each
// drop to TCP.
func (n *Netns) FillQueue() {
	n.t.Helper()
	message := attribute(qdiscHeader(), unix.TCA_KIND, []byte("pfifo\x00"))
	limit := make([]byte, 4)
	message = attribute(message, unix.TCA_OPTIONS, limit)
	n.route("add a queue", unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_EXCL, message)
}

// FreeQueue ends FillQueue.
func (n *Netns) FreeQueue() {
	n.t.Helper()
	n.route("delete the queue", unix.RTM_DELQDISC, 0, qdiscHeader())
}

// qdiscHeader is struct tcmsg for the root queue of loopback.
func qdiscHeader() []byte {
	header := make([]byte, 4, 20)
	for _, word := range []uint32{loopback, tcHandle, tcRoot, 0} {
		header = binary.NativeEndian.AppendUint32(header, word)
	}
	return header
}

func (n *Netns) route(what string, kind, flags uint16, message []byte) {
	n.t.Helper()
	var err error
	n.Do(func() { err = routeRequest(kind, flags, message) })
	n.must(what, err)
}
