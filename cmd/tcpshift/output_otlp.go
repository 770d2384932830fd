package main

import (
	"context"
	"os"
	"runtime"

	"github.com/tcpshift/tcpshift/internal/otlp"
	"github.com/tcpshift/tcpshift/internal/output"
)

// setExporter makes r send requests to an OpenTelemetry receiver. The exporter gets its connections from r's own
// dialer, which knows the sockets of this process.
func (v *outputValue) setExporter(ctx context.Context, r *output.Remote) error {
	host, _ := os.Hostname() // empty on failure: not known
	e, err := otlp.New(ctx, otlp.Config{
		Address: v.path, HTTP: v.scheme == schemeOTLPHTTP || v.scheme == schemeOTLPSHTTP, Path: v.prefix, TLS: r.TLS, Dial: r.Dial,
		Version: buildVersion(), Host: host, Arch: runtime.GOARCH,
	})
	if err != nil {
		return err
	}
	r.Export = e
	return nil
}
