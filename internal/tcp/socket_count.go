package tcp

import "time"

// SocketKey is a property by which the sockets of a snapshot are counted.
type SocketKey uint8

// The keys, in the order of a record.
const (
	KeyState SocketKey = iota
	KeyNetns
	KeyLocal // address and port
	KeyLocalPort
	KeyPeer // address and port
	KeyPeerAddr
	KeyPID
	KeyComm
	KeyUID
	KeyContainer
	KeyPod
	KeyNamespace
	KeyContainerName
	KeyUnit
	KeyService
	socketKeys
)

var socketKeyNames = [socketKeys]string{
	KeyState: "state", KeyNetns: "netns", KeyLocal: "local", KeyLocalPort: "local_port", KeyPeer: "peer", KeyPeerAddr: "peer_addr",
	KeyPID: "pid", KeyComm: "comm", KeyUID: "uid", KeyContainer: "container",
	KeyPod: "pod", KeyNamespace: "namespace", KeyContainerName: "container_name", KeyUnit: "unit", KeyService: "service",
}

// NeedsNames reports whether the values of the key follow from the names of containers and pods, which the path of
// a cgroup does not show.
func (k SocketKey) NeedsNames() bool {
	return k == KeyPod || k == KeyNamespace || k == KeyContainerName || k == KeyService
}

// String gives the name of the key.
func (k SocketKey) String() string { return socketKeyNames[k] }

// SocketKeys returns all keys.
func SocketKeys() []SocketKey {
	keys := make([]SocketKey, socketKeys)
	for i := range keys {
		keys[i] = SocketKey(i)
	}
	return keys
}

// SocketGroup is what the sockets that are counted together have in common: the values of some keys.
// What is not a key, or not known, is zero. It is comparable.
type SocketGroup struct {
	State       State
	Netns       uint32
	Local, Peer Endpoint
	PID         uint32
	Comm        Comm
	CommKnown   bool
	UID         uint32
	UIDKnown    bool
	Container   string
	// The names of what runs in the owner's cgroup.
	Pod, Namespace, ContainerName, Unit, Service string
	// A user other than root may have chosen Container, Unit or Service. So what imitates another's has a group of
	// its own. The names of containers and pods are never claimed.
	ContainerClaimed, UnitClaimed, ServiceClaimed bool
}

// SocketCount is how many sockets of a snapshot are in a group.
type SocketCount struct {
	Time time.Time
	SocketGroup
	Other   bool // the sockets of all groups that are not counted on their own; SocketGroup is zero
	Sockets uint64
}

// GroupOf returns the group of a socket by these keys. A timewait socket has no user.
func GroupOf(s *Socket, by []SocketKey) (g SocketGroup) {
	for _, key := range by {
		g.set(key, s)
	}
	return g
}

func (g *SocketGroup) set(key SocketKey, s *Socket) {
	switch key {
	case KeyState:
		g.State = s.New
	case KeyNetns:
		g.Netns = s.Netns
	case KeyLocal:
		g.Local = s.Local
	case KeyLocalPort:
		g.Local.Port = s.Local.Port
	case KeyPeer:
		g.Peer = s.Peer
	case KeyPeerAddr:
		g.Peer.Addr = s.Peer.Addr
	case KeyUID:
		if s.New != TimeWait {
			g.UID, g.UIDKnown = s.UID, true
		}
	case KeyPID, KeyComm:
		if s.Owner.Source != PIDUnknown {
			g.setOwner(key, &s.Owner)
		}
	case KeyService:
		g.setService(s)
	default:
		if s.Cgroup != nil && s.New != TimeWait {
			g.setName(key, s.Cgroup)
		}
	}
}

// setOwner sets a key that the owner has.
func (g *SocketGroup) setOwner(key SocketKey, o *Owner) {
	if key == KeyPID {
		g.PID = o.PID
	} else {
		g.Comm, g.CommKnown = o.Comm, true
	}
}

// setName sets a key that the cgroup has.
func (g *SocketGroup) setName(key SocketKey, c *Cgroup) {
	switch key {
	case KeyContainer:
		g.Container, g.ContainerClaimed = c.Container, c.ContainerClaimed && c.Container != ""
	case KeyPod:
		g.Pod = c.Pod
	case KeyNamespace:
		g.Namespace = c.Namespace
	case KeyContainerName:
		g.ContainerName = c.ContainerName
	case KeyUnit:
		g.Unit, g.UnitClaimed = c.Unit, c.UnitClaimed
	}
}

// setService sets the service as [ServiceName] has it. A socket without an owner has at most the name of its cgroup.
func (g *SocketGroup) setService(s *Socket) {
	if s.New == TimeWait {
		return
	}
	var comm Comm
	if s.Owner.Source != PIDUnknown {
		comm = s.Owner.Comm
	}
	g.Service = ServiceName(s.Cgroup, &comm)
	g.ServiceClaimed = s.Cgroup != nil && s.Cgroup.IsServiceClaimed()
}
