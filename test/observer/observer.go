// Package observer counts the transitions for which the kernel calls a program: the measure
// for tests that compare the tracer's records and counts. It must not share code with the tracer.
package observer

import (
	"fmt"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// states are the states of include/net/tcp_states.h, by number.
var states = [...]string{
	1: "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT",
	"CLOSE", "CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING",
}

// stateBits are the bits of a state in an index of the observer's map.
const stateBits = 4

// Observers count the calls of the tracepoint in one network namespace, or in each. A softirq
// interrupts one program at a time, so one of the three programs mostly misses nothing.
type Observers [3]*observer

// Everywhere is every namespace, in place of the inode of one.
const Everywhere uint32 = 0

// observer has a program that only filters and adds 1.
type observer struct {
	counts  *ebpf.Map // by key
	program *ebpf.Program
	link    link.Link
}

// key is the key of an observer's map: a namespace, and the old state << stateBits | the new state.
type key struct{ Netns, Pair uint32 }

// keys is how many pairs of all namespaces an observer has room for. Later ones are not counted.
const keys = 1 << 16

// Start attaches the programs. They count until the test ends.
func Start(t *testing.T, netns uint32) *Observers {
	t.Helper()
	all, err := Attach(netns)
	if err != nil {
		t.Fatalf("count the calls of the tracepoint: %v", err)
	}
	t.Cleanup(all.Close)
	return all
}

// Attach attaches the programs. They count until Close.
func Attach(netns uint32) (all *Observers, err error) {
	all = new(Observers)
	for i := range all {
		if all[i], err = newObserver(netns); err != nil {
			all.Close()
			return nil, err
		}
	}
	return all, nil
}

// Close detaches the programs.
func (all *Observers) Close() {
	for _, o := range all {
		if o != nil {
			o.close()
		}
	}
}

// Calls returns the counts of all namespaces together, until now, of the program that missed least.
func (all *Observers) Calls(t *testing.T) Calls {
	t.Helper()
	return all.CallsIn(t, Everywhere)
}

// CallsIn is Calls for one namespace.
func (all *Observers) CallsIn(t testing.TB, netns uint32) (best Calls) {
	t.Helper()
	for i, o := range all {
		c, err := o.calls(netns)
		if err != nil {
			t.Fatalf("the observer's counts: %v", err)
		}
		if i == 0 || c.Missed < best.Missed {
			best = c
		}
	}
	return best
}

func newObserver(netns uint32) (o *observer, err error) {
	o = new(observer)
	defer func() {
		if err != nil {
			o.close()
		}
	}()
	spec := &ebpf.MapSpec{Type: ebpf.Hash, KeySize: 8, ValueSize: 8, MaxEntries: keys}
	if o.counts, err = ebpf.NewMap(spec); err != nil {
		return o, err
	}
	code, err := countPairs(o.counts, netns)
	if err != nil {
		return o, err
	}
	o.program, err = ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "observer", Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp, AttachTo: "inet_sock_set_state",
		License: "GPL", Instructions: code,
	})
	if err != nil {
		return o, err
	}
	o.link, err = link.AttachTracing(link.TracingOptions{Program: o.program})
	return o, err
}

