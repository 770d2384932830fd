package cli_test

import (
	"context"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	collogs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	"google.golang.org/grpc"
)

// otlpReceiver counts the log records that it gets over gRPC, by their event's name.
type otlpReceiver struct {
	collogs.UnimplementedLogsServiceServer

	mu     sync.Mutex
	events map[string]uint64
}

func (r *otlpReceiver) Export(_ context.Context, request *collogs.ExportLogsServiceRequest) (*collogs.ExportLogsServiceResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, of := range request.ResourceLogs {
		for _, scope := range of.ScopeLogs {
			for _, each := range scope.LogRecords {
				r.events[each.EventName]++
			}
		}
	}
	return &collogs.ExportLogsServiceResponse{}, nil
}

func (r *otlpReceiver) count(event string) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.events[event]
}

// An OpenTelemetry receiver gets the whole stream, also in the sandbox, without privileges and with a spool. The
// output's own connection is left out.
func TestOTLP_WholeStream(t *testing.T) {
	for _, sandbox := range []string{"--sandbox=false", "--sandbox"} {
		t.Run(sandbox, func(t *testing.T) {
			r := &otlpReceiver{events: make(map[string]uint64)}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			server := grpc.NewServer()
			collogs.RegisterLogsServiceServer(server, r)
			go func() { _ = server.Serve(l) }()
			defer server.Stop()
			s := newTraffic(t)
			tr := startTracer(t, append(s.byNetns(), sandbox, "--only", "transition,connection,loss", "--output", "-",
				"--spool", filepath.Join(t.TempDir(), "spool"), "--output", "otlp://"+l.Addr().String()))
			s.makeConnections()
			all := tr.stop()
			for began := time.Now(); r.count("tcpshift.stop") == 0; time.Sleep(5 * time.Millisecond) {
				if time.Since(began) > waitLimit {
					t.Fatalf("no stop within %v, but %v\n%s", waitLimit, r.events, all.result.stderr)
				}
			}
			for _, kind := range []string{"transition", "connection", "start", "stop"} {
				if got, want := r.count("tcpshift."+kind), uint64(len(all.of(kind))); got != want {
					t.Errorf("%d records of the type %s, want %d", got, kind, want)
				}
			}
		})
	}
}
