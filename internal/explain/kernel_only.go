package explain

// States that the kernel has and RFC 9293 has not. Neither appears at the tracepoint;
// their names appear in kernel headers and in ss.

func newSynRecv() Topic {
	return Topic{
		Name:    "NEW_SYN_RECV",
		Aliases: []string{"NEW-SYN-RECV"},
		Summary: "A pending connection request on a server, which waits for the final ACK. It gives no record.",
		Meaning: "Linux keeps the SYN-RECEIVED of RFC 9293 in this form: a small request that belongs to a listener, not a full socket. " +
			"It does not pass the tracepoint, so tcpshift does not show it; the first record is LISTEN -> SYN_RECV, when the handshake completes. " +
			"`ss` prints such requests as SYN-RECV.",
		Normal: "It lasts one round trip to the client. " +
			"A busy server with distant clients always has some, and TCP_DEFER_ACCEPT keeps a request here until the first data comes.",
		Remedy: "Compare `ss -tan state syn-recv` with `ss -ltn` and `nstat -az TcpExtListenOverflows TcpExtSyncookiesSent`. " +
			"If the listener's Recv-Q has reached its Send-Q the accept queue is full and final ACKs are dropped: the application accepts too slowly, see LISTEN. " +
			"If not, SYN-ACKs or their answers are lost, or the port is under a SYN flood. " +
			"Against a flood keep net.ipv4.tcp_syncookies at its default 1: the kernel then answers without storing the request once the listener's backlog of requests is full. " +
			"net.ipv4.tcp_max_syn_backlog matters only if cookies are off. " +
			"The kernel repeats the SYN-ACK net.ipv4.tcp_synack_retries times, 5 by default, and drops a dead request after about a minute.",
		Transitions: []string{
			"LISTEN -> SYN_RECV: a request completed its handshake and became a socket; the request itself gave no record",
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
		Meaning: "It is not a state but a filter for lists of sockets, which the kernel has since Linux 6.8. " +
			"The socket is in CLOSE; the application has called bind() and nothing after it. " +
			"No transition into it passes the tracepoint, and `ss` prints such a socket as UNCONN.",
		Normal: "It lasts a moment, between bind() and listen() or connect(). " +
			"Some programs keep such a socket on purpose, to reserve a port.",
		Remedy: "List them with `ss -tnpB`, which needs Linux 6.8 and an `ss` of that age; on older hosts `lsof -nP -p PID` shows them as \"protocol: TCP\". " +
			"The kernel does not choose its port for an outgoing connection, so a leak of such sockets can use up the ports. " +
			"Look for an error path that forgets to close a socket after bind(). " +
			"A client that binds only to choose its source address should set IP_BIND_ADDRESS_NO_PORT, so that the kernel chooses the port at connect().",
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
