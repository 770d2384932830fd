package peers_test

import (
	"os/exec"
	"strings"
)

// The ports of every case. The range of ephemeral ports is one port, so that the output
// of the tools does not differ from run to run.
const (
	serverPort = 8080
	clientPort = "50001"
)

// compareCase is one everyday case. A case begins with a client and a server, and its
// server listens.
type compareCase struct {
	name   string
	about  string         // one sentence for the document
	before func(s *stage) // what happens before any tool runs
	run    func(s *stage) // what the tools see
	ends   int            // how many connection records tcpshift writes
	gadget string         // what Inspektor Gadget's trace_tcp emits, read from its source
}

var compareCases = []compareCase{
	{
		name:   "The client closes first",
		about:  "A request of 78 bytes and an answer of 342; then the client closes, then the server.",
		run:    func(s *stage) { s.exchange(); s.client.do("close c"); s.child.do("read a"); s.child.do("close a") },
		ends:   2,
		gadget: "`connect` (client), `accept` (server), `close` (client), `close` (server)",
	},
	{
		name:   "The server closes first",
		about:  "The server has the TIME_WAIT.",
		run:    func(s *stage) { s.exchange(); s.child.do("close a"); s.client.do("read c"); s.client.do("close c") },
		ends:   2,
		gadget: "`connect` (client), `accept` (server), `close` (server), `close` (client)",
	},
	{
		name:  "Half-close",
		about: "The client ends its request with shutdown(), reads the answer, and closes.",
		run: func(s *stage) {
			s.open()
			s.client.do("shutdown c")
			s.child.do("read a")
			s.child.do("write a 342")
			s.child.do("close a")
			s.client.do("read c")
			s.client.do("close c")
		},
		ends:   2,
		gadget: "`connect` (client), `accept` (server), `close` (server), `close` (client)",
	},
	{
		name:  "The client resets",
		about: "The client closes with SO_LINGER 0.",
		run: func(s *stage) {
			s.open()
			s.client.do("linger c")
			s.client.do("close c")
			s.child.try("read a")
			s.child.do("close a")
		},
		ends:   2,
		gadget: "`connect` (client), `accept` (server), `close` (client), `close` (server); neither shows that it was a reset",
	},
	{
		name:   "Refused",
		about:  "The client connects to a port without a listener.",
		before: func(s *stage) { s.server.do("close s") },
		run:    func(s *stage) { s.client.try("connect c 127.0.0.1:8080"); s.client.do("close c") },
		ends:   1,
		gadget: "`connect` (client) with the error ECONNREFUSED",
	},
	{
		name:   "No answer",
		about:  "A firewall drops the SYN; here a socket filter does. The client gives up after a second.",
		before: func(s *stage) { s.server.do("drop s") },
		run:    func(s *stage) { s.client.try("connect c 127.0.0.1:8080"); s.client.do("close c") },
		ends:   1,
		gadget: "`connect` (client) with the error ETIMEDOUT",
	},
	{
		name:   "No free port",
		about:  "All ephemeral ports for the destination are taken, and connect() fails with EADDRNOTAVAIL.",
		before: func(s *stage) { s.open() },
		run:    func(s *stage) { s.client.try("connect second 127.0.0.1:8080"); s.client.do("close second") },
		ends:   1,
		gadget: "nothing: it keeps a connect() only if it returned 0 with a local port",
	},
	{
		name:   "A prefork server",
		about:  "The server listens, and a worker that inherits the listener accepts.",
		before: func(s *stage) { s.preforked() },
		run:    func(s *stage) { s.exchange(); s.client.do("close c"); s.child.do("read a"); s.child.do("close a") },
		ends:   2,
		gadget: "`connect` (client), `accept` (worker), `close` (client), `close` (worker)",
	},
	{
		name:   "A connection older than the tool",
		about:  "The connection is open before the tools start; then the server closes first.",
		before: func(s *stage) { s.exchange() },
		run:    func(s *stage) { s.child.do("close a"); s.client.do("read c"); s.client.do("close c") },
		ends:   2,
		gadget: "`close` (server), `close` (client)",
	},
	{
		name:  "Closed by an administrator",
		about: "`ss -K` ends the client's connection.",
		run: func(s *stage) {
			s.exchange()
			s.ss("-K", "sport = :"+clientPort)
			s.child.try("read a")
			s.child.do("close a")
			s.client.do("close c")
		},
		ends:   2,
		gadget: "`connect` (client), `accept` (server), `close` (server), `close` (client); nothing names `ss`",
	},
}

// stage is the namespace of a case, with a client and a server.
type stage struct {
	*namespace
	client, server *actor
	child          *actor // has the accepted sockets: the server, or its worker
	listener       string // the child's name for the listener
}

func (s *stage) preforked() {
	s.server.do("close s")
	s.server, s.child = startPrefork(s.t, s.Netns, serverPort)
	s.listener = "inherited"
}

// open makes a connection.
func (s *stage) open() {
	s.client.do("connect c 127.0.0.1:%d", serverPort)
	s.child.do("accept %s a", s.listener)
}

// exchange makes a connection with a request and an answer.
func (s *stage) exchange() {
	s.open()
	s.client.do("write c 78")
	s.child.do("read a")
	s.child.do("write a 342")
	s.client.do("read c")
}

// ss runs ss in the namespace.
func (s *stage) ss(args ...string) string {
	s.t.Helper()
	var out []byte
	var err error
	s.Do(func() { out, err = exec.Command("ss", args...).CombinedOutput() })
	if err != nil {
		s.t.Fatalf("ss %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
