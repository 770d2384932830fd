package record

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// SocketCount appends a record of how many sockets a group has.
func (n *Native) SocketCount(dst []byte, c *tcp.SocketCount, _ []tcp.SocketKey) []byte {
	o := n.begin(dst, "socket_count", c.Time).uint("sockets", c.Sockets).trueIf("other", c.Other)
	if c.State != 0 {
		o = o.literal("state", c.State.String())
	}
	o = o.uintIfSet("netns", uint64(c.Netns)).
		endpoints(c.Local, c.Peer).
		uintIfSet("pid", uint64(c.PID))
	if c.CommKnown {
		o = o.bytes("comm", c.Comm.Bytes())
	}
	if c.UIDKnown {
		o = o.uint("uid", uint64(c.UID))
	}
	o = o.literalIfSet("container", c.Container).
		trueIf("container_claimed", c.ContainerClaimed).
		stringIfSet("pod", c.Pod).
		stringIfSet("namespace", c.Namespace).
		stringIfSet("container_name", c.ContainerName).
		stringIfSet("unit", c.Unit).
		trueIf("unit_claimed", c.UnitClaimed).
		stringIfSet("service", c.Service).
		trueIf("service_claimed", c.ServiceClaimed)
	return n.end(o)
}

// SocketCount appends a record of how many sockets a group has.
func (e *ECS) SocketCount(dst []byte, c *tcp.SocketCount, _ []tcp.SocketKey) []byte {
	o := e.begin(dst, c.Time, ecsSocketCount).ownSocketCount(c).
		ecsEndpoints(tcp.RoleUnknown, c.Local, c.Peer).
		uintIfSet("process.pid", uint64(c.PID))
	if c.CommKnown {
		o = o.bytes("process.name", c.Comm.Bytes())
	}
	o = o.groupUser(c).
		stringIfSet("orchestrator.resource.name", c.Pod).
		stringIfSet("orchestrator.namespace", c.Namespace).
		stringIfSet("container.name", c.ContainerName).
		stringIfSet("service.name", c.Service)
	return e.end(o.ownNames(c))
}

// SocketCount appends a record of how many sockets a group has.
func (e *OTel) SocketCount(dst []byte, c *tcp.SocketCount, _ []tcp.SocketKey) []byte {
	o := e.begin(dst, c.Time, otelSocketCount).ownSocketCount(c).
		otelEndpoints(c.Local, c.Peer).
		uintIfSet("process.pid", uint64(c.PID))
	if c.CommKnown {
		o = o.bytes("process.title", c.Comm.Bytes())
	}
	o = o.groupUser(c).
		stringIfSet("k8s.pod.name", c.Pod).
		stringIfSet("k8s.namespace.name", c.Namespace).
		stringIfSet("container.name", c.ContainerName). // a group does not know whether it is in a pod
		stringIfSet("tcpshift.service", c.Service)
	return e.end(o.ownNames(c), len(dst))
}

func (o object) ownSocketCount(c *tcp.SocketCount) object {
	o = o.uint("tcpshift.sockets", c.Sockets).trueIf("tcpshift.other", c.Other)
	if c.State != 0 {
		o = o.literal("tcpshift.state", c.State.String())
	}
	return o.uintIfSet("tcpshift.netns", uint64(c.Netns))
}

func (o object) groupUser(c *tcp.SocketCount) object {
	if c.UIDKnown {
		o = o.userID(c.UID)
	}
	return o.literalIfSet("container.id", c.Container)
}

func (o object) ownNames(c *tcp.SocketCount) object {
	return o.trueIf("tcpshift.container_claimed", c.ContainerClaimed).
		stringIfSet("tcpshift.unit", c.Unit).
		trueIf("tcpshift.unit_claimed", c.UnitClaimed).
		trueIf("tcpshift.service_claimed", c.ServiceClaimed)
}

// CountHeader appends nothing: NDJSON has no header.
func (n *Native) CountHeader(dst []byte, _ []tcp.SocketKey) []byte { return dst }

// CountHeader appends nothing: NDJSON has no header.
func (m *mappedEncoder) CountHeader(dst []byte, _ []tcp.SocketKey) []byte { return dst }

// socketsTitle is the title of the first column of counts.
const socketsTitle = "SOCKETS"

// keyWidths are the widths of the columns of counts, in cells; 0: that of the last column.
var keyWidths = [...]int{
	tcp.KeyState: columns[columnState].width, tcp.KeyNetns: columns[columnNetns].width, tcp.KeyLocal: columns[columnLocal].width,
	tcp.KeyLocalPort: len("LOCAL_PORT"), tcp.KeyPeer: columns[columnPeer].width, tcp.KeyPeerAddr: len("255.255.255.255"),
	tcp.KeyPID: columns[columnPID].width, tcp.KeyComm: columns[columnComm].width, tcp.KeyUID: len("4294967295"), tcp.KeyContainer: 12,
	tcp.KeyPod: nameWidth, tcp.KeyNamespace: nameWidth, tcp.KeyContainerName: nameWidth, tcp.KeyUnit: nameWidth, tcp.KeyService: nameWidth,
}

