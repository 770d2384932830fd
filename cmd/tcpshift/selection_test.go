package main

import (
	"errors"
	"testing"

	"github.com/tcpshift/tcpshift/internal/probe"
)

// Without cookies a sample is refused with status 3, and nothing else is.
func TestSample_NeedsCookies(t *testing.T) {
	with := probe.Features{{Name: probe.SocketCookie, Remedy: "use Linux 5.15 or later"}}
	without := probe.Features{{Name: probe.SocketCookie, Err: errors.New("the kernel has none"), Remedy: "use Linux 5.15 or later"}}
	var o traceOptions
	if err := o.checkSampling(without); err != nil {
		t.Errorf("no sample: %v", err)
	}
	o.selection.Sample = 10
	if err := o.checkSampling(with); err != nil {
		t.Errorf("with cookies: %v", err)
	}
	err := o.checkSampling(without)
	const want = "--sample: it needs the cookies of sockets: the kernel has none: use Linux 5.15 or later, or leave out --sample"
	if err == nil || err.Error() != want || exitStatus(err) != statusHost {
		t.Errorf("without cookies: %v, status %d; want %s", err, exitStatus(err), want)
	}
}
