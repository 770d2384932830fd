package main

import (
	"context"
	"errors"

	"github.com/tcpshift/tcpshift/internal/httpserver"
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/trace"
)

// beside is what a trace opens beside its outputs while it still has its privileges. Each is nil if it is not wanted.
type beside struct {
	recording *recording
	flight    *flightRecorder
	scrapes   *httpserver.Server
	page      *livePage
}

// openBeside opens the recording, the directory of the flight recorder, and the listeners for scrapes and for the live page.
func (o *traceOptions) openBeside(ctx context.Context, outs openOutputs) (*beside, error) {
	b := &beside{}
	var err error
	if b.recording, err = o.openRecording(ctx); err == nil {
		b.flight, err = o.recorder.open()
	}
	if err == nil {
		b.scrapes, err = o.listenForScrapes()
	}
	if err == nil {
		b.page, err = o.openPage(outs)
	}
	if err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

// startServers answers scrapes and shows the live page, where they are wanted. It returns a function that ends the metrics.
func (o *traceOptions) startServers(cfg *trace.Config, p *probe.Probe, outs openOutputs, also *beside) (end func()) {
	also.page.serve()
	return o.startMetrics(cfg, p, outs, also.scrapes)
}

// addTo lets signals reach what is open.
func (b *beside) addTo(now *running) {
	b.recording.alsoAbandon(now)
	b.flight.addTo(now)
}

// close closes the listeners, and waits until all files are written or abandoned.
func (b *beside) close() error {
	_ = b.scrapes.Close()
	b.page.close()
	return errors.Join(b.flight.close(), b.recording.close())
}
