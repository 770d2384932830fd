package probe

import (
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/bpfobj"
)

// ProgramCounters are one program's, summed over the CPUs; see struct
// program_counters in bpf/event.h.
type ProgramCounters struct {
	Missed        uint64 // firings that came while it was running
	Entered       uint64
	LeftToTwin    uint64
	OtherProtocol uint64
	Filtered      uint64
	Emitted       uint64
	RingFull      uint64
	RingBusy      uint64
	Held          uint64
	Released      uint64
	WalkBound     uint64
	EndUntold     uint64
}

// Fired is how often the tracepoint fired while the program was attached.
func (c *ProgramCounters) Fired() uint64 {
	return c.Entered + c.Missed
}

// Counters are those of both programs.
type Counters struct {
	First, Second ProgramCounters
}

// Counters reads them. While events are under way the terms are not of one
// moment, so they may differ by a few events.
func (p *Probe) Counters() (Counters, error) {
	var c Counters
	err := p.readProgram(bpfobj.ProbeTwinTWIN_FIRST, p.collection.Programs[bpfobj.ProbeProgSetStateFirst], &c.First)
	if err == nil {
		err = p.readProgram(bpfobj.ProbeTwinTWIN_SECOND, p.collection.Programs[bpfobj.ProbeProgSetStateSecond], &c.Second)
	}
	return c, err
}

func (p *Probe) readProgram(twin bpfobj.ProbeTwin, program *ebpf.Program, c *ProgramCounters) error {
	stats, err := program.Stats()
	if err != nil {
		return fmt.Errorf("read program statistics: %w", err)
	}
	c.Missed = stats.RecursionMisses
	var perCPU []bpfobj.ProbeProgramCounters
	if err := p.collection.Maps[bpfobj.ProbeMapCounters].Lookup(uint32(twin), &perCPU); err != nil {
		return fmt.Errorf("read counters: %w", err)
	}
	for _, cpu := range perCPU {
		c.Entered += cpu.Entered
		c.LeftToTwin += cpu.LeftToTwin
		c.OtherProtocol += cpu.OtherProtocol
		c.Filtered += cpu.Filtered
		c.Emitted += cpu.Emitted
		c.RingFull += cpu.RingFull
		c.RingBusy += cpu.RingBusy
		c.Held += cpu.Held
		c.Released += cpu.Released
		c.WalkBound += cpu.WalkBound
		c.EndUntold += cpu.EndUntold
	}
	return nil
}

// settle waits until a detached program does not run any more. Programs run inside
// RCU read sections, and membarrier waits for those; older kernels detach a little
// later, from a work queue, so it also waits for the program's counters to stand
// still. The other programs may go on counting.
func (p *Probe) settle(program string) error {
	const rounds = 100
	var before ProgramCounters
	for range rounds {
		waitForReaders()
		all, err := p.Counters()
		if err != nil {
			return err
		}
		now := ProgramCounters{} // of a program that counts nothing
		switch program {
		case bpfobj.ProbeProgSetStateFirst:
			now = all.First
		case bpfobj.ProbeProgSetStateSecond:
			now = all.Second
		}
		if now == before {
			return nil
		}
		before = now
	}
	return fmt.Errorf("program %s still runs after being detached: the last counts may be short", program)
}

// waitForReaders is membarrier(2); a kernel booted with nohz_full refuses it, and
// there the counters standing still has to do.
func waitForReaders() {
	const membarrierCmdGlobal = 1 // include/uapi/linux/membarrier.h
	_, _, _ = unix.Syscall(unix.SYS_MEMBARRIER, membarrierCmdGlobal, 0, 0)
}
