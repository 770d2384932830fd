// Package httpserver serves HTTP on one address to clients that may be anybody: the connections, the time that each may
// take, and what a request may send are bounded, and idle clients do not keep others out. It must not know what is served,
// and logs nothing about its clients.
package httpserver

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sys/unix"

	"github.com/prometheus/exporter-toolkit/web"

	"github.com/tcpshift/tcpshift/internal/safeopen"
)

const (
	// maxClients bounds the connections at a time: each takes a descriptor and some memory, and any local
	// user may connect.
	maxClients   = 64
	spareClients = 16 // that are open while others are closed for them
	// MaxConnections bounds the connections that are open, those that are being closed included.
	MaxConnections = maxClients + spareClients
	// RequestLimit bounds the time that a request may take to arrive, and answerLimit that which the answer
	// may take to be read.
	RequestLimit, answerLimit = 5 * time.Second, 10 * time.Second
	idleLimit                 = 2 * time.Minute // longer than the usual interval of scrapes
	maxHeader                 = 16 << 10        // bytes
	validateLimit             = 5 * time.Second // for the web configuration
)

// Server answers requests on one address.
type Server struct {
	listener net.Listener
	config   string
	server   *http.Server
}

// Listen listens on address, which is HOST:PORT. webConfig is the path of a web configuration file of the Prometheus
// exporter-toolkit, which is checked now and read again for each connection; empty: neither TLS nor passwords. own gets the
// cookies of the sockets of this server, those of accepted connections from any goroutine; nil: nothing gets them.
func Listen(address, webConfig string, own func(cookie uint64)) (*Server, error) {
	if webConfig != "" {
		if err := CheckWebConfig(webConfig); err != nil {
			return nil, err
		}
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, listenError(address, err)
	}
	if own != nil {
		listener = &noting{Listener: listener, note: own}
		noteCookie(listener.(*noting).Listener, own)
	}
	return &Server{listener: netutil.LimitListener(listener, MaxConnections), config: webConfig}, nil
}

// CheckWebConfig checks the web configuration file at path, and the files that it names. It refuses what is no regular
// file, and waits five seconds at most: the toolkit opens the files that it names, of whatever kind.
func CheckWebConfig(path string) error {
	if err := safeopen.CheckRegular(path); err != nil {
		return fmt.Errorf("web configuration %s: %w", path, err)
	}
	valid := make(chan error, 1)
	go func() { valid <- web.Validate(path) }()
	select {
	case err := <-valid:
		if err != nil {
			return fmt.Errorf("web configuration %s: %s", path, strings.Join(strings.Fields(err.Error()), " "))
		}
		return nil
	case <-time.After(validateLimit):
		return fmt.Errorf("web configuration %s: a file that it names cannot be read within %v: use regular files", path, validateLimit)
	}
}

// listenError says in one sentence why it cannot listen.
func listenError(address string, err error) error {
	var cause syscall.Errno
	var lookup *net.DNSError
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("%s is in use by another process: choose another port", address)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Errorf("%s is no address of this host: use one of 'ip address'", address)
	case errors.As(err, &lookup):
		return fmt.Errorf("%s: the name is not known: use an address", address)
	case errors.As(err, &cause):
		return fmt.Errorf("listen on %s: %w", address, cause)
	}
	return fmt.Errorf("listen on %s: %w", address, err)
}

// noting notes the cookie of each connection that it accepts.
type noting struct {
	net.Listener
	note func(cookie uint64)
}

func (l *noting) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		noteCookie(conn, l.note)
	}
	return conn, err
}

func noteCookie(socket any, note func(cookie uint64)) {
	s, ok := socket.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		if cookie, err := unix.GetsockoptUint64(int(fd), unix.SOL_SOCKET, unix.SO_COOKIE); err == nil {
			note(cookie)
		}
	})
}

// Addr is the address that it listens on.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Serve answers requests in the background until Close. failed gets the error of a server that ends before.
func (s *Server) Serve(handler http.Handler, failed func(error)) {
	all := clients{open: make(map[net.Conn]clientState)}
	s.server = &http.Server{
		Handler: handler, ConnState: all.changed, ReadTimeout: RequestLimit, WriteTimeout: answerLimit, IdleTimeout: idleLimit, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), // of clients, which may be anybody
	}
	noSystemd := false
	flags := &web.FlagConfig{WebSystemdSocket: &noSystemd, WebConfigFile: &s.config}
	go func() {
		err := web.Serve(s.listener, s.server, flags, slog.New(slog.DiscardHandler))
		if err != nil && !errors.Is(err, http.ErrServerClosed) {
			failed(err)
		}
	}()
}

// Close ends the server and its connections. It waits for no client. It does nothing for a nil Server.
func (s *Server) Close() error {
	if s == nil {
		return nil
	}
	if s.server == nil {
		return s.listener.Close()
	}
	return s.server.Close()
}
