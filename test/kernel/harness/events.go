package harness

import (
	"slices"
	"testing"

	"github.com/tcpshift/tcpshift/internal/decode"
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/tcp"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// Transitions runs body and returns all transitions that the programs emit meanwhile, with
// what no record shows.
func Transitions(t *testing.T, o probe.Options, body func()) []tcp.Transition {
	t.Helper()
	tcplab.RequireRoot(t)
	o.Kernel = kernel
	o.Without = append(slices.Clone(o.Without), switchedOff()...)
	p, err := probe.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}()
	body()
	var all []tcp.Transition
	err = p.ReadFor(0, func(sample []byte) error {
		var e decode.Event
		if err := decode.Sample(sample, &e); err != nil {
			return err
		}
		if e.Kind == decode.KindTransition {
			all = append(all, e.Transition)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
