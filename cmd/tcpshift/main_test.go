package main

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"

	"github.com/tcpshift/tcpshift/internal/output"
	"github.com/tcpshift/tcpshift/internal/probe"
)

// A closed output is a normal end only if nothing else failed: an error that is joined with
// it is reported.
func TestReaderGone_OnlyFailure(t *testing.T) {
	broken := errors.New("broken")
	pipe := &os.PathError{Op: "write", Path: "/dev/stdout", Err: syscall.EPIPE}
	for _, tt := range []struct {
		name string
		err  error
		want bool
	}{
		{"alone", output.ErrReaderGone, true},
		{"as the error of a system call", pipe, true},
		{"wrapped", fmt.Errorf("write: %w", output.ErrReaderGone), true},
		{"twice", errors.Join(output.ErrReaderGone, errors.Join(pipe)), true},
		{"another error", broken, false},
		{"before another error", errors.Join(output.ErrReaderGone, broken), false},
		{"after another error", errors.Join(broken, output.ErrReaderGone), false},
		{"with another error, wrapped", fmt.Errorf("list: %w", errors.Join(broken, pipe)), false},
		{"with an error of the host", errors.Join(&probe.HostError{Problem: "old"}, pipe), false},
	} {
		if got := readerGone(tt.err); got != tt.want {
			t.Errorf("%s: readerGone is %t, want %t", tt.name, got, tt.want)
		}
	}
}
