package tcp

import "time"

// OwnerSockets counts sockets of one network namespace that are in one state and have one owner.
type OwnerSockets struct {
	CgroupID uint64 // the owner's, else the socket's; 0: not known
	Comm     Comm   // of the owner's main thread; empty: no owner is known
	State    State
	Count    uint64
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
