package probe

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/tcpshift/tcpshift/internal/bpfobj"
)

// configured returns the programs with their constants set.
func configured(t *testing.T, opts Options, features Features) *ebpf.CollectionSpec {
	t.Helper()
	spec, err := configure(opts, features, tracePrograms, NewKernel())
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

func constant[T comparable](t *testing.T, spec *ebpf.CollectionSpec, name string) (value T) {
	t.Helper()
	if err := spec.Variables[name].Get(&value); err != nil {
		t.Fatalf("read %s: %v", name, err)
	}
	return value
}

func checkConstant[T comparable](t *testing.T, spec *ebpf.CollectionSpec, name string, want T) {
	t.Helper()
	if got := constant[T](t, spec, name); got != want {
		t.Errorf("%s is %v, want %v", name, got, want)
	}
}

// The map for socket storage is created as such only where the kernel supports it.
func TestConfigure_SocketStorage(t *testing.T) {
	for _, tt := range []struct {
		features Features
		want     ebpf.MapType
	}{
		{Features{{Name: SocketStorage}}, ebpf.SkStorage},
		{Features{{Name: SocketStorage, Err: os.ErrInvalid}}, ebpf.Array},
		{nil, ebpf.Array},
	} {
		spec := configured(t, Options{BufferSize: 1 << 20}, tt.features)
		if got := spec.Maps[bpfobj.ProbeMapSockStates].Type; got != tt.want {
			t.Errorf("with %+v the map is of type %v, want %v", tt.features, got, tt.want)
		}
	}
}

// The program at reads is loaded only where it is wanted and where no program can be at
// accept().
func TestConfigure_ReadHook(t *testing.T) {
	on, off := error(nil), os.ErrInvalid
	for _, tt := range []struct{ accept, read error }{{on, on}, {on, off}, {off, on}, {off, off}} {
		spec := configured(t, Options{BufferSize: 1 << 20}, Features{{Name: SocketStorage}, {Name: AcceptHook, Err: tt.accept}, {Name: ReadHook, Err: tt.read}})
		if got, want := spec.Programs[bpfobj.ProbeProgReadBy] != nil, tt.accept != nil && tt.read == nil; got != want {
			t.Errorf("accept_hook %v, read_hook %v: loaded is %v, want %v", tt.accept, tt.read, got, want)
		}
	}
}

// A chain has a third program, and memory for it, only where programs may be preempted. A tracer that may change its
// filters has entries beside two of the chains.
func TestConfigure_ChainLength(t *testing.T) {
	for _, tt := range []struct {
		preempted bool
		length    uint32
		third     bool
	}{
		{false, 2, false},
		{true, 3, true},
	} {
		opts := Options{BufferSize: 1 << 20, TimeWaitEnds: true, MayBePreempted: &tt.preempted, Reloadable: true}
		spec := configured(t, opts, Features{{Name: TimeWaitEnds}, {Name: ResetReceived}, {Name: ResetSent}})
		checkConstant(t, spec, bpfobj.ProbeVarMayBePreempted, tt.preempted)
		checkConstant(t, spec, bpfobj.ProbeVarChainLength, tt.length)
		for _, c := range chains {
			if got := spec.Programs[c[0]] != nil && spec.Programs[c[1]] != nil; !got {
				t.Errorf("preempted %v: a program of %v is missing", tt.preempted, c[:2])
			}
			if got := spec.Programs[c[2]] != nil; got != tt.third {
				t.Errorf("preempted %v: %s is loaded: %v, want %v", tt.preempted, c[2], got, tt.third)
			}
		}
		for name, want := range map[string]uint32{bpfobj.ProbeMapCounters: tt.length, bpfobj.ProbeMapEventCtxScratch: 2*tt.length + 2} {
			if got := spec.Maps[name].MaxEntries; got != want {
				t.Errorf("preempted %v: %s has %d entries, want %d", tt.preempted, name, got, want)
			}
		}
	}
}

// A tracer that keeps its filters has no entries.
func TestConfigure_NotReloadable(t *testing.T) {
	spec := configured(t, Options{BufferSize: 1 << 20}, Features{{Name: ResetReceived}, {Name: ResetSent}})
	for _, name := range slices.Concat(transitionEntries[:], resetSentEntries[:]) {
		if spec.Programs[name] != nil {
			t.Errorf("%s is loaded", name)
		}
	}
	if spec.Programs[transitionChain[0]] == nil {
		t.Errorf("%s is missing", transitionChain[0])
	}
}

// Programs may be preempted since 7.0; an unknown version counts as one that preempts.
func TestConfigure_PreemptionSince(t *testing.T) {
	for _, tt := range []struct {
		major, minor, patch uint32
		err                 error
		want                bool
	}{
		{5, 10, 223, nil, false},
		{6, 18, 44, nil, false},
		{6, 19, 255, nil, false},
		{7, 0, 0, nil, true},
		{7, 1, 13, nil, true},
		{0, 0, 0, os.ErrNotExist, true},
	} {
		if got := preemptsPrograms(tt.major<<16|tt.minor<<8|tt.patch, tt.err); got != tt.want {
			t.Errorf("Linux %d.%d.%d, error %v: %v, want %v", tt.major, tt.minor, tt.patch, tt.err, got, tt.want)
		}
	}
}

// ExcludeSelf identifies this process in its own pid namespace.
func TestConfigure_ExcludeSelf(t *testing.T) {
	spec := configured(t, Options{ExcludeSelf: true, BufferSize: 1 << 20}, nil)
	link, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		t.Fatal(err)
	}
	checkConstant(t, spec, bpfobj.ProbeVarExcludeSelf, true)
	checkConstant(t, spec, bpfobj.ProbeVarSelfPid, uint32(os.Getpid()))
	if got := fmt.Sprintf("pid:[%d]", constant[uint64](t, spec, bpfobj.ProbeVarSelfPidnsIno)); got != link {
		t.Errorf("the namespace is %s, want %s", got, link)
	}
}

// Calls of kfuncs that the kernel does not have are removed.
func TestConfigure_MissingKfuncs(t *testing.T) {
	for _, has := range []bool{true, false} {
		spec, err := bpfobj.LoadProbe()
		if err != nil {
			t.Fatal(err)
		}
		program := spec.Programs[bpfobj.ProbeProgSetStatePrimary].Instructions
		size := len(program)
		asked := map[string]bool{}
		dropMissingCalls(program, func(name string) bool { asked[name] = true; return has })
		left := slices.ContainsFunc(program, func(i asm.Instruction) bool { return i.IsKfuncCall() })
		if left != has || len(program) != size || !asked["bpf_rdonly_cast"] {
			t.Errorf("the kernel has them: %v; calls left: %v; asked for %v", has, left, asked)
		}
	}
}
