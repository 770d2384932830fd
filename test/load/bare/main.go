// Command bare is the least that a tracer of inet_sock_set_state can do: one program
// that writes 64 bytes into a ring buffer for each event, and a reader that throws
// them away. Others are measured against it; it must not learn anything more.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

const (
	ringBytes   = 16 << 20 // as many as tcpshift has by default
	recordBytes = 64
	patience    = 40 * time.Millisecond // between two looks at the ring, as tcpshift
	noWakeup    = 1                     // BPF_RB_NO_WAKEUP
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bare:", err)
		os.Exit(1)
	}
}

func run() error {
	ring, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.RingBuf, MaxEntries: ringBytes})
	if err != nil {
		return err
	}
	defer ring.Close()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "bare", Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp, AttachTo: "inet_sock_set_state",
		License: "GPL", Instructions: hook(ring),
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
	reader, err := ringbuf.NewReader(ring)
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
func hook(ring *ebpf.Map) asm.Instructions {
	code := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMapPtr(asm.R1, ring.FD()),
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

func drain(reader *ringbuf.Reader, ended <-chan os.Signal) error {
	var record ringbuf.Record
	for {
		select {
		case <-ended:
			return nil
		default:
		}
		reader.SetDeadline(time.Now().Add(patience))
		for {
			err := reader.ReadInto(&record)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return err
			}
		}
	}
}
