package probe

import (
	"fmt"
	"runtime"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/bpfobj"
)

// ProgramCounters are the counters of one program, summed over all CPUs. All but
// Missed and part of LostResets come from struct program_counters in bpf/event.h, which
// defines them.
type ProgramCounters struct {
	Missed           uint64 // firings of the tracepoint while the program was running (recursion_misses)
	Entered          uint64
	Deduplicated     uint64
	OtherProtocol    uint64
	Filtered         uint64
	Emitted          uint64
	RingFull         uint64
	RingBusy         uint64
	Deferred         uint64
	Resumed          uint64
	TimeWaitUnknown  uint64
	TimeWaitEndsLost uint64
	StateUnavailable uint64
	MissedUpdates    uint64 // of connections that live; only of the primary, see bpf/update.h
	Unsampled        uint64 // transitions of sockets that Options.Sample leaves out
	UnsampledEnds    uint64 // of these, ends of connections
	LostResets       uint64 // of this program; the primary's also have what missedByAll returns
}

// Fired is the number of times that the tracepoint fired while the program was attached.
func (c *ProgramCounters) Fired() uint64 {
	return c.Entered + c.Missed
}

// Counters are the counters of the programs of the tracepoint, in the order of the chain
// (bpf/dedup.h): the primary's first, then those of the backups. Those of programs that are
// not loaded are zero. The primary is attached for the longest time, so its Fired is that of
// the tracepoint.
type Counters [bpfobj.ProbeProgramRankPROGRAMS]ProgramCounters

// Sum adds up the counters of all programs.
func (c *Counters) Sum() ProgramCounters {
	var sum ProgramCounters
	for i := range c {
		p := &c[i]
		sum.Missed += p.Missed
		sum.Entered += p.Entered
		sum.Deduplicated += p.Deduplicated
		sum.OtherProtocol += p.OtherProtocol
		sum.Filtered += p.Filtered
		sum.Emitted += p.Emitted
		sum.RingFull += p.RingFull
		sum.RingBusy += p.RingBusy
		sum.Deferred += p.Deferred
		sum.Resumed += p.Resumed
		sum.TimeWaitUnknown += p.TimeWaitUnknown
		sum.TimeWaitEndsLost += p.TimeWaitEndsLost
		sum.StateUnavailable += p.StateUnavailable
		sum.MissedUpdates += p.MissedUpdates
		sum.Unsampled += p.Unsampled
		sum.UnsampledEnds += p.UnsampledEnds
		sum.LostResets += p.LostResets
	}
	return sum
}

// Counters reads the counters. While events are being handled it reads them at slightly
// different moments, so sums may be wrong by a few events.
func (p *Probe) Counters() (Counters, error) {
	var c Counters
	for rank, name := range transitionChain {
		program := p.attached(name)
		if program == nil {
			break // the chain is shorter
		}
		if err := p.readProgram(rank, program, &c[rank]); err != nil {
			return c, err
		}
	}
	for _, programs := range []chain{resetReceivedChain, resetSentChain} {
		missed, err := p.missedByAll(programs)
		if err != nil {
			return c, err
		}
		c[0].LostResets += missed
	}
	return c, nil
}

// Entered is the Entered of the primary program, at a fraction of the cost of all counters. Every firing
// adds to it, except those that come while the primary program runs.
func (p *Probe) Entered() (entered uint64, err error) {
	if err := p.collection.Maps[bpfobj.ProbeMapCounters].Lookup(uint32(bpfobj.ProbeProgramRankPROGRAM_PRIMARY), &p.perCPU); err != nil {
		return 0, fmt.Errorf("read counters: %w", err)
	}
	for i := range p.perCPU {
		entered += p.perCPU[i].Entered
	}
	return entered, nil
}

// missedByAll returns an upper bound of the firings that every program of a chain missed,
// because each was already running on that CPU. Such a firing is a miss of each program, so
// the smallest count of misses is the bound.
func (p *Probe) missedByAll(programs chain) (fewest uint64, err error) {
	for rank, name := range programs {
		program := p.attached(name)
		if program == nil {
			break // the chain is shorter, or the kernel lacks the feature
		}
		stats, err := program.Stats()
		if err != nil {
			return 0, fmt.Errorf("read program statistics: %w", err)
		}
		if rank == 0 || stats.RecursionMisses < fewest {
			fewest = stats.RecursionMisses
		}
	}
	return fewest, nil
}

func (p *Probe) readProgram(rank int, program *ebpf.Program, c *ProgramCounters) error {
	stats, err := program.Stats()
	if err != nil {
		return fmt.Errorf("read program statistics: %w", err)
	}
	c.Missed = stats.RecursionMisses
	if err := p.collection.Maps[bpfobj.ProbeMapCounters].Lookup(uint32(rank), &p.perCPU); err != nil {
		return fmt.Errorf("read counters: %w", err)
	}
	for i := range p.perCPU {
		cpu := &p.perCPU[i]
		c.Entered += cpu.Entered
		c.Deduplicated += cpu.Deduplicated
		c.OtherProtocol += cpu.OtherProtocol
		c.Filtered += cpu.Filtered
		c.Emitted += cpu.Emitted
		c.RingFull += cpu.RingFull
		c.RingBusy += cpu.RingBusy
		c.Deferred += cpu.Deferred
		c.Resumed += cpu.Resumed
		c.TimeWaitUnknown += cpu.TimewaitUnknown
		c.TimeWaitEndsLost += cpu.TimewaitEndsLost
		c.StateUnavailable += cpu.StateUnavailable
		c.MissedUpdates += cpu.MissedUpdates
		c.Unsampled += cpu.Unsampled
		c.UnsampledEnds += cpu.UnsampledEnds
		c.LostResets += cpu.LostResets
	}
	return nil
}

// settle waits until no program of a detached rank runs. Programs run inside RCU
// read-side sections, and membarrier(2) waits for those if more than one CPU is online. Older
// kernels detach a little later, from a work queue, so settle also waits until the counters of
// this rank stop changing, and fails if they do not. Programs that are still attached may go on counting.
func (p *Probe) settle(rank int) error {
	const rounds = 100
	var before ProgramCounters
	for range rounds {
		waitForReaders()
		all, err := p.Counters()
		if err != nil {
			return err
		}
		if all[rank] == before {
			return nil
		}
		before = all[rank]
	}
	return fmt.Errorf("a program of the rank of %s still runs after being detached: the last counts may be short", transitionChain[rank])
}

// waitForReaders waits for all RCU readers, by membarrier(2). With one CPU online the kernel
// returns at once (kernel/sched/membarrier.c), and a kernel that was booted with nohz_full refuses
// the call; there it pauses, and settle relies on the counters.
func waitForReaders() {
	const (
		membarrierCmdGlobal = 1 // include/uapi/linux/membarrier.h
		pause               = 5 * time.Millisecond
	)
	if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, membarrierCmdGlobal, 0, 0); errno != 0 || runtime.NumCPU() == 1 {
		time.Sleep(pause)
	}
}
