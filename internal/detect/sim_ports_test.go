package detect

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// unusedPort finds a port for bind(): no socket has it.
func (k *simKernel) unusedPort() (uint16, bool) {
	for range 20 {
		i := k.random.IntN(int(k.limits.PortHigh) - int(k.limits.PortLow) + 1)
		port, used := k.limits.PortLow+uint16(i), false
		for _, d := range k.destinations {
			used = used || d.ports[i] != nil
		}
		if !used && k.bound[port] == 0 {
			return port, true
		}
	}
	return 0, false
}

// choosePort is __inet_hash_connect(): it skips the ports that bind() has taken, and those of
// sockets with the same destination, except TIME_WAITs that tcp_twsk_unique() lets it take over.
func (k *simKernel) choosePort(d *simDestination) (uint16, bool) {
	offset := k.random.IntN(len(d.ports))
	for i := range d.ports {
		at := (offset + i) % len(d.ports)
		port := k.limits.PortLow + uint16(at)
		s := d.ports[at]
		if s != nil && !k.isFree(s, k.now) || k.bound[port] > 0 {
			continue
		}
		if s != nil {
			k.remove(s)
		}
		return port, true
	}
	return 0, false
}

// isFree reports whether connect() could take over the port of a socket at a time.
func (k *simKernel) isFree(s *simSocket, at time.Duration) bool { return at >= k.freeAt(s) }

// freeAt is when the port of a socket is free for another connect().
func (k *simKernel) freeAt(s *simSocket) time.Duration {
	switch {
	case s.state != tcp.TimeWait && s.state != tcp.FinWait2:
		return 1 << 62
	case s.untimed || s.bound || !k.reuses(s.to):
		return s.endAt
	}
	if s.state == tcp.FinWait2 && k.limits.ReusesFinWait2 {
		return min(s.endAt, s.createdAt+k.limits.ReuseDelay)
	}
	return min(s.endAt, s.finAt+k.limits.ReuseDelay)
}

func (k *simKernel) reuses(d *simDestination) bool {
	return k.limits.Reuse == 1 || k.limits.Reuse == 2 && (d.key.local.IsLoopback() || d.key.peer.IsLoopback())
}

// holdOf is how long a new timewait socket will keep its port.
func (k *simKernel) holdOf(s *simSocket) time.Duration {
	waits := s.finAt - s.createdAt
	switch {
	case !s.untimed && !s.bound && k.reuses(s.to) && k.limits.ReusesFinWait2 && waits >= k.limits.ReuseDelay:
		return k.limits.ReuseDelay
	case waits >= s.endAt-s.createdAt:
		return s.endAt - s.createdAt
	case s.untimed || s.bound || !k.reuses(s.to):
		return waits + 61*time.Second
	}
	return waits + k.limits.ReuseDelay
}
