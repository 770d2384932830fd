package otlp

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// silentReceiver accepts connections, takes what comes, and never answers. accepted gets a value for each.
func silentReceiver(t *testing.T) (address string, accepted chan struct{}) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	accepted = make(chan struct{}, 100)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { conn.Close() })
			accepted <- struct{}{}
		}
	}()
	return listener.Addr().String(), accepted
}

// eachSecurity is eachTransport, without and with TLS.
func eachSecurity(t *testing.T, f func(t *testing.T, overHTTP bool, security *tls.Config)) {
	t.Helper()
	eachTransport(t, func(t *testing.T, overHTTP bool) {
		for name, security := range map[string]*tls.Config{"plain": nil, "TLS": {MinVersion: tls.VersionTLS13}} {
			t.Run(name, func(t *testing.T) { f(t, overHTTP, security) })
		}
	})
}

// A receiver of metrics that never answers does not delay the end, whether a request is on its way then or not. The end
// says that the last values are not sent, and not that they are tried again.
func TestMetrics_SilentReceiver(t *testing.T) {
	for _, interval := range []string{"100", "60000"} {
		t.Setenv("OTEL_METRIC_EXPORT_INTERVAL", interval)
		eachSecurity(t, func(t *testing.T, overHTTP bool, security *tls.Config) {
			address, accepted := silentReceiver(t)
			messages := make(chan string, 100)
			registry := prometheus.NewRegistry()
			registry.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "tcpshift_test", Help: "Tests."}))
			s, err := SendMetrics(t.Context(), Config{Address: address, HTTP: overHTTP, TLS: security, Dial: new(net.Dialer).DialContext}, registry, func(message string) { messages <- message })
			if err != nil {
				t.Fatal(err)
			}
			if interval == "100" {
				<-accepted
			}
			began := time.Now()
			s.Close()
			if took := time.Since(began); took > 2*lastMetrics {
				t.Errorf("interval %s ms: the end took %v", interval, took)
			}
			if got := <-messages; !strings.HasPrefix(got, "the last metrics are not sent to "+address+": ") || len(messages) > 0 {
				t.Errorf("interval %s ms: the message is %q, and %d more", interval, got, len(messages))
			}
		})
	}
}

// A receiver of records that never answers holds up nothing once the request is canceled.
func TestExport_SilentReceiver(t *testing.T) {
	eachSecurity(t, func(t *testing.T, overHTTP bool, security *tls.Config) {
		address, accepted := silentReceiver(t)
		e, err := New(t.Context(), Config{Address: address, HTTP: overHTTP, TLS: security, Dial: new(net.Dialer).DialContext})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-accepted
			cancel()
		}()
		began := time.Now()
		if _, err := e.Export(ctx, goldenLines(t)); err == nil {
			t.Error("the request has succeeded")
		}
		_ = e.Close()
		if took := time.Since(began); took > 4*time.Second {
			t.Errorf("the end took %v", took)
		}
	})
}