// countPairs adds 1 to the element of the namespace and the two states, if the socket is a TCP
// socket of the wanted namespace.
func countPairs(counts *ebpf.Map, netns uint32) (asm.Instructions, error) {
	var field struct{ net, inode, protocol int16 }
	kernel, err := btf.LoadKernelSpec()
	if err == nil {
		field.net, err = offset(kernel, "sock", "__sk_common", "skc_net", "net")
	}
	if err == nil {
		field.inode, err = offset(kernel, "net", "ns", "inum")
	}
	if err == nil {
		field.protocol, err = offset(kernel, "sock", "sk_protocol")
	}
	const keyAt, oneAt = -8, -16 // on the stack
	code := asm.Instructions{
		asm.LoadMem(asm.R6, asm.R1, 0, asm.DWord),  // the socket
		asm.LoadMem(asm.R7, asm.R1, 8, asm.DWord),  // the old state
		asm.LoadMem(asm.R8, asm.R1, 16, asm.DWord), // the new state
		asm.LoadMem(asm.R1, asm.R6, field.protocol, asm.Half),
		asm.JNE.Imm(asm.R1, unix.IPPROTO_TCP, "out"),
		asm.LoadMem(asm.R1, asm.R6, field.net, asm.DWord),
		asm.LoadMem(asm.R1, asm.R1, field.inode, asm.Word),
	}
	if netns != Everywhere {
		code = append(code, asm.LoadImm(asm.R2, int64(netns), asm.DWord), asm.JNE.Reg(asm.R1, asm.R2, "out"))
	}
	element := func() asm.Instructions { // R0: the element of the key, or 0
		return asm.Instructions{
			asm.LoadMapPtr(asm.R1, counts.FD()),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, keyAt),
			asm.FnMapLookupElem.Call(),
		}
	}
	code = append(code,
		asm.LSh.Imm(asm.R7, stateBits),
		asm.Or.Reg(asm.R7, asm.R8),
		asm.StoreMem(asm.RFP, keyAt, asm.R1, asm.Word),
		asm.StoreMem(asm.RFP, keyAt+4, asm.R7, asm.Word),
	)
	code = append(append(code, element()...),
		asm.JNE.Imm(asm.R0, 0, "add"),
		asm.Mov.Imm(asm.R1, 1),
		asm.StoreMem(asm.RFP, oneAt, asm.R1, asm.DWord),
		asm.LoadMapPtr(asm.R1, counts.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, keyAt),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, oneAt),
		asm.Mov.Imm(asm.R4, int32(ebpf.UpdateNoExist)),
		asm.FnMapUpdateElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
	)
	return append(append(code, element()...), // another CPU has just created it
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.Mov.Imm(asm.R1, 1).WithSymbol("add"),
		asm.StoreXAdd(asm.R0, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("out"),
		asm.Return(),
	), err
}

// offset returns the offset in bytes of a member of a kernel struct. Names after the first
// lead through the structs in it.
func offset(kernel *btf.Spec, name string, members ...string) (int16, error) {
	var in *btf.Struct
	if err := kernel.TypeByName(name, &in); err != nil {
		return 0, err
	}
	var bytes uint32
	for i, member := range members {
		at := slices.IndexFunc(in.Members, func(m btf.Member) bool { return m.Name == member })
		if at < 0 {
			return 0, fmt.Errorf("struct %s has no member %s", name, member)
		}
		bytes += in.Members[at].Offset.Bytes()
		var inner bool
		if in, inner = btf.UnderlyingType(in.Members[at].Type).(*btf.Struct); !inner && i < len(members)-1 {
			return 0, fmt.Errorf("member %s of struct %s is no struct", member, name)
		}
	}
	return int16(bytes), nil
}

// calls returns the counts of one namespace, or of Everywhere.
func (o *observer) calls(netns uint32) (c Calls, err error) {
	stats, err := o.program.Stats()
	if err != nil {
		return c, err
	}
	c = Calls{make(Counts), stats.RecursionMisses}
	var k key
	var n uint64
	entries := o.counts.Iterate()
	for entries.Next(&k, &n) {
		if netns != Everywhere && k.Netns != netns {
			continue
		}
		p := Pair{stateName(k.Pair >> stateBits), stateName(k.Pair & (1<<stateBits - 1))}
		if p == (Pair{toTimeWait.From, "CLOSE"}) {
			p = toTimeWait
		}
		c.Counts[p] += n
	}
	return c, entries.Err()
}

func stateName(number uint32) string {
	if number == 0 || number >= uint32(len(states)) {
		return fmt.Sprint("STATE_", number)
	}
	return states[number]
}

// close releases what newObserver has opened. Its errors show nothing that the
// counts do not show.
func (o *observer) close() {
	if o.link != nil {
		_ = o.link.Close()
	}
	if o.program != nil {
		_ = o.program.Close()
	}
	if o.counts != nil {
		_ = o.counts.Close()
	}
}
