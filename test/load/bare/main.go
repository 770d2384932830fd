// Command bare is the least that a tracer of inet_sock_set_state can do: one program
// that writes 64 bytes into a ring buffer for each event, and a reader that drops them.
// Other tracers are measured against it, so it must not do more.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/ring"
)

const (
	ringBytes    = 16 << 20 // tcpshift's default
	recordBytes  = 64
	pollInterval = 40 * time.Millisecond // between two reads of the ring, as in tcpshift
	noWakeup     = 1                     // BPF_RB_NO_WAKEUP
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bare:", err)
		os.Exit(1)
	}
}

func run() error {
	events, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.RingBuf, MaxEntries: ringBytes})
	if err != nil {
		return err
	}
	defer events.Close()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "bare", Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp, AttachTo: "inet_sock_set_state",
		License: "GPL", Instructions: hook(events),
	})
	if err != nil {
		return err
	}
	defer program.Close()
	attached, err := link.AttachTracing(link.TracingOptions{Program: program})
	if err != nil {
		return err
	}
	defer attached.Close()
	reader, err := ring.New([]ring.Buffer{{FD: events.FD(), Size: ringBytes}}, nil)
	if err != nil {
		return err
	}
	defer reader.Close()
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGINT)
	fmt.Println("ready")
	return drain(reader, ended)
}

// hook reserves a record, writes each of its bytes, and submits it.
func hook(events *ebpf.Map) asm.Instructions {
	code := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMapPtr(asm.R1, events.FD()),
		asm.Mov.Imm(asm.R2, recordBytes),
		asm.Mov.Imm(asm.R3, 0),
		asm.FnRingbufReserve.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
	}
	for offset := int16(0); offset < recordBytes; offset += 8 {
		code = append(code,
			asm.LoadMem(asm.R1, asm.R6, offset%24, asm.DWord), // the tracepoint's three arguments
			asm.StoreMem(asm.R0, offset, asm.R1, asm.DWord))
	}
	return append(code,
		asm.Mov.Reg(asm.R1, asm.R0),
		asm.Mov.Imm(asm.R2, noWakeup),
		asm.FnRingbufSubmit.Call(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("out"),
		asm.Return(),
	)
}

func drain(reader *ring.Reader, ended <-chan os.Signal) error {
	for {
		select {
		case <-ended:
			return nil
		default:
		}
		if err := reader.ReadFor(pollInterval, func([]byte) error { return nil }); err != nil {
			return err
		}
	}
}