// nameWidth is the width of a column of names, in cells. A longer name moves the columns behind it.
const nameWidth = 24

// CountHeader appends the titles of the columns.
func (t Text) CountHeader(dst []byte, by []tcp.SocketKey) []byte {
	begin := len(dst)
	dst = append(dst, socketsTitle...)
	for i, key := range by {
		dst = appendCell(dst, []byte(strings.ToUpper(key.String())), keyWidths[key], i == len(by)-1)
	}
	return t.finishCount(dst, begin)
}

// finishCount ends the row in dst[begin:], and cuts it where the terminal ends.
func (t Text) finishCount(dst []byte, begin int) []byte {
	if t.Screen != nil {
		t.layout() // updates the width
		if displayWidth(dst[begin:]) > t.Screen.columns {
			dst, _ = cutRight(dst, begin, t.Screen.columns)
		}
	}
	return append(dst, '\n')
}

// SocketCount appends how many sockets a group has, and then the values of the keys.
func (t Text) SocketCount(dst []byte, c *tcp.SocketCount, by []tcp.SocketKey) []byte {
	begin := len(dst)
	number := strconv.AppendUint(nil, c.Sockets, 10)
	dst = append(dst, strings.Repeat(" ", max(0, len(socketsTitle)-len(number)))...)
	dst = append(dst, number...)
	if c.Other {
		return t.finishCount(append(dst, " all others"...), begin)
	}
	for i, key := range by {
		dst = appendCell(dst, appendGroupKey(nil, &c.SocketGroup, key), keyWidths[key], i == len(by)-1)
	}
	return t.finishCount(dst, begin)
}

// appendCell appends a space and a cell. It fills all cells but the last of a row.
func appendCell(dst, cell []byte, width int, last bool) []byte {
	dst = append(append(dst, ' '), cell...)
	if last {
		return dst
	}
	return append(dst, strings.Repeat(" ", max(0, width-displayWidth(cell)))...)
}

func appendGroupKey(dst []byte, g *tcp.SocketGroup, key tcp.SocketKey) []byte {
	number := func(known bool, n uint64) {
		if known {
			dst = strconv.AppendUint(dst, n, 10)
		}
	}
	switch key {
	case tcp.KeyState:
		dst = append(dst, g.State.String()...)
	case tcp.KeyNetns:
		number(g.Netns != 0, uint64(g.Netns))
	case tcp.KeyLocal:
		dst = appendGroupEndpoint(dst, g.Local)
	case tcp.KeyLocalPort:
		number(g.Local.Port != 0, uint64(g.Local.Port))
	case tcp.KeyPeer:
		dst = appendGroupEndpoint(dst, g.Peer)
	case tcp.KeyPeerAddr:
		dst = appendGroupEndpoint(dst, tcp.Endpoint{Addr: g.Peer.Addr})
	case tcp.KeyPID:
		number(g.PID != 0, uint64(g.PID))
	case tcp.KeyComm:
		dst = appendPrintable(dst, g.Comm.Bytes())
	case tcp.KeyUID:
		number(g.UIDKnown, uint64(g.UID))
	default:
		dst = appendGroupName(dst, g, key)
	}
	if len(dst) == 0 {
		return append(dst, '-')
	}
	return dst
}

// appendGroupName appends a key that the cgroup has.
func appendGroupName(dst []byte, g *tcp.SocketGroup, key tcp.SocketKey) []byte {
	switch key {
	case tcp.KeyContainer:
		return appendClaimable(dst, g.Container[:min(12, len(g.Container))], g.ContainerClaimed)
	case tcp.KeyPod:
		return appendClaimable(dst, g.Pod, false)
	case tcp.KeyNamespace:
		return appendClaimable(dst, g.Namespace, false)
	case tcp.KeyContainerName:
		return appendClaimable(dst, g.ContainerName, false)
	case tcp.KeyUnit:
		return appendClaimable(dst, g.Unit, g.UnitClaimed)
	case tcp.KeyService:
		return appendClaimable(dst, g.Service, g.ServiceClaimed)
	}
	return dst
}

// appendClaimable appends a name, with a question mark behind one that a user other than root may have chosen.
func appendClaimable(dst []byte, name string, claimed bool) []byte {
	dst = appendPrintable(dst, []byte(name))
	if claimed {
		dst = append(dst, '?')
	}
	return dst
}

// appendGroupEndpoint appends the address without its port if that is not known.
func appendGroupEndpoint(dst []byte, e tcp.Endpoint) []byte {
	switch {
	case !e.Addr.IsValid():
		return dst
	case e.Port == 0:
		return e.Addr.AppendTo(dst)
	}
	return netip.AddrPortFrom(e.Addr, e.Port).AppendTo(dst)
}
