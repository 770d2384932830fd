package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/tcpshift/tcpshift/internal/httpserver"
	"github.com/tcpshift/tcpshift/internal/metrics"
	"github.com/tcpshift/tcpshift/internal/monitor"
	"github.com/tcpshift/tcpshift/internal/otlp"
	"github.com/tcpshift/tcpshift/internal/output"
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/tcp"
	"github.com/tcpshift/tcpshift/internal/trace"
)

// metricsOptions are where metrics go. Without an address there are none, and nothing counts them.
type metricsOptions struct {
	listen    string       // HOST:PORT; empty: nowhere
	webConfig string       // path; empty: neither TLS nor passwords
	receiver  *outputValue // of OpenTelemetry; nil: none
	tls       *tls.Config  // of receiver; nil: no TLS
}

func (m *metricsOptions) wanted() bool { return m.listen != "" || m.receiver != nil }

func addMetricsFlags(flags *pflag.FlagSet, m *metricsOptions) {
	flags.Var(single(&m.listen, "HOST:PORT", parseListenAddress), "metrics-listen", "serve metrics to Prometheus at this address, such as 127.0.0.1:9464; every local user can read them there")
	flags.Var(single(&m.webConfig, "FILE", parseWebConfigPath), "metrics-web-config", "web configuration file of Prometheus' exporters, with TLS and passwords for --metrics-listen")
	flags.Var(single(&m.receiver, "URL", parseReceiver), "metrics-otlp", "send the metrics to an OpenTelemetry receiver every minute, such as otlp://192.0.2.1:4317; schemes and options of TLS as for --output")
}

// parseReceiver parses the URL of an OpenTelemetry receiver, with the options that say how to reach it.
func parseReceiver(s string) (*outputValue, error) {
	v, err := parseOutput(s)
	if err != nil && strings.HasPrefix(s, "otlp") {
		return nil, err
	}
	if err != nil || !v.isOTLP() {
		return nil, fmt.Errorf("%s: is not the URL of an OpenTelemetry receiver: use %s://HOST:PORT or %s://HOST:PORT", s, schemeOTLP, schemeOTLPHTTP)
	}
	for _, option := range v.given {
		if !slices.Contains([]string{"ca", "cert", "key", "servername"}, option) {
			return nil, fmt.Errorf("%s: %s: is for records, not for metrics", s, option)
		}
	}
	return v, nil
}

// parseListenAddress parses HOST:PORT. An empty host means all addresses of this host.
func parseListenAddress(s string) (string, error) {
	_, port, err := net.SplitHostPort(s)
	n, numberErr := strconv.ParseUint(port, 10, 16)
	if err != nil || numberErr != nil || n == 0 {
		return "", fmt.Errorf("%q is not an address to listen on: use HOST:PORT, such as 127.0.0.1:9464", s)
	}
	return s, nil
}

func parseWebConfigPath(s string) (string, error) {
	if s == "" {
		return "", errors.New("needs the path of a file")
	}
	return s, nil
}

// checkMetrics rejects flags that need --metrics-listen without it.
func (o *traceOptions) checkMetrics() error {
	if o.metrics.webConfig != "" && o.metrics.listen == "" {
		return usagef("--metrics-web-config: nothing listens: add --metrics-listen, such as --metrics-listen 127.0.0.1:9464")
	}
	return nil
}

// listenForScrapes listens on the address of the metrics, and answers nothing yet. It returns nil without an address.
// It also reads what sending metrics needs.
func (o *traceOptions) listenForScrapes() (*httpserver.Server, error) {
	if err := o.openReceiver(); err != nil || o.metrics.listen == "" {
		return nil, err
	}
	server, err := httpserver.Listen(o.metrics.listen, o.metrics.webConfig, o.noteOwnSockets())
	if err != nil {
		return nil, fmt.Errorf("--metrics-listen: %w", err)
	}
	return server, nil
}

