package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/tcpshift/tcpshift/internal/journal"
	"github.com/tcpshift/tcpshift/internal/output"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/safeopen"
)

// The schemes of outputs to the socket of another process.
const (
	schemeTCP      = "tcp"
	schemeTLS      = "tls"
	schemeUnix     = "unix"
	schemeUnixgram = "unixgram"
	schemeJournald = "journald"

	schemeOTLP, schemeOTLPS         = "otlp", "otlps" // over gRPC
	schemeOTLPHTTP, schemeOTLPSHTTP = "otlp+http", "otlps+http"
)

// tlsFiles are the options of an output with TLS. Paths are empty if not given.
type tlsFiles struct {
	ca, cert, key string // in PEM
	serverName    string
}

// isRemote reports whether the output connects to a socket.
func (v *outputValue) isRemote() bool {
	return slices.Contains([]string{schemeTCP, schemeTLS, schemeUnix, schemeUnixgram, schemeJournald}, v.scheme) || v.isOTLP()
}

func (v *outputValue) isTCP() bool {
	return v.scheme == schemeTCP || v.scheme == schemeTLS || v.isOTLP()
}

// isOTLP reports whether the output sends requests to an OpenTelemetry receiver.
func (v *outputValue) isOTLP() bool {
	return slices.Contains([]string{schemeOTLP, schemeOTLPS, schemeOTLPHTTP, schemeOTLPSHTTP}, v.scheme)
}

// locateAddress parses what follows the scheme of a URL with a host and a port.
func (v *outputValue) locateAddress(rest string) error {
	address, found := strings.CutPrefix(rest, "//")
	host, port, err := net.SplitHostPort(address)
	n, numberErr := strconv.ParseUint(port, 10, 16)
	if !found || err != nil || numberErr != nil || host == "" || n == 0 {
		return fmt.Errorf("%s: is not an address: write %s://HOST:PORT, such as %s://192.0.2.1:6514", v.text, v.scheme, v.scheme)
	}
	v.path = address
	return nil
}

// locateEndpoint parses what follows the scheme of an OTLP receiver over HTTP: an address, and the path that comes
// before /v1/logs, as OTEL_EXPORTER_OTLP_ENDPOINT has it (OpenTelemetry protocol exporter, endpoint URLs).
func (v *outputValue) locateEndpoint(rest string) error {
	address, found := strings.CutPrefix(rest, "//")
	host, path, _ := strings.Cut(address, "/")
	path, err := url.PathUnescape(strings.TrimRight(path, "/"))
	if err != nil {
		return fmt.Errorf("%s: %w", v.text, err)
	}
	if found {
		host = "//" + host
	}
	if path != "" {
		v.prefix = "/" + path
	}
	return v.locateAddress(host)
}

// locateJournal parses what follows journald: as a path; none is the socket of the host's journal.
func (v *outputValue) locateJournal(rest string) error {
	v.format, v.schema = formatNDJSON, record.SchemaNative
	if rest == "" {
		v.path = journal.Socket
		return nil
	}
	return v.locatePath(rest)
}

// openRemote makes an output to a socket, which connects later. It reads the files of TLS now, because the
// process may have dropped the privilege to read them when it connects.
func openRemote(ctx context.Context, v *outputValue, spool *output.Spool, own *output.OwnSockets, notify func(message string)) (output.Output, error) {
	r := output.Remote{Network: v.scheme, Address: v.path, Own: own, Spool: spool, Notify: notify}
	if v.scheme == schemeJournald {
		r.Network, r.Encode = schemeUnixgram, journal.AppendEntry
	}
	if v.isTCP() {
		r.Network = "tcp"
	}
	if slices.Contains(withTLS, v.scheme) {
		config, err := v.tlsConfig()
		if err != nil {
			return nil, fmt.Errorf("--output: %s: %w", v.text, err)
		}
		r.TLS = config
	}
	if v.isOTLP() {
		if err := v.setExporter(ctx, &r); err != nil {
			return nil, fmt.Errorf("--output: %s: %w", v.text, err)
		}
	}
	out, err := output.OpenRemote(ctx, r)
	if err != nil {
		return nil, explainSpool(err)
	}
	return out, nil
}

func (v *outputValue) tlsConfig() (*tls.Config, error) {
	host, _, _ := net.SplitHostPort(v.path)
	config := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if v.tls.serverName != "" {
		config.ServerName = v.tls.serverName
	}
	var err error
	if config.RootCAs, err = authorities(v.tls.ca); err != nil {
		return nil, err
	}
	if v.tls.cert == "" {
		return config, nil
	}
	cert, certErr := safeopen.ReadFile(v.tls.cert)
	key, keyErr := safeopen.ReadFile(v.tls.key)
	if err := errors.Join(certErr, keyErr); err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("cert %s, key %s: %w", v.tls.cert, v.tls.key, err)
	}
	config.Certificates = []tls.Certificate{pair}
	return config, nil
}

// authorities reads the certificates of the authorities that may sign the peer's certificate. Without a path
// these are the authorities of the host.
func authorities(path string) (*x509.CertPool, error) {
	if path == "" {
		return x509.SystemCertPool()
	}
	text, err := safeopen.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("ca: %s has no certificate in PEM", path)
	}
	return pool, nil
}
