package explain

// States that the kernel numbers but the textbook does not have. Neither is
// ever seen at the tracepoint; people meet their names in headers and in ss.

func newSynRecv() Topic {
	return Topic{
		Name:    "NEW_SYN_RECV",
		Aliases: []string{"NEW-SYN-RECV"},
		Summary: "A pending connection request on a server: SYN-ACK sent, final ACK awaited. It gives no record.",
		Meaning: "This is the textbook's SYN-RECEIVED as Linux keeps it: a small request that belongs to a listener, not a full socket. " +
			"It does not pass the tracepoint, so tcpshift shows nothing of it; its first trace is LISTEN -> SYN_RECV when the handshake completes. " +
			"`ss` prints such requests as SYN-RECV.",
		Normal: "It lasts one round trip to the client. " +
			"Some are always there on a busy server with distant clients, and TCP_DEFER_ACCEPT keeps a request here until the first data comes.",
		Remedy: "Compare `ss -tan state syn-recv` with `ss -ltn` and `nstat -az TcpExtListenOverflows TcpExtSyncookiesSent`. " +
			"If the listener's Recv-Q has reached its Send-Q the accept queue is full and final ACKs are dropped: the application accepts too slowly, see LISTEN. " +
			"If not, the SYN-ACKs or the answers get lost, or somebody floods the port with SYNs. " +
			"Against a flood keep net.ipv4.tcp_syncookies at its default 1: it answers without remembering once the listener's backlog of requests is full. " +
			"net.ipv4.tcp_max_syn_backlog matters only where cookies are off. " +
			"The SYN-ACK is repeated net.ipv4.tcp_synack_retries times, 5 by default, so a dead request is gone after about a minute.",
		Transitions: []string{
			"LISTEN -> SYN_RECV: a request completed its handshake and became a socket; the request itself left no record",
		},
		Sources: []string{
			"include/net/tcp_states.h",
			"net/ipv4/tcp_input.c tcp_conn_request()",
			"net/ipv4/tcp_minisocks.c tcp_check_req()",
			"net/ipv4/inet_connection_sock.c reqsk_timer_handler()",
		},
	}
}

func boundInactive() Topic {
	return Topic{
		Name:    "BOUND_INACTIVE",
		Aliases: []string{"BOUND-INACTIVE"},
		Summary: "A socket that is bound to a port and neither listens nor connects. It gives no record.",
		Meaning: "It is not a state of its own but a filter by which the kernel lists sockets, since Linux 6.8. " +
			"The socket is in CLOSE; it has called bind() and nothing after it. " +
			"No socket ever changes into it at the tracepoint, and `ss` prints such a socket as UNCONN.",
		Normal: "A moment between bind() and listen() or connect(). " +
			"Some programs hold one on purpose, to reserve a port.",
		Remedy: "List them with `ss -tnpB`, which needs Linux 6.8 and an `ss` of the same age; on older ones `lsof -nP -p PID` shows them as \"protocol: TCP\". " +
			"Each one keeps its port from being chosen for an outgoing connection, so a leak of them can end in a shortage of ports. " +
			"Look for an error path that forgets to close a socket after bind(). " +
			"A client that binds only to choose its source address should set IP_BIND_ADDRESS_NO_PORT, so that the port is chosen when it connects.",
		Transitions: []string{
			"CLOSE -> LISTEN: a bound socket begins to listen",
			"CLOSE -> SYN_SENT: a bound socket connects; the record already has its local port",
		},
		Sources: []string{
			"include/net/tcp_states.h",
			"commit 91051f003948 \"tcp: Dump bound-only sockets in inet_diag.\"",
			"ss(8), ip(7)",
		},
	}
}
