package explain

// The states up to an open connection, and CLOSE.

func closed() Topic {
	return Topic{
		Name:    "CLOSE",
		Aliases: []string{"CLOSED", "UNCONN"},
		Summary: "No connection: every socket begins and ends in this state.",
		Meaning: "A socket in CLOSE has no connection and does not listen. " +
			"A new socket is in CLOSE without a record; its first record shows the transition out of CLOSE. " +
			"A record with new_state CLOSE is the end of a connection or of a listener, and error has the reason: it is absent after an orderly end, " +
			"and also after a reset that this side sent. " +
			"If the kernel reports CLOSE and makes a TIME_WAIT, tcpshift writes TIME_WAIT, with CLOSE in kernel_new_state.",
		Normal: "Every connection ends here or in TIME_WAIT, so these records are as frequent as the connections themselves. " +
			"ECONNREFUSED after SYN_SENT means that the other host answered and no process listens on that port. " +
			"A single ECONNRESET or EPIPE means that a peer ended the connection with a reset.",
		Remedy: "Sockets that stay in CLOSE are descriptors that a process opened and never used, or never closed. " +
			"`ss` cannot list them unless they are bound (see BOUND_INACTIVE); `lsof -nP -p PID` shows them as \"protocol: TCP\". " +
			"In /proc/net/sockstat they are part of the difference between alloc, which counts the whole host, and inuse. " +
			"Many ends with ETIMEDOUT point at the network or a dead peer, and many with ECONNRESET at a peer that crashes, restarts or sheds load. " +
			"SYN_SENT -> CLOSE without a local port and without an error means that no ephemeral port was free.",
		Transitions: []string{
			"CLOSE -> SYN_SENT: connect()",
			"CLOSE -> LISTEN: listen()",
			"LAST_ACK -> CLOSE: the orderly end on the side that closed second",
			"SYN_SENT -> CLOSE: the connect failed; error has the reason",
			"ESTABLISHED -> CLOSE: a reset, a timeout or an abort",
			"LISTEN -> CLOSE: the listener was closed",
		},
		Sources: []string{
			"RFC 9293 section 3.3.2",
			"net/ipv4/tcp.c tcp_set_state(), tcp_done(), tcp_disconnect()",
			"net/ipv4/tcp_input.c tcp_reset()",
		},
	}
}

func listen() Topic {
	return Topic{
		Name:    "LISTEN",
		Aliases: []string{"LISTENING"},
		Summary: "A server's socket that waits for connections.",
		Meaning: "The application has called listen(), and the kernel completes handshakes on its behalf. " +
			"Each completed handshake makes a socket of its own, which waits in the accept queue until accept() takes it. " +
			"The listener itself stays in LISTEN: a record LISTEN -> SYN_RECV belongs to the new socket, not to the listener.",
		Normal: "A listener stays for as long as its service runs. " +
			"Several listeners on one port are normal if workers use SO_REUSEPORT.",
		Remedy: "Connections that are not accepted pile up, not listeners: " +
			"in `ss -ltn` Recv-Q is the number of connections that wait and Send-Q is the limit. " +
			"`nstat -az TcpExtListenOverflows TcpExtListenDrops` counts connections that the kernel dropped so far. " +
			"The application must accept faster; usual causes are a blocked accept loop, too few workers, or no free descriptors. " +
			"For short bursts raise the backlog given to listen() together with net.core.somaxconn, which caps it; both take effect when the service calls listen() again. " +
			"This does not help against a queue that never empties.",
		Transitions: []string{
			"CLOSE -> LISTEN: listen()",
			"LISTEN -> SYN_RECV: a new socket for a completed handshake; the listener is unchanged",
			"LISTEN -> CLOSE: the listener was closed; the kernel normally resets connections that were not accepted",
		},
		Sources: []string{
			"RFC 9293 sections 3.3.2 and 3.10.7.2",
			"net/ipv4/inet_connection_sock.c inet_csk_listen_start(), inet_csk_listen_stop()",
			"listen(2), ss(8)",
		},
	}
}

func synSent() Topic {
	return Topic{
		Name:    "SYN_SENT",
		Aliases: []string{"SYN-SENT"},
		Summary: "A client has requested a connection and has no answer yet.",
		Meaning: "The application has called connect(), and the kernel sends a SYN and waits for the SYN-ACK. " +
			"The kernel chooses the local port after this transition, so CLOSE -> SYN_SENT has a local port only if the application has bound one. " +
			"Without an answer the kernel repeats the SYN, and connect() fails with ETIMEDOUT after a little more than two minutes; net.ipv4.tcp_syn_retries sets that time.",
		Normal: "It lasts one round trip. " +
			"A little more than a second means that the first SYN or its answer was lost, because the first retransmission comes after one second. " +
			"A refused connection leaves at once with ECONNREFUSED.",
		Remedy: "Group the sockets by destination: `ss -Htan state syn-sent | awk '{print $4}' | sort | uniq -c | sort -n`. " +
			"If there is one destination, it is down, a firewall drops the SYN, or the server's accept queue is full; " +
			"if there are many, check the route, firewall and address translation of this host. " +
			"`nstat -az TcpExtTCPSynRetrans` counts retransmissions. " +
			"Give the application a connect timeout of its own and a limit on attempts in flight, rather than lowering net.ipv4.tcp_syn_retries for the whole host. " +
			"SYN_SENT -> CLOSE without a local port and without an error has another cause: the ephemeral ports for that destination are used up.",
		Transitions: []string{
			"CLOSE -> SYN_SENT: connect()",
			"SYN_SENT -> ESTABLISHED: the SYN-ACK came",
			"SYN_SENT -> SYN_RECV: both sides connected to each other at the same time",
			"SYN_SENT -> CLOSE: refused, timed out, unreachable, given up, or no port was free",
		},
		Sources: []string{
			"RFC 9293 sections 3.5 and 3.10.7.3",
			"net/ipv4/tcp_ipv4.c tcp_v4_connect()",
			"net/ipv4/tcp_timer.c tcp_write_timeout()",
			"Documentation/networking/ip-sysctl.rst",
		},
	}
}

