package probe

import (
	"time"

	"github.com/cilium/ebpf"

	"github.com/tcpshift/tcpshift/internal/bpfobj"
)

// ListenPort returns the local port of a socket that listens without having been bound, by
// its cookie: its transition to LISTEN has none yet (bpf/listen_port.h). If listen() has not
// chosen the port yet, ListenPort waits for it, as long as waitBudget permits. It returns 0
// where the port is not known: the socket is gone, the wait was too long, or the kernel has no
// socket_cookie.
func (p *Probe) ListenPort(cookie uint64) uint16 {
	program := p.collection.Programs[bpfobj.ProbeProgListenPort]
	if program == nil {
		return 0
	}
	const quickTries, pause = 16, 200 * time.Microsecond
	for try := 1; ; try++ {
		port, err := program.Run(&ebpf.RunOptions{Context: cookie})
		if err != nil {
			return 0
		}
		if port != uint32(bpfobj.ProbeListenPortResultLISTEN_PORT_PENDING) {
			return uint16(port)
		}
		if try < quickTries {
			continue
		}
		if !p.portWaits.take(time.Now(), pause) {
			return 0
		}
		time.Sleep(pause)
	}
}

// waitBudget bounds how long the reader of the ring buffers waits for other threads. Without
// it, a process could fill the ring buffers: it calls listen() in many threads that share a
// busy CPU, and the scheduler interrupts some of them within the call. The zero value has the
// whole budget.
type waitBudget struct {
	spent   time.Duration
	updated time.Time
}

const (
	maxBudget = 100 * time.Millisecond // all of it may be spent in one wait
	waitShare = 20                     // 1/waitShare of the elapsed time is added to the budget
)

// take spends a wait at the time now, and reports whether the budget allows it.
func (b *waitBudget) take(now time.Time, wait time.Duration) bool {
	b.spent = max(0, b.spent-now.Sub(b.updated)/waitShare)
	b.updated = now
	if b.spent+wait > maxBudget {
		return false
	}
	b.spent += wait
	return true
}
