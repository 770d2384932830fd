package tcp

import "time"

// SocketOwner is what the sockets that are counted together have in common, besides their network namespace.
type SocketOwner struct {
	CgroupID uint64 // the owner's, else the socket's; 0: not known
	Comm     Comm   // of the owner's main thread; empty: no owner is known
	UID      uint32 // of the socket; of a request its listener's; 0 in TIME_WAIT, where it is not known
	State    State
}

// OwnerSockets counts sockets of one network namespace that are in one state and have one owner.
type OwnerSockets struct {
	SocketOwner
	// Other means that these are sockets of several owners, for which there is no room. Of SocketOwner only
	// State is set.
	Other bool
	Count uint64
}

// NetnsSockets are the sockets of one network namespace.
type NetnsSockets struct {
	Netns  uint32 // inode number
	Groups []OwnerSockets
}

// SocketCensus is one count of the sockets of all network namespaces that were found.
type SocketCensus struct {
	At         time.Time
	Namespaces []NetnsSockets
}