func synRecv() Topic {
	return Topic{
		Name:    "SYN_RECV",
		Aliases: []string{"SYN-RECEIVED", "SYN-RECV"},
		Summary: "The handshake is complete and the server's socket has just been made.",
		Meaning: "In RFC 9293, SYN-RECEIVED is a server that has answered a SYN and waits for the final ACK. " +
			"Linux keeps this as a small request, NEW_SYN_RECV, which does not pass the tracepoint and gives no record. " +
			"Linux makes the full socket, in SYN_RECV, when the final ACK has arrived. " +
			"There are two exceptions: with TCP Fast Open Linux makes the socket when the SYN arrives, and if two sides connect to each other at once the client's socket passes through SYN_RECV. " +
			"`ss` prints requests as SYN-RECV too, so its list is nearly always of NEW_SYN_RECV.",
		Normal: "It lasts some microseconds, because the packet that makes the socket also moves it to ESTABLISHED. " +
			"Before Linux 5.15 the record LISTEN -> SYN_RECV has no peer address; the next record has it.",
		Remedy: "Without TCP Fast Open, sockets cannot pile up in this state. " +
			"A long list in `ss -tan state syn-recv` consists of pending requests: see `tcpshift explain NEW_SYN_RECV`. " +
			"With Fast Open it consists of clients that sent no final ACK; net.ipv4.tcp_synack_retries limits how long the kernel waits for them. " +
			"Many SYN_RECV -> CLOSE records mean that the kernel could not set up new sockets: look for memory pressure in `dmesg` and at `nstat -az TcpExtListenDrops`.",
		Transitions: []string{
			"LISTEN -> SYN_RECV: the final ACK came, and the kernel made the socket from its listener",
			"SYN_SENT -> SYN_RECV: both sides connected to each other at the same time",
			"SYN_RECV -> ESTABLISHED: the connection is open and waits for accept()",
			"SYN_RECV -> CLOSE: the kernel could not set up the new socket, or a reset came",
		},
		Sources: []string{
			"RFC 9293 sections 3.3.2 and 3.5",
			"net/ipv4/inet_connection_sock.c inet_csk_clone_lock()",
			"net/ipv4/tcp_input.c tcp_rcv_state_process()",
			"net/ipv4/tcp_fastopen.c tcp_fastopen_create_child()",
		},
	}
}

func established() Topic {
	return Topic{
		Name:    "ESTABLISHED",
		Aliases: []string{"ESTAB"},
		Summary: "An open connection: both sides may send data.",
		Meaning: "The handshake is complete and neither side has closed. " +
			"On a server the connection is established before the application accepts it. " +
			"TCP sets no time limit for an idle connection: it sends nothing, and this side does not notice when the peer is gone.",
		Normal: "Connections spend most of their time in this state. " +
			"Idle connections are normal in connection pools and for long polling.",
		Remedy: "`ss -tanpi state established`, run as root, shows the process of each connection and the age of its traffic. " +
			"A process with ever more connections to one peer has a pool without an upper limit, or a leak; " +
			"connections without a process wait in the accept queue: see LISTEN. " +
			"A connection to a peer that is gone ends only if this side sends: the application has to set SO_KEEPALIVE. " +
			"The defaults of net.ipv4.tcp_keepalive_time, tcp_keepalive_intvl and tcp_keepalive_probes take more than two hours, so set shorter times on the socket. " +
			"If data is not acknowledged, the kernel gives up after net.ipv4.tcp_retries2 retransmissions, a quarter of an hour or more; TCP_USER_TIMEOUT shortens that for one socket.",
		Transitions: []string{
			"SYN_SENT -> ESTABLISHED: a client's connect() succeeded",
			"SYN_RECV -> ESTABLISHED: a server's new connection is open",
			"ESTABLISHED -> FIN_WAIT1: this side closed first",
			"ESTABLISHED -> CLOSE_WAIT: the peer closed first",
			"ESTABLISHED -> CLOSE: a reset, a timeout, or an abort on this side",
		},
		Sources: []string{
			"RFC 9293 sections 3.3.2 and 3.8.4",
			"net/ipv4/tcp_timer.c tcp_keepalive_timer(), tcp_write_timeout()",
			"Documentation/networking/ip-sysctl.rst",
		},
	}
}