// noteOwnSockets returns what gets the cookies of sockets that are left out of the trace; nil: none is left out.
func (o *traceOptions) noteOwnSockets() func(cookie uint64) {
	if !o.excludeSelf {
		return nil
	}
	if o.ownSockets == nil {
		o.ownSockets = new(output.OwnSockets)
	}
	return o.ownSockets.Add
}

// startMetrics counts for scrapes, and answers them. It returns a function that ends that.
func (o *traceOptions) startMetrics(cfg *trace.Config, p *probe.Probe, outs openOutputs, server *httpserver.Server) (end func()) {
	if !o.metrics.wanted() {
		return func() {}
	}
	c := metrics.Config{Version: buildVersion(), AllTransitions: o.kernelFilter().Transitions == nil, Alerts: o.wants("alert")}
	for i, each := range outs {
		c.Outputs = append(c.Outputs, metrics.Output{Name: cfg.Outputs[i].MetricsName, Limit: each.queueSize, Queue: each.queue})
	}
	m := metrics.New(c)
	counter := monitor.NewSocketCounter(p.CountSockets, o.filter, monitor.ForMetrics, warn)
	cfg.Metrics, cfg.SocketCounts = m, counter
	if server != nil {
		server.Serve(m.Handler(), func(err error) { warn("--metrics-listen: there are no more metrics: " + err.Error()) })
	}
	endSending := o.sendMetrics(m)
	return func() {
		counter.Close()
		endSending()
		m.Close()
	}
}

// openReceiver reads the files of TLS, before the process gives up the privilege to read them.
func (o *traceOptions) openReceiver() (err error) {
	v := o.metrics.receiver
	if v == nil {
		return nil
	}
	if o.excludeSelf && o.ownSockets == nil {
		o.ownSockets = new(output.OwnSockets)
	}
	if slices.Contains(withTLS, v.scheme) {
		if o.metrics.tls, err = v.tlsConfig(); err != nil {
			return fmt.Errorf("--metrics-otlp: %s: %w", v.text, err)
		}
	}
	return nil
}

// sendMetrics sends m to the receiver, if there is one. It returns a function that sends the last values.
func (o *traceOptions) sendMetrics(m *metrics.Metrics) (end func()) {
	v := o.metrics.receiver
	if v == nil {
		return func() {}
	}
	remote := output.Remote{Network: "tcp", Address: v.path, Own: o.ownSockets}
	host, _ := os.Hostname() // empty on failure: not known
	sender, err := otlp.SendMetrics(context.Background(), otlp.Config{
		Address: v.path, HTTP: v.scheme == schemeOTLPHTTP || v.scheme == schemeOTLPSHTTP, Path: v.prefix, TLS: o.metrics.tls, Dial: remote.Dial,
		Version: buildVersion(), Host: host, Arch: runtime.GOARCH,
	}, m.Gatherer(), func(message string) { warn("--metrics-otlp: " + message) })
	if err != nil {
		warn("--metrics-otlp: " + v.text + ": " + err.Error())
		return func() {}
	}
	return sender.Close
}

// metricsNames are the names of the outputs in labels: those that were given, else the kind of each. Paths and
// addresses are no names.
func (all openOutputs) metricsNames() (names []string) {
	for i, each := range all {
		name := fmt.Sprintf("%s-%d", each.scheme, i+1)
		switch {
		case slices.Contains(each.given, "name"):
			name = record.Printable(each.name)
		case each.path == "-":
			name = "stdout"
		case each.scheme == schemePage:
			name = schemePage
		}
		for slices.Contains(names, name) {
			name += "+"
		}
		names = append(names, name)
	}
	return names
}

// addMetricsTransitions adds what metrics need of transitions that nothing else needs: the ends of connections, and
// the handshakes of clients.
func (m *metricsOptions) addMetricsTransitions(needed *tcp.Transitions) {
	if m.wanted() {
		needed.Join(tcp.EndTransitions())
		needed.Add([]tcp.State{tcp.SynSent}, []tcp.State{tcp.Established})
	}
}
